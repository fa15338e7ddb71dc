"""A folder of recipes becomes a chain of runs: ordered, skipped when finished, never overwritten."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment import experiment, lineage, preflight, run
from alignment.corpus import installed
from alignment.errors import HardwareError, HubError, PlumblineError, RecipeError, RunError

ROOT = Path(__file__).parents[2]
FILES = {
    "words": "stage: tokenizer\ndata: text\nvocab_size: 300\nsample_bytes: 10\n",
    "text": "stage: corpus\ndata: [{installed: stdlib, limit_bytes: 10}]\nshares: {code: 1}\nbytes: 10\n",
    "packed": "stage: shards\ndata: text\ntokenizer: words\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    path = tmp_path / "recipes" / "toy"
    path.mkdir(parents=True)
    for name, text in FILES.items():
        (path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return path


class Toy:
    """Stages that write their recipe's seed, and remember that they were called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.fail = ""

    def stages(self) -> dict[str, Callable[..., Any]]:
        return dict.fromkeys(("corpus", "tokenizer", "shards", "sft"), self._stage)

    def _stage(self, words: Any, here: run.Run, _: Any) -> dict[str, Any]:
        self.called.append(here.path.name)
        (here.path / "out.txt").write_text(str(words.seed))
        if self.fail == here.path.name:
            raise KeyboardInterrupt
        return {"seed": words.seed}


def go(toy: Toy, folder: Path, *edits: str, resume: bool = False, profile: str | None = None) -> list[run.Finished]:
    planned = experiment.plan(folder, edits, folder.parents[1] / "runs")
    return experiment.execute(toy.stages(), planned, profile=profile, data_root=None, resume=resume)


def test_stages_run_in_the_order_of_what_they_read(folder: Path) -> None:
    toy = Toy()
    done = go(toy, folder)
    assert toy.called == ["text", "words", "packed"]
    assert done[-1].path == folder.parents[1] / "runs" / "toy" / "packed"
    assert set(done[-1].manifest["inputs"]) == {"text", "words"}


def test_finished_stages_are_skipped(folder: Path) -> None:
    toy = Toy()
    go(toy, folder)
    go(toy, folder)
    assert len(toy.called) == 3


def test_a_finished_run_that_would_differ_is_refused_by_its_first_field(folder: Path) -> None:
    go(Toy(), folder)
    with pytest.raises(RunError, match=r"bytes: was 10, now 20.*--runs"):
        go(Toy(), folder, "text:bytes=20")


def test_a_changed_input_is_named(folder: Path) -> None:
    go(Toy(), folder)
    text = folder.parents[1] / "runs" / "toy" / "text"
    (text / "run.json").unlink()
    for file in text.iterdir():
        file.unlink()
    with pytest.raises(RunError, match=r"words.*inputs\.text"):
        go(Toy(), folder, "text:seed=1")


def test_an_interrupted_chain_continues_with_resume(folder: Path) -> None:
    toy = Toy()
    toy.fail = "words"
    with pytest.raises(KeyboardInterrupt):
        go(toy, folder)
    toy.fail = ""
    with pytest.raises(RunError, match="--resume"):
        go(toy, folder)
    go(toy, folder, resume=True)
    assert toy.called == ["text", "words", "words", "packed"]


@pytest.mark.parametrize("edit", ["bytes=20", "txt:bytes=20"])
def test_an_edit_of_a_folder_names_its_recipe(folder: Path, edit: str) -> None:
    with pytest.raises(RecipeError, match="packed, text, words"):
        go(Toy(), folder, edit)


def test_recipes_that_wait_for_each_other_are_refused(folder: Path) -> None:
    (folder / "text.yaml").write_text(FILES["text"] + "against: packed\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="wait for each other"):
        experiment.plan(folder)


def test_a_run_that_nobody_makes_is_refused(folder: Path) -> None:
    (folder / "text.yaml").unlink()
    with pytest.raises(RecipeError, match=r"reads run 'text', and no text\.yaml"):
        experiment.plan(folder)


def test_a_single_recipe_needs_its_inputs_finished(folder: Path) -> None:
    with pytest.raises(RunError, match=r"text: no run\.json here"):
        go(Toy(), folder / "words.yaml")


def test_two_processes_take_one_training_recipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HardwareError, match="exactly one recipe of a training stage"):
        go(Toy(), folder, profile="cpu-2")


def test_the_chain_is_traced_and_a_broken_one_refused(folder: Path) -> None:
    done = go(Toy(), folder)
    lines = list(lineage.trace(done[-1].path, verify=True))
    assert [line.split()[1] for line in lines[:3]] == ["text", "words", "packed"]
    assert done[0].fingerprint[:12] in lines[0]
    (done[0].path / "out.txt").write_text("1")
    with pytest.raises(RunError, match="content was changed"):
        list(lineage.trace(done[-1].path, verify=True))


