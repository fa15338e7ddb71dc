"""A longer run goes on from the first phase of a shorter one, and ends where it would have ended by itself, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignment import recipe, run
from alignment.errors import RecipeError, RunError
from alignment.hardware import Hardware
from alignment.pretrain import loop
from tests.stages.test_pretrain import CPU, RECIPE, weights, write_shards

pytestmark = pytest.mark.slow
UPDATE = 8 * 32
SHORT = RECIPE.model_copy(update={"tokens": 10 * UPDATE, "keep_turn": True})
LONG = RECIPE.model_copy(update={"tokens": 20 * UPDATE, "after": "short"})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def short(tmp_path_factory, data) -> run.Finished:
    return trained(SHORT, tmp_path_factory.mktemp("short"), data)


def trained(words: recipe.Pretrain, path: Path, data: Path, on: Hardware = CPU, **inputs: run.Finished) -> run.Finished:
    """Train, and give back what another run would find."""
    about = {"recipe": words.model_dump(mode="json"), "inputs": {"shards": "tokens-1"}, "fingerprint": path.name}
    shards = run.Finished(data, {"fingerprint": "tokens-1"})
    loop.train(words, run.Run(path, {"shards": shards, **inputs}, {}, True, False, about), on)
    return run.Finished(path, about)


def losses(path: Path) -> dict[int, float]:
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in found}


@pytest.mark.parametrize("schedule", ["multi-step", "wsd"])
def test_the_first_80_per_cent_serve_a_longer_run_bit_for_bit(schedule, short, data, tmp_path):
    bend = {"optim": RECIPE.optim.model_copy(update={"schedule": schedule})}
    (tmp_path / "short").mkdir()
    first = short if schedule == "multi-step" else trained(SHORT.model_copy(update=bend), tmp_path / "short", data)
    for name in ("alone", "branch"):
        (tmp_path / name).mkdir()
    trained(LONG.model_copy(update=bend | {"after": None}), tmp_path / "alone", data)
    trained(LONG.model_copy(update=bend), tmp_path / "branch", data, short=first)
    turn = {"multi-step": 8, "wsd": 9}[schedule]
    alone, branch = losses(tmp_path / "alone"), losses(tmp_path / "branch")
    assert branch == {step: loss for step, loss in alone.items() if step > turn}
    assert losses(first.path)[turn] == alone[turn]
    for name, tensor in weights(tmp_path / "alone").items():
        assert torch.equal(tensor, weights(tmp_path / "branch")[name]), name


def test_the_state_is_part_of_the_run_and_holds_the_moments(short):
    kept = load_file(short.path / "turn" / "step-8" / "tensors.safetensors")
    assert {name.rpartition("/")[2] for name in kept if "/" in name} == {"exp_avg", "exp_avg_sq", "step"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 4}, "its batch_size was 8, here it is 4"),
        ({"seed": 1}, "its seed was 0, here it is 1"),
        ({"tokens": 7 * UPDATE}, "its update 7 had 1 of the peak rate, here it would have 0.316"),
    ],
)
def test_a_run_that_would_not_have_come_there_is_refused(change, said, short, data, tmp_path):
    with pytest.raises(RecipeError, match=said):
        trained(LONG.model_copy(update=change), tmp_path, data, short=short)


def test_other_tokens_are_refused(short, data, tmp_path):
    other = run.Finished(short.path, {**short.manifest, "inputs": {"shards": "tokens-2"}})
    with pytest.raises(RecipeError, match="it read other tokens"):
        trained(LONG, tmp_path, data, short=other)


def test_a_run_that_kept_nothing_is_named(data, tmp_path):
    (tmp_path / "plain").mkdir()
    plain = trained(SHORT.model_copy(update={"keep_turn": False}), tmp_path / "plain", data)
    with pytest.raises(RunError, match=r"kept no state before its first turn\. Run it with keep_turn: true"):
        trained(LONG, tmp_path, data, short=plain)


def test_a_cosine_has_no_such_phase():
    with pytest.raises(ValueError, match="a cosine falls from the first update on"):
        recipe.Pretrain(**SHORT.model_dump() | {"optim": {"learning_rate": 1e-2, "schedule": "cosine"}})
