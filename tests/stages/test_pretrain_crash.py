"""A trainer that is killed again and again, also while it writes a checkpoint, learns bit for bit what one in peace does."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignment.pretrain import checkpoint, loop
from alignment.run import sha256
from tests.stages import forked
from tests.stages import test_pretrain as stage

pytestmark = pytest.mark.slow
UPDATES = 48
RECIPE = stage.RECIPE.model_copy(update={"tokens": UPDATES * 8 * 32, "checkpoint_every": 3})


@pytest.mark.parametrize(("processes", "kills"), [(1, 10), (2, 4)])
def test_killed_at_random_moments_it_ends_bit_for_bit_where_it_would_have(
    tmp_path: Path, processes: int, kills: int
) -> None:
    forked.program(__file__, tmp_path, processes, kills)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    done = json.loads((tmp_path / "kills.json").read_text())
    assert len(done) == kills
    assert sum("writing" in moment for moment in done) >= 1, done
    assert [row["step"] for row in stage.rows(killed)] == list(range(1, UPDATES + 1))
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [row[name] for row in stage.rows(killed)] == [row[name] for row in stage.rows(straight)]
    for name, tensor in stage.weights(straight).items():
        assert torch.equal(tensor, stage.weights(killed)[name]), name


def drive(folder: Path, processes: int, kills: int) -> None:
    """Train in peace, then kill a second training at drawn updates, every third time while it writes; note where it was."""
    data = stage.write_shards(folder / "data")

    def begin(name: str, *, resumed: bool = False, slow: bool = False) -> list[int]:
        def train(rank: int) -> None:
            if slow:
                checkpoint.sha256 = slowly
            here = stage.begin(folder / name, data, resumed=resumed, main=rank == 0)
            loop.train(RECIPE, here, replace(stage.CPU, processes=processes))

        return forked.start(processes, train)

    forked.reap(begin("straight"))
    draw, path, moments = random.Random(7), folder / "killed", []
    for number, target in enumerate(sorted(draw.sample(range(1, UPDATES - 4), kills))):
        writing, left = number % 3 == 1, forked.drafts(path)
        children = begin("killed", resumed=number > 0, slow=writing)
        forked.until(lambda at=target: forked.logged(path) >= at, children)
        if writing:
            forked.until(lambda left=left: forked.drafts(path) - left, children)
        else:
            time.sleep(draw.uniform(0, 0.02))
        half = [name for name, _ in forked.drafts(path) - left]
        for child in draw.sample(children, len(children)):
            os.kill(child, signal.SIGKILL)
        forked.reap(children, -signal.SIGKILL)
        moments.append(f"update {forked.logged(path)}" + (f", writing {half[0]}" if half else ""))
    forked.reap(begin("killed", resumed=True))
    (folder / "kills.json").write_text(json.dumps(moments))


def slowly(file: Path) -> str:
    """Hash a file so slowly that a checkpoint lies half-written for a while."""
    time.sleep(0.1)
    return sha256(file)


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
