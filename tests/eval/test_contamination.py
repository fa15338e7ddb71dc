from __future__ import annotations

import json

import pytest

from alignment import manifest, run, terminal
from alignment.corpus import decontaminate, index
from alignment.corpus.index import Index, Matches, Span
from eval import __main__ as command
from eval import contamination, harness, items, journal, statistics
from eval.tasks import TASKS, named

NAMES = ("Ann", "Bert", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hal", "Ida", "Jon")


def question(i):
    verbs = ("paints", "buys", "counts", "carries", "washes", "sells", "finds", "borrows", "draws", "mends")
    things = ("small boats", "red lamps", "old coins", "full baskets", "blue plates", "long ropes", "grey stones")
    return f"{NAMES[i % 10]} {verbs[i % 10]} {i + 2} {things[i % 7]} on {i + 1} days. How many {things[i % 7]} is that?"


def chinese(i):
    animals = "猫狗鸟鱼马牛羊兔"
    return f"关于第{i}号动物园里的{animals[i % 8]}和它的{animals[(i + 3) % 8]}朋友，哪种说法正确？"


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    asked = [{"question": question(i), "answer": f"#### {i}", "language": "en"} for i in range(20)]
    jsonl(tmp_path / "data/mini-gsm8k/train.jsonl", asked[:4])
    jsonl(tmp_path / "data/mini-gsm8k/test.jsonl", asked)
    options = dict(zip("ABCD", "甲乙丙丁", strict=True))
    choices = [{"question": chinese(i), "answer": "A", "subject": "s", "id": str(i), **options} for i in range(8)]
    jsonl(tmp_path / "data/mini-ceval/dev.jsonl", choices[:5])
    jsonl(tmp_path / "data/mini-ceval/val.jsonl", choices)
    return tmp_path / "data"


@pytest.fixture
def trained(tmp_path):
    """An index of a corpus that holds the first five questions of the one benchmark and the first two of the other."""
    texts = [f"Homework. {question(i)} Good luck!" for i in range(5)] + [f"试题：{chinese(i)}" for i in range(2)]
    plan = manifest.compose(words={"stage": "corpus", "seed": 0}, inputs={}, cards={}, hardware={})
    live = run.begin(tmp_path / "runs/corpus", plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
    jsonl(live.path / "documents.jsonl", [{"text": text} for text in texts])
    run.finish(live, {})
    index.write([live.path], tmp_path / "index")
    return Index(tmp_path / "index")


def test_items_in_the_training_text_are_marked_and_scored_apart(scripted, root, trained, tmp_path):
    """The model knows only what it was trained on."""

    def say(prompt):
        return next(
            (f"The answer is {i}." for i in range(5) if prompt.rsplit("Question: ", 1)[1].startswith(question(i))), "?"
        )

    wanted, out = named(["mini-gsm8k", "mini-ceval"]), tmp_path / "out"
    engine = scripted(say)
    report = harness.evaluate(harness.Judged(engine, "m", "completion"), wanted[:1], root, out)
    engine.say = lambda _: "B"
    report = harness.evaluate(harness.Judged(engine, "m", "completion"), wanted[1:], root, out)
    contamination.mark(report, wanted, root, out, trained)
    saved = json.loads((out / "report.json").read_text())
    words, characters = (saved["tasks"][task.name]["contamination"] for task in wanted)
    assert (words["n"], words["marked"], words["too_short"]) == (20, 5, 0)
    assert [words[part]["score"] for part in ("all", "clean", "contaminated")] == [0.25, 0.0, 1.0]
    assert words["difference"]["score"] == pytest.approx(0.25)
    assert 0 < words["difference"]["low"] < 0.25 <= words["difference"]["high"] < 0.5
    assert (characters["n"], characters["marked"]) == (8, 2)
    rows = journal.read_rows(out / "contamination/mini-ceval.jsonl")
    (span,) = rows[0]["spans"]
    assert span["kind"] == "character"
    assert span["text"] == chinese(0).rstrip("？")
    assert span["source"].startswith("corpus/documents.jsonl, byte ")
    assert [row["share"] > 0 for row in rows] == [True, True, *[False] * 6]
    assert "5 of 20 items share text with the index; 25.0% on all, 0.0% on clean items" in contamination.line("t", words)


def test_all_minus_clean_follows_from_marked_minus_clean():
    found = Matches(1.0, (Span("word", 0, 9, "x"),)), Matches(0.0, ())
    rows = [{"found": found[i % 4 > 0], "correct": i % 3 == 0} for i in range(60)]
    got = contamination.summary(rows)
    clean = [float(row["correct"]) for row in rows if not row["found"].spans]
    marked = [float(row["correct"]) for row in rows if row["found"].spans]
    assert got["difference"]["score"] == pytest.approx(got["all"]["score"] - got["clean"]["score"])
    apart = statistics.apart(clean, marked)
    assert got["difference"]["high"] == pytest.approx(0.25 * apart.high)


def test_without_marked_or_without_clean_items_there_is_no_difference():
    clean = contamination.summary([{"found": Matches(None, ()), "correct": True}] * 5)
    assert (clean["marked"], clean["too_short"], clean["difference"], clean["contaminated"]) == (0, 5, None, None)
    assert contamination.line("t", clean) == "t: 0 of 5 items share text with the index (5 have too few words to tell)"
    marked = contamination.summary([{"found": Matches(1.0, (Span("word", 0, 9, "x"),)), "correct": True}] * 5)
    assert (marked["clean"], marked["difference"]) == (None, None)


def test_the_items_command_writes_questions_that_decontamination_can_read(root, tmp_path):
    out = tmp_path / "against/items.jsonl"
    words = ["items", "--tasks", "mini-gsm8k,mini-ceval", "--data-root", str(root), "--out", str(out)]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 0
    rows = journal.read_rows(out)
    assert len(rows) == 28
    assert rows[3] == items.rows(TASKS["mini-gsm8k"], root)[3]
    assert (rows[3]["task"], rows[3]["question"], rows[3]["target"]) == ("mini-gsm8k", question(3), "3")
    assert rows[-1]["question"] == chinese(7) + "\nA. 甲\nB. 乙\nC. 丙\nD. 丁"
    read = decontaminate.heldout(tmp_path / "against")
    assert [item.text for item in read] == [row["question"] for row in rows]


def test_items_become_a_run_that_recipes_can_name(root, tmp_path):
    words = ["items", "--tasks", "mini-gsm8k", "--data-root", str(root), "--out", str(tmp_path / "runs/x/benchmarks")]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 0
    sealed = run.read(tmp_path / "runs/x/benchmarks", "items")
    assert sealed.manifest["command"][:3] == ["python", "-m", "eval"]
    assert [item.text for item in decontaminate.heldout(sealed.path / "heldout")] == [question(i) for i in range(20)]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 2
