"""ORPO is its paper's equation; alarms ring when they should; a reference is kept under a hash of all it depends on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alignment import recipe, run
from alignment.errors import DataError, ModelError, RecipeError
from alignment.posttrain import health, objective, reference
from alignment.posttrain.health import Monitor, Seen
from alignment.run import Run
from tests import tiny
from tests.tiny import CPU


def test_odds_are_those_of_the_probability() -> None:
    for p in (1e-9, 0.1, 0.5, 0.9, 0.999):
        found = objective.log_odds(torch.tensor([math.log(p)], dtype=torch.float64))
        assert float(found) == pytest.approx(math.log(p / (1 - p)), rel=1e-6)
    near = torch.tensor([-1e-7, -50.0], requires_grad=True)
    objective.log_odds(near).sum().backward()
    assert near.grad is not None
    assert near.grad.isfinite().all()


def test_orpo_is_the_papers_equation() -> None:
    chosen, rejected = torch.tensor([-0.2, -1.5]), torch.tensor([-0.7, -1.0])
    odds = [[math.exp(x) / (1 - math.exp(x)) for x in side.tolist()] for side in (chosen, rejected)]
    expected = np.mean([-math.log(1 / (1 + math.exp(-math.log(a / b)))) for a, b in zip(*odds, strict=True)])
    assert float(objective.odds_ratio(chosen, rejected)) == pytest.approx(float(expected), rel=1e-5)


def monitored(tmp_path: Path, beta: float = 0.1) -> Monitor:
    here = Run(tmp_path, {}, {}, True, False, {})
    return Monitor(here, [10, 20, 30, 40, 50, 60], beta, "float32")


def told(monitor: Monitor, update: list[Seen], updates: int = health.WINDOW, first: int = 2) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for step in range(first, first + updates):
        monitor.note(update)
        numbers = dict(monitor(SimpleNamespace(global_step=step, max_steps=200), None))
    return numbers


def test_margins_are_said_by_length_and_drift_per_token(tmp_path: Path) -> None:
    monitor = monitored(tmp_path)
    numbers = told(monitor, [Seen(5, 5, 1.0, -1.0), Seen(30, 20, 2.0, 1.0)], updates=1)
    assert numbers["margin_short"] == pytest.approx(0.2)
    assert numbers["margin_middle"] is None
    assert numbers["margin_long"] == pytest.approx(0.1)
    assert numbers["kl"] == pytest.approx(-3 / 60)
    assert numbers["chosen_gain"] == pytest.approx(3 / 35)


@pytest.mark.parametrize(
    ("update", "alarm"),
    [
        ([Seen(10, 10, -2.0, -4.0)] * 2, "chosen answers fall"),
        ([Seen(10, 10, 1.0, -20.0)] * 2, "the policy drifts"),
        ([Seen(10 + n, 10, 0.1 * n, 0.0) for n in range(4)], "length is learnt"),
        ([Seen(10, 10, 1.0, -1.0), Seen(10, 20, 1.0, -1.0), Seen(20, 10, 1.0, -1.0)], None),
    ],
)
def test_an_alarm_is_said_once_and_only_where_it_belongs(tmp_path: Path, update: list[Seen], alarm: str | None) -> None:
    monitor = monitored(tmp_path)
    told(monitor, update, updates=2 * health.WINDOW)
    assert [text.split(":")[0] for text in monitor.alarms] == ([alarm] if alarm else [])


def test_a_margin_that_stays_at_zero_is_an_alarm_in_the_second_half(tmp_path: Path) -> None:
    monitor = monitored(tmp_path)
    told(monitor, [Seen(10, 10, 0.001, 0.0)], updates=60)
    assert not monitor.alarms
    told(monitor, [Seen(10, 10, 0.001, 0.0)], updates=60, first=90)
    assert [text.split(":")[0] for text in monitor.alarms] == ["nothing is learnt"]


def test_the_first_update_must_find_no_drift(tmp_path: Path) -> None:
    told(monitored(tmp_path), [Seen(10, 10, 1e-5, -1e-5)], updates=1, first=1)
    with pytest.raises(ModelError, match="KL is not 0"):
        told(monitored(tmp_path), [Seen(10, 10, 0.5, 0.0)], updates=1, first=1)


def test_a_reference_is_kept_for_what_it_was_computed_from(tmp_path: Path) -> None:
    tiny.write_start(tmp_path / "start", layers=1, width=16)
    model, tokenizer = tmp_path / "start" / "model", tiny.byte_tokenizer()
    here = Run(tmp_path / "runs" / "dpo", {}, {}, True, False, {})
    (tmp_path / "runs").mkdir()
    items = [[[1, 2], [3], [4, 5]], [[1], [2, 3], [4]]]

    said = recipe.validate(RAW | {"start": {"folder": str(model)}}, "t")

    def named(items: Any = items, **changes: Any) -> reference.Reference:
        given = {"recipe": said, "folder": model, "tokenizer": tokenizer, "here": here, "hardware": CPU, "cast": True}
        return reference.scorer(**(given | changes)).over(items)

    kept = named()
    assert np.isnan(kept.read()).all()
    kept.write(np.array([[-1.0, -2.0], [-3.0, -4.0]], dtype=np.float32))
    assert named().read().tolist() == [[-1, -2], [-3, -4]]
    elsewhere = replace(here, path=tmp_path / "runs" / "another")
    assert named(here=elsewhere).file == kept.file
    others = [
        named(items=items[:1]),
        named(items=[[[1], [2, 3], [4, 5]], items[1]]),
        named(tokenizer=tiny.byte_tokenizer("chatml")),
        named(hardware=replace(CPU, dtype="bfloat16")),
        named(cast=False),
    ]
    assert len({one.file for one in [kept, *others]}) == 6
    kept.file.write_bytes(kept.file.read_bytes()[:-3])
    with pytest.raises(DataError, match="Remove it"):
        kept.read()


def test_only_what_nobody_has_computed_yet_is_computed(tmp_path: Path) -> None:
    kept = reference.Reference(tmp_path / "kept" / "table.npy", "a model", items=4)
    asked: list[list[int]] = []

    def of(numbers: list[int]) -> Any:
        def compute(places: Any) -> Any:
            asked.append([numbers[place] for place in places])
            return np.array([[-number, -10 - number] for number in asked[-1]], dtype=np.float32)

        return kept.of(numbers, compute, main=True).tolist()

    assert of([3, 1, 3]) == [[-3, -13], [-1, -11], [-3, -13]]
    assert of([0, 1, 2, 3]) == [[-number, -10 - number] for number in range(4)]
    assert of([2, 0]) == [[-2, -12], [0, -10]]
    assert asked == [[3, 1], [0, 2]]
    broken = reference.Reference(tmp_path / "kept" / "broken.npy", "a broken model", items=1)
    assert broken.of([0], lambda _: np.array([[-np.inf, 0.0]]), main=True).tolist() == [[-np.inf, 0.0]]
    assert not broken.file.exists()


def test_a_sealed_start_is_known_by_its_manifest_and_another_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_start(tmp_path / "start", layers=1, width=16)
    model = tmp_path / "start" / "model"
    here = tiny.opened(tmp_path, tmp_path / "out", {"start": "sft"})
    read: list[str] = []
    hashed = run.sha256
    monkeypatch.setattr(run, "sha256", lambda file: read.append(file.name) or hashed(file))
    of_run = reference.digest(recipe.Start(run="start"), model, here)
    assert not read
    assert reference.digest(recipe.Start(folder=str(model)), model, here) == of_run
    assert sorted(read) == ["config.json", "model.safetensors"]
    (model / "config.json").write_text("{}")
    assert reference.digest(recipe.Start(folder=str(model)), model, here) != of_run


RAW = {
    "stage": "dpo",
    "start": {"run": "sft"},
    "data": [{"run": "preferences"}],
    "optim": {"learning_rate": 1e-6, "batch_size": 8},
    "max_length": 64,
}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"label_smoothing": 0.1}, "sigmoid does not read it"),
        ({"loss": "robust"}, "needs label_smoothing"),
        ({"loss": "robust", "label_smoothing": 0.5}, "below 0.5"),
        ({"loss": "sft"}, "sft alone"),
        ({"loss": {"orpo": 1.0, "sft": 1.0}}, "stands alone"),
        ({"loss": "aot"}, "how a machine cuts the batch"),
        ({"loss": "kto"}, "stage: kto"),
        ({"loss": {"sigmoid": 1.0, "ipoo": 1.0}}, "ipoo"),
        ({"padding_free": True}, "padding_free: unknown field"),
        ({"reference_free": True}, "reference_free: unknown field"),
    ],
)
def test_words_that_go_together_only_in_appearance_are_refused(words: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        recipe.validate(RAW | words, "t")


def test_losses_have_weights() -> None:
    found = recipe.validate(RAW | {"loss": {"sigmoid": 1.0, "sft": 0.2}}, "t")
    assert isinstance(found, recipe.DPO)
    assert found.weights == {"sigmoid": 1.0, "sft": 0.2}
    assert "loss" not in recipe.validate(RAW | {"loss": "sigmoid"}, "t").model_dump()  # older fingerprints stay
