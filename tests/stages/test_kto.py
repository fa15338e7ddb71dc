"""KTO on a tiny model: it starts at half the weight, good answers gain on bad ones, and z0 is that of the whole update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment import recipe
from alignment.errors import DataError
from alignment.posttrain import kto
from alignment.run import Run
from tests import tiny
from tests.tiny import CPU, PAIRS, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    tiny.write_start(root / "start")
    tiny.write_rows(root / "pairs" / "pairs.jsonl", PAIRS)
    return root


def opened(root: Path, out: Path) -> Run:
    return tiny.opened(root, out, {"start": "sft", "pairs": "preferences"})


def words(**changes: Any) -> Any:
    raw = {
        "stage": "kto",
        "start": {"run": "start"},
        "data": [{"run": "pairs"}],
        "optim": {"learning_rate": 3e-3, "batch_size": 16, "epochs": 3},
        "max_length": 64,
    }
    return recipe.validate(raw | changes, "t")


def test_good_answers_gain_on_bad_ones_whatever_the_machine_takes_at_once(world: Path, tmp_path: Path) -> None:
    numbers = kto.train(words(desirable=1.5), opened(world, tmp_path / "one"), CPU)
    rows = metrics(tmp_path / "one")
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert len(rows) == 12
    assert numbers["train_reward_good"] > numbers["train_reward_bad"]
    assert numbers["good"] == 32
    larger = CPU.__class__(**{**vars(CPU), "micro_tokens": 2048})  # all of an update in one pass
    kto.train(words(desirable=1.5), opened(world, tmp_path / "two"), larger)
    for mine, theirs in zip(rows, metrics(tmp_path / "two"), strict=True):
        assert mine["kl"] == pytest.approx(theirs["kl"], abs=1e-4)
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_answers_that_are_all_good_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="judged alike"):
        kto.train(words(data=[{"run": "pairs", "rows": 1}]), opened(world, tmp_path), CPU)