SFT = "stage: sft\nstart: {START}\ndata: [{run: text}]\noptim: {learning_rate: 1e-5, batch_size: 2}\nmax_length: 64\n"


def test_an_unpinned_model_is_refused_before_anything_runs(folder: Path) -> None:
    (folder / "sft.yaml").write_text(SFT.replace("START", "hub: a/b, revision: unpinned"), encoding="utf-8")
    toy = Toy()
    with pytest.raises(HubError, match=r"python -m alignment pin .*toy/sft\.yaml"):
        go(toy, folder)
    assert not toy.called


def test_a_start_model_counts_by_content_and_its_key_is_no_run(folder: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (folder / "sft.yaml").write_text(SFT.replace("START", f"folder: {tmp_path / name}"), encoding="utf-8")
        found.append(next(done for done in go(Toy(), folder) if done.path.name == "sft"))
    assert found[0].fingerprint == found[1].fingerprint
    assert set(found[0].manifest["inputs"]) == {"start:", "text"}
    assert set(found[0].parents) == {"text"}
    assert [line.split()[1] for line in lineage.trace(found[0].path)][:2] == ["text", "sft"]


def test_the_manifest_says_of_a_card_how_many_rows_were_read_and_what_they_were(folder: Path, tmp_path: Path) -> None:
    def stage(words: Any, here: run.Run, _: Any) -> dict[str, Any]:
        return {"rows": len(list(here.cards[words.data[0].card].rows()))}

    (tmp_path / "instruct").mkdir()
    with gzip.open(tmp_path / "instruct" / "alpaca_en_01.jsonl.gz", "wt") as file:
        file.write('{"instruction": "Hi", "input": "", "output": "Hello."}\n' * 3)
    (folder / "sft.yaml").write_text(SFT.replace("START", "hub: a/b, revision: " + f"'{0:040}'"), encoding="utf-8")
    planned = experiment.plan(folder / "sft.yaml", ["data=[{card: alpaca-en}]"], tmp_path / "runs")
    (done,) = experiment.execute({"sft": stage}, planned, profile=None, data_root=tmp_path, resume=False)
    about = run.read(done.path).manifest["cards"]["alpaca-en"]
    assert about == {"revision": None, "rows": 3, "digest": about["digest"]}
    assert f"card alpaca-en {about['digest'][:12]}" in next(lineage.trace(done.path))


def test_a_trace_shortens_hashes_and_leaves_names(folder: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    text = SFT.replace("START", f"hub: some-org/a-name, revision: '{commit}'")
    (folder / "sft.yaml").write_text(text, encoding="utf-8")
    sft = next(done for done in go(Toy(), folder) if done.path.name == "sft")
    assert list(lineage.trace(sft.path))[1].endswith("start: some-org/a-name@0123456789ab")


def test_what_is_installed_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(Toy(), folder)
    monkeypatch.setattr(installed, "digest", lambda: "others")
    with pytest.raises(RunError, match=r"cards\.installed:: was .*, now 'others'"):
        go(Toy(), folder)


def test_a_write_that_fell_short_on_a_full_disk_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any) -> Any:
        raise OSError("100 requested and 10 written")

    planned = experiment.plan(folder / "text.yaml", (), folder.parents[1] / "runs")
    arguments: dict[str, Any] = {"profile": None, "data_root": None, "resume": True}
    with pytest.raises(OSError, match="requested"):
        experiment.execute({"corpus": short}, planned, **arguments)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(RunError, match="the disk is full"):
        experiment.execute({"corpus": short}, planned, **arguments)


@pytest.mark.parametrize(
    ("name", "edit", "complaint"),
    [("text", "data.0={card: nope}", "no such data card"), ("base", "model.preset=1b4", "preset")],
)
def test_check_looks_up_cards_and_presets(folder: Path, name: str, edit: str, complaint: str) -> None:
    (folder / "base.yaml").write_text(
        "stage: pretrain\ndata: packed\nmodel: {preset: 1b3}\noptim: {learning_rate: 1e-3}\n"
        "tokens: 100\nbatch_size: 2\nsequence_length: 8\n",
        encoding="utf-8",
    )
    for item in experiment.plan(folder / f"{name}.yaml"):
        preflight.check(item)
    with pytest.raises(PlumblineError, match=complaint):
        preflight.check(experiment.plan(folder / f"{name}.yaml", [edit])[0])


def test_a_fingerprint_does_not_depend_on_where_a_run_lies(folder: Path, tmp_path: Path) -> None:
    one = go(Toy(), folder)
    planned = experiment.plan(folder, (), tmp_path / "elsewhere")
    two = experiment.execute(Toy().stages(), planned, profile=None, data_root=None, resume=False)
    assert [item.fingerprint for item in one] == [item.fingerprint for item in two]
