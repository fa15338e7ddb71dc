from __future__ import annotations

import html.parser
import json
import re

import pytest

from alignment import chat, manifest, recipe, run, terminal
from alignment.corpus.index import Index
from alignment.errors import DataError, RecipeError
from alignment.hardware import Hardware
from alignment.run import Finished
from eval import __main__ as command
from eval import evaluate, harness, journal, tasks

MACHINE = Hardware("cpu", "cpu", "float32", "tests", "sdpa", 4096, False, 1, 1)
LONG = "Seven quiet farmers carried eleven heavy baskets over the mountain."
HOSTILE = "<script>alert(1)</script>"


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


class Chain:
    """A chain of small finished runs below one folder."""

    def __init__(self, base):
        self.base, self.done = base, {}

    def begin(self, stage, name, inputs, **words):
        found: dict[str, Finished] = {other: self.done[other] for other in inputs}
        plan = manifest.compose(
            words={"stage": stage, "seed": 0, "name": name, **words},
            inputs={other: one.fingerprint for other, one in found.items()} | {"start:": "org/name@0123"},
            cards={},
            hardware={"device": "cpu"},
        )
        settings = {"inputs": found, "cards": {}, "main": True, "resume": False, "recipe_text": ""}
        return run.begin(self.base / name, plan, **settings)

    def add(self, stage, name, inputs=(), numbers=None):
        live = self.begin(stage, name, inputs)
        yield live
        self.done[name] = run.finish(live, numbers or {})


@pytest.fixture
def chain(tmp_path):
    made = Chain(tmp_path / "runs/small")
    for live in made.add("curriculum", "curriculum"):
        asked = [{"question": f"What is {i}?", "answer": f"#### {i}", "unseen": i > 6} for i in range(9)]
        asked[4]["question"] = f"{LONG} What is 4?"
        jsonl(live.path / "heldout/mini-gsm8k/train.jsonl", asked)
        jsonl(live.path / "heldout/mini-gsm8k/test.jsonl", asked)
        problem = {"kind": "number", "target": "3", "split": "heldout", "prompt": f"What is 3?{HOSTILE}"}
        jsonl(live.path / "problems.jsonl", [problem | {"id": "p"}])
    for name in ("pretrain", "sft", "dpo"):
        for live in made.add(name, name, ("curriculum",), {"bits_per_byte": 1.0, "bits_per_byte_unigram": 4.0}):
            (live.path / "model").mkdir()
            (live.path / "model/model.safetensors").write_text(name)
            live.log(step=1, loss=2.0, learning_rate=1e-3, tokens_per_second=9.0)
            live.log(step=2, loss=1.0, learning_rate=1e-4, tokens_per_second=9.0)
    for live in made.add("preferences", "preferences", ("sft",)):
        pair = {"prompt": "p", "chosen": "yes", "rejected": "no"}
        jsonl(live.path / "heldout_pairs.jsonl", [pair | {"id": "p-0"}, pair | {"id": "p-1"}])
    return made


@pytest.fixture
def models(scripted, monkeypatch):
    loaded = []

    def say(prompt):
        asked = re.findall(r"What is (\d+)", prompt)[-1]
        return f"{HOSTILE} The answer is {asked}."

    def load(path, _):
        loaded.append(path.name)
        engine = scripted(say)
        engine.score = lambda prompts, *_: [
            [type("S", (), {"logprob": x, "tokens": 2})() for x in (-1.0, -2.0)] for _ in prompts
        ]
        return engine

    encoded = type("E", (), {"input_ids": "x", "learnt": [True]})()
    monkeypatch.setattr("alignment.generate.engine.load", load)
    monkeypatch.setattr(harness, "encode", lambda _, text: text)
    monkeypatch.setattr(chat, "encode", lambda *_, **__: encoded)
    return loaded


def words(**changes):
    models = [{"run": "pretrain", "form": "completion"}, {"run": "sft", "form": "chat"}, {"run": "dpo", "form": "chat"}]
    raw = {"stage": "evaluate", "models": models, "tasks": ["mini-gsm8k"], "data": "curriculum", "pairs": "preferences"}
    return recipe.validate(raw | {"reference": "sft"} | changes, "test")


