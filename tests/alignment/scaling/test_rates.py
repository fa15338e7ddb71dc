"""Learning rate x batch grids: near-optimal runs, the laws through them, and grids whose best is an edge."""

from __future__ import annotations

import math

import pytest

from alignment.errors import DataError
from alignment.scaling import pictures, rates
from alignment.scaling.table import Row

RATES, BATCHES = (2e-3, 4e-3, 8e-3, 16e-3, 32e-3), (256, 512, 1024, 2048, 4096)


def grid(budget: float, rate: float, batch: float, width: float = 0.02) -> list[Row]:
    """A bowl about one best point."""
    rows = []
    for lr in RATES:
        for b in BATCHES:
            loss = 2 * (1 + width * (math.log(lr / rate) ** 2 + math.log(b / batch) ** 2))
            rows.append(Row("r", "all", budget, 1e5, budget / 1e5, loss, learning_rate=lr, batch_tokens=b))
    return rows


def test_laws_go_through_the_near_optimal_runs_of_every_budget() -> None:
    found = rates.grid(grid(1e11, 16e-3, 512) + grid(1e13, 8e-3, 2048))
    laws = rates.laws(found)
    rate, batch = laws["learning_rate"].power, laws["batch_tokens"].power
    assert (rate.exponent, batch.exponent) == pytest.approx((math.log(1 / 2) / math.log(100), math.log(4) / math.log(100)))
    assert (rate(1e11), batch(1e11)) == pytest.approx((16e-3, 512))
    assert (rate(1e13), batch(1e13)) == pytest.approx((8e-3, 2048))


def test_near_optimal_runs_are_all_within_a_quarter_per_cent_and_give_the_interval_its_width() -> None:
    narrow, wide = (rates.grid(grid(1e11, 8e-3, 1024, w) + grid(1e12, 8e-3, 1024, w)) for w in (0.02, 0.003))
    assert [len(near.near) for near in narrow] == [1, 1]
    assert all(len(near.near) > 4 for near in wide)
    tight, loose = (rates.laws(found)["learning_rate"].exponent for found in (narrow, wide))
    assert tight is not None
    assert loose is not None
    assert tight.high == tight.low
    assert loose.low < 0 < loose.high


def test_one_budget_gives_a_mean_and_no_exponent() -> None:
    law = rates.laws(rates.grid(grid(1e11, 8e-3, 1024)))["learning_rate"]
    assert law.exponent is None
    assert law.power(1e15) == pytest.approx(8e-3)


def test_a_best_run_on_the_edge_is_left_out_and_says_what_to_add() -> None:
    (near,) = rates.grid(grid(1e11, 64e-3, 100))
    assert near.edges == (
        "budget 1e+11: the best learning_rate 0.032 is the edge of the grid. Add 0.064.",
        "budget 1e+11: the best batch_tokens 256 is the edge of the grid. Add 128.",
    )
    with pytest.raises(DataError, match=r"learning_rate: no budget has its best inside the grid.\n.*Add 0.064"):
        rates.laws([near])


def test_the_grid_is_drawn() -> None:
    rows = grid(1e11, 8e-3, 1024)
    drawn = pictures.grid(rows, rates.grid(rows))
    assert drawn.startswith("<?xml")
    assert drawn == pictures.grid(rows, rates.grid(rows))
