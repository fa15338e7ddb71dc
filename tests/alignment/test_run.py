"""A finished manifest means finished files; anything else is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment import manifest, run, terminal
from alignment.errors import RunError

WORDS = {"stage": "corpus", "seed": 0, "bytes": 10, "fits": ["cpu"]}


def plan(**changes: Any) -> dict[str, Any]:
    return manifest.compose(words={**WORDS, **changes}, inputs={"a": "1"}, cards={}, hardware={"name": "cpu"})


def begin(path: Path, *, resume: bool = False, **changes: Any) -> run.Run:
    return run.begin(
        path,
        plan(**changes),
        inputs={},
        cards={},
        main=True,
        resume=resume,
        recipe_text="stage: corpus\n",
    )


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    here = begin(tmp_path / "corpus")
    (here.path / "documents.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    here.log(step=1, loss=2.0)
    run.finish(here, {"documents": 1})
    return here.path


def test_a_sealed_run_reads_back(sealed: Path) -> None:
    found = run.read(sealed, "corpus")
    assert found.numbers == {"documents": 1}
    assert set(found.manifest["outputs"]) == {"documents.jsonl", "metrics.jsonl", "recipe.yaml"}


def test_an_unfinished_run_cannot_be_read(tmp_path: Path) -> None:
    begin(tmp_path / "corpus")
    with pytest.raises(RunError, match="unfinished"):
        run.read(tmp_path / "corpus")


def _edit_manifest(path: Path, **changes: Any) -> None:
    file = path / run.MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "file missing": (lambda p: (p / "documents.jsonl").unlink(), "missing"),
    "file longer": (lambda p: (p / "documents.jsonl").write_text("more than before, a lot"), "bytes"),
    "same size, other bytes": (lambda p: (p / "documents.jsonl").write_text('{"text": "b"}\n'), "content was changed"),
    "file added": (lambda p: (p / "more.jsonl").write_text("{}"), "put there after the run was sealed"),
    "manifest edited": (lambda p: _edit_manifest(p, numbers={"documents": 2}), "changed after it was sealed"),
    "manifest foreign": (lambda p: (p / run.MANIFEST).write_text('{"finished": true}'), "not written by this toolkit"),
    "manifest cut": (lambda p: (p / run.MANIFEST).write_text('{"format": "plumb'), "not a manifest"),
    "manifest gone": (lambda p: (p / run.MANIFEST).unlink(), "no run.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_refused(sealed: Path, name: str) -> None:
    damage, complaint = DAMAGE[name]
    damage(sealed)
    with pytest.raises(RunError, match=complaint):
        run.read(sealed)


def test_eval_and_log_lie_outside_the_seal(sealed: Path) -> None:
    (sealed / "eval").mkdir()
    (sealed / "eval" / "report.json").write_text("{}")
    (sealed / "log.txt").write_text("later")
    run.read(sealed)


def test_a_run_of_another_stage_is_refused(sealed: Path) -> None:
    with pytest.raises(RunError, match="a corpus run; a sft run is needed"):
        run.read(sealed, "sft")


def test_an_unfinished_run_needs_resume_and_the_same_recipe(tmp_path: Path) -> None:
    begin(tmp_path / "corpus")
    with pytest.raises(RunError, match="--resume"):
        begin(tmp_path / "corpus")
    (tmp_path / "corpus" / "documents.jsonl").write_text("")
    with pytest.raises(RunError, match=r"bytes: was 10, now 20.*remove that run yourself"):
        begin(tmp_path / "corpus", resume=True, bytes=20)
    assert begin(tmp_path / "corpus", resume=True).resumed


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_has_made_nothing_gives_way_to_a_corrected_recipe(tmp_path: Path, resume: bool) -> None:
    begin(tmp_path / "corpus").log(step=1, loss=1.0)
    here = begin(tmp_path / "corpus", resume=resume, bytes=20)
    assert not here.resumed
    assert not (here.path / "metrics.jsonl").exists()
    assert run.read_manifest(here.path)["recipe"]["bytes"] == 20


def test_a_run_that_was_killed_before_its_manifest_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "run.json.part").write_text("half")
    run.finish(begin(tmp_path / "corpus"), {})


def test_a_finished_run_is_never_overwritten(sealed: Path) -> None:
    with pytest.raises(RunError, match="finished"):
        begin(sealed, resume=True)


def test_a_folder_with_foreign_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.txt").write_text("do not touch")
    with pytest.raises(RunError, match="holds files"):
        begin(tmp_path / "corpus")


@pytest.mark.parametrize("name", ["documents.jsonl.part", "model.part/weights"])
def test_a_half_written_file_cannot_be_sealed(tmp_path: Path, name: str) -> None:
    here = begin(tmp_path / "corpus")
    (here.path / name).parent.mkdir(exist_ok=True)
    (here.path / name).write_text("half")
    with pytest.raises(RunError, match="half-written"):
        run.finish(here, {})
    with pytest.raises(RunError, match="unfinished"):
        run.read(here.path)


def test_rewind_forgets_later_and_half_written_metrics(tmp_path: Path) -> None:
    here = begin(tmp_path / "corpus")
    for step in (1, 2, 3):
        here.log(step=step, loss=1.0)
    with (here.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    here.rewind(2)
    rows = (here.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2]


def test_progress_without_a_terminal_says_done_total_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(terminal, "console", lambda: Console(width=200))
    with begin(tmp_path / "corpus").progress("rows", 4000) as bar:
        bar.advance(1000, loss=2.5)
    assert re.search(r"rows: 1,000/4,000, \S+/s  loss 2\.5, .*\d s left", capsys.readouterr().out)


def test_checkpoints_stay_until_the_run_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = begin(tmp_path / "corpus")
    (here.path / "checkpoints" / "step-1").mkdir(parents=True)
    with monkeypatch.context() as killed:
        killed.setattr(run, "_seal", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.finish(here, {})
    assert (here.path / "checkpoints" / "step-1").is_dir()
    run.finish(here, {})
    assert not (here.path / "checkpoints").exists()