INPUTS = ("curriculum", "pretrain", "sft", "dpo", "preferences")


def test_a_chain_is_evaluated_and_reported(chain, models):
    live = chain.begin("evaluate", "evaluate", INPUTS)
    numbers = evaluate.run(words(), live, MACHINE)
    assert numbers["dpo/mini-gsm8k"] == 1.0
    report = json.loads((live.path / "report.json").read_text())
    assert [model["name"] for model in report["models"]] == ["pretrain", "sft", "dpo"]
    assert report["models"][2]["preference"]["implicit reward"]["ties"] == report["models"][2]["preference"]["n"] == 1
    assert {(row["before"], row["after"], row["task"]) for row in report["differences"]} == {
        ("pretrain", "sft", "mini-gsm8k"), ("sft", "dpo", "mini-gsm8k"), ("sft", "dpo", "sampled"),
    }  # fmt: skip
    assert report["curves"]["sft"]["loss"] == [2.0, 1.0]
    assert (chain.base / "dpo/eval/samples/mini-gsm8k.jsonl").exists()
    assert "| pretrain | completion, 4 shots | 100.0 (" in (live.path / "report.md").read_text()

    assert models == ["pretrain", "sft", "dpo"]


def test_only_what_the_recipe_names_is_in_the_experiments_table(chain, models):  # noqa: ARG001
    live = chain.begin("evaluate", "evaluate", INPUTS)
    numbers = evaluate.run(words(), live, MACHINE)
    path = chain.base / "sft/eval/report.json"
    found = json.loads(path.read_text())
    found["tasks"]["gsm8k"] = found["tasks"]["mini-gsm8k"]
    path.write_text(json.dumps(found))
    again = chain.begin("evaluate", "again", INPUTS)
    assert evaluate.run(words(), again, MACHINE) == numbers
    alone = chain.begin("evaluate", "alone", INPUTS)
    evaluate.run(words(pairs=None), alone, MACHINE)
    report = json.loads((alone.path / "report.json").read_text())
    assert not any("preference" in model or "sampled" in model["tasks"] for model in report["models"])


def test_checks_that_a_recipe_asks_for_are_on_the_page(chain, models):  # noqa: ARG001
    for live in chain.add("corpus", "corpus"):
        jsonl(live.path / "documents.jsonl", [{"text": f"Homework. {LONG} Good luck!"}])
    live = chain.begin("evaluate", "evaluate", (*INPUTS, "corpus"))
    (live.path / "index").mkdir()
    (live.path / "index/word-00.part").write_text("of a run that was killed")
    evaluate.run(words(contamination=["corpus"], invariance=True), live, MACHINE)
    report = json.loads((live.path / "report.json").read_text())
    for model in report["models"]:
        found = model["tasks"]["mini-gsm8k"]
        assert (found["contamination"]["n"], found["contamination"]["marked"]) == (9, 1)
        assert found["invariance"] == {"asked_again": 8, "texts_differ": 0, "flips": []}
    assert report["models"][1]["tasks"]["sampled"]["contamination"]["marked"] == 0
    rows = journal.read_rows(chain.base / "dpo/eval/contamination/mini-gsm8k.jsonl")
    assert [row["spans"][0]["text"] for row in rows if row["spans"]] == [LONG.lower().rstrip(".")]
    text, page = (live.path / "report.md").read_text(), (live.path / "report.html").read_text()
    assert "| dpo | mini-gsm8k | 9 | 1 | 8 | 100.0 (" in text
    assert "| dpo | mini-gsm8k | 8 | none | 0 texts |" in text
    assert page.count("<h3>Contamination</h3>") == page.count("<h3>The same answer alone</h3>") == 1
    Index(live.path / "index")  # of use to `python -m eval --contamination` too
    plain = chain.begin("evaluate", "plain", INPUTS)
    evaluate.run(words(), plain, MACHINE)
    assert "Contamination" not in (plain.path / "report.md").read_text()
    assert not (plain.path / "index").exists()


