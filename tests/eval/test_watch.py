"""Checkpoints are scored as they appear, once each, and the trainer's files stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import typer.main
from safetensors.torch import load_file, save_file

from alignment import manifest, run
from alignment.errors import DataError, RunError
from alignment.models import midway
from eval import tasks, watch
from eval.__main__ import command
from tests import tiny

RECIPE = {
    "stage": "pretrain",
    "seed": 0,
    "data": "shards",
    "model": {"layers": 2, "width": 32, "heads": 2, "ffn": 64, "tie": True},
    "optim": {"learning_rate": 1e-3},
    "tokens": 5120,
    "batch_size": 4,
    "sequence_length": 128,
}


@pytest.fixture
def live(tmp_path: Path) -> run.Run:
    """An unfinished pre-training run beside the shards that its tokenizer lies in; two sums to ask."""
    tiny.write_start(tmp_path / "runs/shards")
    for name, count in (("train", 4), ("test", 2)):
        found = [{"question": f"{i} + 1 =", "answer": str(i + 1), "family": "add"} for i in range(count)]
        tiny.write_rows(tmp_path / f"data/mini-sums/{name}.jsonl", found)
    plan = manifest.compose(words=RECIPE, inputs={}, cards={}, hardware={})
    path = tmp_path / "runs/pretrain"
    return run.begin(path, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")


def checkpoint(live: run.Run, step: int, *, sharded: bool = False, drop: str = "") -> None:
    weights = load_file(live.path.parent / "shards/model/model.safetensors")
    tensors = {name: value for name, value in weights.items() if name != drop}
    tensors |= {f"{name}/exp_avg": torch.zeros_like(value) for name, value in weights.items()}
    folder = live.path / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    if sharded:
        dcp.save(tensors, checkpoint_id=folder, no_dist=True)
    else:
        save_file(tensors, folder / "tensors.safetensors")


def follow(live: run.Run, tmp_path: Path) -> Any:
    wanted = tasks.named(["mini-sums"])
    return watch.follow(live.path, wanted, tmp_path / "data", tiny.CPU, limit=None, poll_seconds=0.01)


def finish(live: run.Run, updates: int) -> None:
    (live.path / "model").mkdir()
    for file in (live.path.parent / "shards/model").iterdir():
        (live.path / "model" / file.name).write_bytes(file.read_bytes())
    run.finish(live, {"updates": updates})


def test_every_checkpoint_is_scored_once_in_order_and_the_finished_model_last(live: run.Run, tmp_path: Path) -> None:
    checkpoint(live, 4, sharded=True)
    checkpoint(live, 2)
    (live.path / "checkpoints" / "step-6.part").mkdir()  # half-written
    rows = follow(live, tmp_path)
    assert [next(rows)["step"], next(rows)["step"]] == [2, 4]
    checkpoint(live, 6)
    assert next(rows)["step"] == 6
    rows.close()
    finish(live, updates=10)
    (last,) = follow(live, tmp_path)  # started again: what was scored is not scored again
    assert last["step"] == 10
    assert last["scores"].keys() == {"mini-sums"}
    scored = [json.loads(line)["step"] for line in (live.path / "eval" / watch.SCORES).read_text().splitlines()]
    assert scored == [2, 4, 6, 10]
    answers = [json.loads((live.path / f"eval/step-{step}/report.json").read_text())["tasks"] for step in scored]
    assert all(report["mini-sums"]["n"] == 2 for report in answers)
    assert run.read(live.path).manifest["finished"]  # and its seal holds


def test_sharded_weights_are_the_same_weights(live: run.Run) -> None:
    checkpoint(live, 1)
    checkpoint(live, 2, sharded=True)
    whole, parts = (midway.weights(live.path / "checkpoints" / f"step-{step}") for step in (1, 2))
    assert whole.keys() == parts.keys()
    assert not any("/" in name for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_checkpoint_that_is_gone_is_passed_over(live: run.Run, tmp_path: Path) -> None:
    (live.path / "checkpoints" / "step-2").mkdir(parents=True)  # pruned between the look and the reading
    checkpoint(live, 4)
    assert next(follow(live, tmp_path))["step"] == 4


def test_a_checkpoint_of_another_model_is_refused(live: run.Run, tmp_path: Path) -> None:
    checkpoint(live, 2, drop="model.norm.weight")
    with pytest.raises(RunError, match=r"has no model\.norm\.weight"):
        next(follow(live, tmp_path))


def test_only_pretraining_runs_are_watched(live: run.Run, tmp_path: Path) -> None:
    found = json.loads((live.path / run.MANIFEST).read_text())
    run.write_text(live.path / run.MANIFEST, json.dumps(found | {"stage": "sft"}))
    with pytest.raises(DataError, match="sft run has no checkpoints"):
        next(follow(live, tmp_path))


def test_the_word_watch_leads_to_a_command_line_of_its_own() -> None:
    app, rest = command(["runs/x", "--watch", "--limit", "3"])
    context = typer.main.get_command(app).make_context("x", list(rest))
    assert context.params["path"] == Path("runs/x")
    assert context.params["limit"] == 3


def test_the_finished_model_is_scored_where_its_own_checkpoint_went_too_soon(
    live: run.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(live, 8)
    checkpoint(live, 8)  # still there, for the trainer lets its checkpoints go last
    read = watch._checkpoint

    def late(path: Path, step: int, *words: Any) -> Any:
        for file in (path / "checkpoints" / f"step-{step}").iterdir():
            file.unlink()
        (path / "checkpoints" / f"step-{step}").rmdir()
        return read(path, step, *words)

    monkeypatch.setattr(watch, "_checkpoint", late)
    assert [row["step"] for row in follow(live, tmp_path)] == [8]


def test_a_line_of_scores_cut_off_by_a_crash_is_written_again(live: run.Run, tmp_path: Path) -> None:
    finish(live, 4)
    checkpoint(live, 2)
    assert [row["step"] for row in follow(live, tmp_path)] == [2, 4]
    scores = live.path / "eval" / watch.SCORES
    whole = scores.read_text()
    scores.write_text(whole[:-10])
    assert [row["step"] for row in follow(live, tmp_path)] == [4]
    assert scores.read_text() == whole
