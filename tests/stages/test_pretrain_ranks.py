"""One process or two, sharded or not, many passes or few: the same curve, and each can go on where another stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from alignment.corpus.shards import Shards
from alignment.models import build, presets
from alignment.pretrain import checkpoint, learner, loop, loss, sharded
from alignment.pretrain.batches import Batches
from alignment.pretrain.checkpoint import Checkpoints
from alignment.pretrain.guard import Guard
from tests.stages import forked
from tests.stages import test_pretrain as stage

pytestmark = pytest.mark.slow
UPDATES = 20
RECIPE = stage.RECIPE.model_copy(update={"tokens": UPDATES * 8 * 32})
MEETING = 6  # the update after which the sharded model is saved


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of this file: `one` beside those that must come out alike."""
    folder = tmp_path_factory.mktemp("ranks")
    forked.program(__file__, folder)
    return folder


@pytest.mark.parametrize("name", ["passes", "two", "two-then-one", "one-then-two"])
def test_the_machine_does_not_change_the_curve(runs: Path, name: str) -> None:
    one, other = stage.rows(runs / "one"), stage.rows(runs / name)
    assert len(one) == len(other) == UPDATES
    for here, there in zip(one, other, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-5), here["step"]
        assert there["grad_norm"] == pytest.approx(here["grad_norm"], rel=1e-4), here["step"]
    scores = [json.loads((runs / f"{which}.json").read_text())["bits_per_byte"] for which in ("one", name)]
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)


def test_what_was_interrupted_went_on_from_a_checkpoint(runs: Path) -> None:
    for name in ("two-then-one", "one-then-two"):
        assert "resumed from step-" in (runs / name / "log.txt").read_text()


def test_sharded_weights_give_the_same_curve(runs: Path) -> None:
    found = json.loads((runs / "sharded.json").read_text())
    wanted = [row["loss"] for row in stage.rows(runs / "one")]
    assert found == pytest.approx(wanted[: len(found)], rel=1e-5)


def test_a_sharded_model_resumes_bit_for_bit_from_a_checkpoint_written_while_it_trained(runs: Path) -> None:
    whole = json.loads((runs / "sharded.json").read_text())
    assert json.loads((runs / "resumed.json").read_text()) == whole[MEETING:]
    assert (runs / "checkpoints" / f"step-{MEETING}" / sharded.INDEX).exists()


def test_a_sharded_checkpoint_goes_on_unsharded(runs: Path) -> None:
    whole = json.loads((runs / "sharded.json").read_text())
    assert json.loads((runs / "unsharded.json").read_text()) == pytest.approx(whole[MEETING:], rel=1e-5)


def drive(folder: Path) -> None:
    """Train one recipe on machines of all kinds."""
    data = stage.write_shards(folder / "data")

    def begin(name: str, processes: int, *, resumed: bool = False, micro_tokens: int = 64) -> list[int]:
        def train(rank: int) -> None:
            machine = replace(stage.CPU, processes=processes, micro_tokens=micro_tokens)
            numbers = loop.train(RECIPE, stage.begin(folder / name, data, resumed=resumed, main=rank == 0), machine)
            if rank == 0:
                (folder / f"{name}.json").write_text(json.dumps(numbers))

        return forked.start(processes, train)

    for name, processes, tokens in (("one", 1, 256), ("passes", 1, 32), ("two", 2, 64)):
        forked.reap(begin(name, processes, micro_tokens=tokens))
    for name, first, then in (("two-then-one", 2, 1), ("one-then-two", 1, 2)):
        children = begin(name, first)
        forked.until(lambda path=folder / name: forked.logged(path) >= 12, children)
        for child in children:
            os.kill(child, signal.SIGKILL)
        forked.reap(children, -signal.SIGKILL)
        forked.reap(begin(name, then, resumed=True))
    forked.reap(forked.start(2, lambda rank: sharded_updates(folder, rank, "sharded")))
    forked.reap(forked.start(2, lambda rank: sharded_updates(folder, rank, "resumed")))
    forked.reap(forked.start(1, lambda rank: sharded_updates(folder, rank, "unsharded")))


def sharded_updates(folder: Path, rank: int, name: str) -> None:
    """Learn with torch's fully_shard, saving on the way or beginning at what was saved; write the losses down."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    words = build.read_tokenizer(folder / "data" / "tokenizer")
    shape = presets.resolve(RECIPE.model, len(words), RECIPE.sequence_length)
    model: Any = build.build(shape, words, stage.CPU, seed=RECIPE.seed, init_std=RECIPE.init_std)
    loss.attach(model)
    if accelerator.num_processes > 1:
        mesh = init_device_mesh("cpu", (accelerator.num_processes,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = learner.adamw(model, RECIPE.optim)
    machine = replace(stage.CPU, processes=accelerator.num_processes)
    learns = learner.Learner(RECIPE, machine, accelerator, model, optimizer, words.bos_token_id, Guard(RECIPE.guard))
    source = Batches.of(RECIPE, Shards.open(folder / "data", "train"))
    saved = Checkpoints(folder / "checkpoints", None, main=rank == 0)
    begin = 0
    if name != "sharded":
        newest = saved.newest(print)
        assert newest is not None
        begin = checkpoint.load(newest, model, optimizer)["step"]
    losses = []
    for step in range(begin, 2 * MEETING):
        rate = RECIPE.optim.learning_rate * loop.schedule.share(step, UPDATES, RECIPE.optim)
        losses.append(learns.update(source.batch(step), rate, f"update {step + 1}").loss)
        if name == "sharded" and step + 1 == MEETING:
            saved.save(MEETING, model, optimizer, {})
    saved.wait()
    if rank == 0:
        (folder / f"{name}.json").write_text(json.dumps(losses))
    accelerator.end_training()


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