def test_checks_count_in_the_fingerprint_only_where_they_are_asked_for():
    before = words().model_dump(mode="json")
    assert before.keys() == {
        "stage", "seed", "fits", "models", "tasks", "data", "pairs", "reference", "limit",
    }, "finished runs were sealed with these words"  # fmt: skip
    assert words(contamination=[], invariance=False).model_dump(mode="json") == before
    for check in ({"contamination": ["corpus"]}, {"invariance": True}):
        assert words(**check).model_dump(mode="json") == before | check
    assert "corpus" in words(contamination=["corpus"]).runs() - words().runs()


def test_a_run_of_ours_knows_its_held_out_sets(chain):
    assert command.heldout(str(chain.base / "dpo"), tasks.named(["mini-gsm8k"])) == chain.base / "curriculum/heldout"
    with pytest.raises(DataError, match="--data-root: missing"):
        command.heldout(str(chain.base / "dpo"), tasks.named(["mini-gsm8k", "gsm8k"]))


def test_the_held_out_sets_are_those_of_the_models_lineage_or_must_be_named(chain):
    mini = tasks.named(["mini-gsm8k"])
    for name, kind in (("another", "mini-gsm8k"), ("chatter", "mini-ceval")):  # earlier in the alphabet, and of no model yet
        for live in chain.add("curriculum", name):
            jsonl(live.path / "heldout" / kind / "test.jsonl", [{"question": "Who?"}])
    for live in chain.add("sft", "talkative", ("chatter", "sft")):
        (live.path / "model").mkdir()
    assert command.heldout(str(chain.base / "talkative"), mini) == chain.base / "curriculum/heldout"
    for live in chain.add("sft", "both", ("another", "sft")):
        (live.path / "model").mkdir()
    with pytest.raises(DataError, match=r"several curricula: .*another/heldout, .*curriculum/heldout"):
        command.heldout(str(chain.base / "both"), mini)
    manifest_of = chain.base / "curriculum" / run.MANIFEST
    manifest_of.write_text(manifest_of.read_text().replace(chain.done["curriculum"].fingerprint, "0" * 64))
    with pytest.raises(DataError, match=r"curriculum was run again after .*dpo was made from it"):
        command.heldout(str(chain.base / "dpo"), mini)


def test_the_page_holds_everything_and_runs_nothing(chain, models):  # noqa: ARG001
    live = chain.begin("evaluate", "evaluate", INPUTS)
    evaluate.run(words(), live, MACHINE)
    page = (live.path / "report.html").read_text()
    tags: list[tuple[str, dict]] = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, pairs: tags.append((tag, dict(pairs)))
    parser.feed(page)
    assert page.count("<svg") == 9
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe"}
    addresses = [value for _, pairs in tags for key, value in pairs.items() if key in ("href", "src")]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert "url(http" not in page
    assert "&lt;script&gt;" in page


def test_a_reference_that_is_never_scored_is_refused():
    with pytest.raises(RecipeError, match="mixture is not one of the chat models"):
        words(reference="mixture")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere", "--tasks", "gsm8k"], "no such run or folder"),
        ([".", "--tasks", "gms8k"], "Did you mean 'gsm8k'"),
        ([".", "--tasks", "gsm8k"], "--data-root: missing"),
        ([".", "--tasks", "gsm8k", "--data-root", "/nowhere"], "no such file"),
    ],
)
def test_a_bad_command_is_said_without_a_traceback(arguments, complaint, capsys):
    code = terminal.guarded(lambda: command.app(arguments, standalone_mode=False), resumes=False)
    said = capsys.readouterr().err
    assert code == 2
    assert complaint in said.replace("\n", "")
    assert "Traceback" not in said


def test_help_names_the_other_commands_and_how_several_answers_are_drawn(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert terminal.guarded(lambda: command.run_command(["--help"]), resumes=False) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "compare, items and text" in said
    assert "drawn at temperature 0.6, top-p 0.95" in said


def test_a_pretrain_run_is_a_base_model_though_it_carries_a_template(chain):
    assert command.form(str(chain.base / "pretrain"), True) == "completion"
    assert command.form(str(chain.base / "sft"), True) == "chat"
    assert command.form("somewhere/model", False) == "completion"
    assert command.default_out(str(chain.base / "sft")) == chain.base / "sft/eval"
    assert str(command.default_out("org/name@main")) == "reports/name"
