"""IsoFLOP curves: planted exponents come back, intervals cover, and a grid without a minimum is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from alignment.errors import DataError
from alignment.scaling import isoflop, parametric, pictures
from alignment.scaling.isoflop import Basin, Fit
from alignment.scaling.table import Row

A, FACTOR, LOSS = 0.52, 0.17, -0.06  # planted: M = FACTOR C^A, loss = e (C / 1e11)^LOSS
BUDGETS = (1e11, 3e11, 9e11, 2.7e12)


def planted(noise: float, seed: int = 0, *, splits: int = 7, shift: float = 0.0, seeds: int = 1) -> list[Row]:
    """Runs about parabolas whose vertices lie on power laws exactly."""
    random = np.random.default_rng(seed)
    rows = []
    for budget in BUDGETS:
        best = math.log(FACTOR) + A * math.log(budget)
        for x in np.linspace(-1.6, 1.6, splits) + shift + random.uniform(-0.2, 0.2):
            for number in range(seeds):
                level = 1 + LOSS * math.log(budget / 1e11) + 0.02 * x * x + noise * random.standard_normal()
                scale = math.exp(best + x)
                name = f"{budget:g}-{x:.2f}-{number}"
                rows.append(Row(name, "all", budget, scale, budget / scale, math.exp(level), number))
    return rows


def fitted(rows: list[Row]) -> Fit:
    return Fit.of(*isoflop.basins(rows))


def test_planted_laws_come_back_without_noise() -> None:
    found = fitted(planted(1e-9))
    scale, tokens, loss = found.exponents()
    assert scale.value == pytest.approx(A, abs=1e-6)
    assert tokens.value == pytest.approx(1 - A, abs=1e-6)
    assert loss.value == pytest.approx(LOSS, abs=1e-6)
    assert found.law().factor == pytest.approx(FACTOR, rel=1e-4)
    assert found.scale_at(1e13).value == pytest.approx(FACTOR * 1e13**A, rel=1e-4)
    assert found.loss_at(1e13).value == pytest.approx(math.exp(1 + LOSS * math.log(100)), rel=1e-5)


def test_95_per_cent_intervals_cover_in_95_per_cent_of_simulated_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 sweeps of 4 budgets x 7 splits. With true coverage of 95 %, 182 to 198 hold the truth in 99 of 100 cases."""
    monkeypatch.setattr(isoflop, "REPLICATES", 400)
    inside = np.zeros(4, int)
    for seed in range(200):
        found = fitted(planted(0.003, seed))
        scale, _, loss = found.exponents()
        run = math.exp(1 + LOSS * math.log(110) + 0.003 * np.random.default_rng(10_000 + seed).standard_normal())
        truths = (A, LOSS, run, FACTOR * 1.1e13**A)
        shown = (scale, loss, found.loss_at(1.1e13), found.scale_at(1.1e13))
        inside += [interval.low <= truth <= interval.high for interval, truth in zip(shown, truths, strict=True)]
    assert all(182 <= count <= 198 for count in inside), inside


def test_intervals_widen_away_from_the_budgets_that_were_run() -> None:
    found = fitted(planted(0.003))
    widths = [found.loss_at(c).high / found.loss_at(c).low for c in (6e11, 1e13, 1e15)]
    assert widths == sorted(widths)
    assert widths[2] > 1.5 * widths[0] - 0.5


def test_vertices_that_scatter_widen_the_interval() -> None:
    rows = planted(0.001)
    moved = [replace(r, scale=r.scale * 2) if r.budget in BUDGETS[::3] else r for r in rows]
    calm, loud = (fitted(each).exponents()[0] for each in (rows, moved))
    assert loud.high - loud.low > 5 * (calm.high - calm.low)


def test_near_optimal_is_within_a_quarter_per_cent_of_the_best_run() -> None:
    (first, *_), _ = isoflop.basins(planted(0.0))
    best = min(split.loss for split in first.splits)
    assert all((split.loss <= 1.0025 * best) == (split.scale in first.near) for split in first.splits)
    assert 0 < len(first.near) < len(first.splits)


@pytest.mark.parametrize(("shift", "name"), [(-4.0, "largest"), (4.0, "smallest")])
def test_a_budget_without_a_minimum_inside_is_refused_with_the_runs_to_add(shift: float, name: str) -> None:
    rows = planted(0.0, shift=shift)
    found, refused = isoflop.basins(rows)
    assert not found
    assert len(refused) == 4
    assert f"no minimum inside the grid, the loss is best towards the {name} model. Add scales" in refused[0]
    add = [float(text) for text in refused[0].rstrip(".").split("Add scales ")[1].split(" and ")]
    scales = [row.scale for row in rows if row.budget == BUDGETS[0]]
    assert (max(add) < min(scales)) if shift > 0 else (min(add) > max(scales))
    with pytest.raises(DataError, match=r"0 budget\(s\) with a minimum .* needs 3(.|\n)*Add scales"):
        Fit.of(found, refused)


def test_too_few_splits_and_a_curve_bent_downwards_are_refused() -> None:
    rows = planted(0.0)
    _, refused = isoflop.basins([row for row in rows if row.budget > 1e11] + rows[:3])
    assert refused == ["budget 1e+11: 3 model scale(s), a parabola needs 4 or more. Add scales to it."]
    bent = [replace(row, loss=10 - row.loss) for row in rows]
    assert len(isoflop.basins(bent)[1]) == 4


def test_seeds_of_a_split_are_averaged_and_counted() -> None:
    (first, *_), _ = isoflop.basins(planted(0.002, seeds=3))
    assert [split.seeds for split in first.splits] == [3] * 7


def test_another_measure_moves_the_budgets_with_it() -> None:
    rows = [replace(row, scale_6n1=row.scale / 2, scale_6n2=3 * row.scale) for row in planted(0.0)]
    for name, factor in (("scale_6n1", 0.5), ("scale_6n2", 3.0)):
        found, _ = isoflop.basins(isoflop.by_measure(rows, name))
        own = isoflop.measured_budgets(found)
        assert [own[b] / b for b in BUDGETS] == pytest.approx([factor] * 4, rel=1e-6)
    with pytest.raises(DataError, match="no scale_6n1"):
        isoflop.by_measure(planted(0.0), "scale_6n1")


def surface(noise: float = 0.0) -> list[Row]:
    """Chinchilla's form with alpha 0.34, beta 0.28."""
    random = np.random.default_rng(0)
    rows = []
    for budget in (1e17, 1e18, 1e19, 1e20):
        best = 3.1 * budget**0.4516
        for x in np.linspace(-1.5, 1.5, 6):
            scale = best * math.exp(x)
            loss = 0.5 + 100 / scale**0.34 + 60 / (budget / scale) ** 0.28
            rows.append(Row("r", "all", budget, scale, budget / scale, loss * (1 + noise * random.standard_normal())))
    return rows


def test_the_parametric_loss_comes_back_and_agrees_with_the_curves() -> None:
    rows = surface()
    found = parametric.fit(rows)
    assert found.numbers == pytest.approx([0.34, 0.28, 0.5, 100, 60], rel=0.01)
    assert found.exponent.value == pytest.approx(0.28 / 0.62, rel=1e-3)
    best = min(0.5 + 100 / m**0.34 + 60 / (1e22 / m) ** 0.28 for m in np.geomspace(1e8, 1e12, 20_000))
    assert found.loss_at(1e22).value == pytest.approx(best, rel=1e-3)
    assert fitted(rows).exponents()[0].value == pytest.approx(0.28 / 0.62, abs=0.03)


def test_the_parametric_intervals_hold_what_was_planted() -> None:
    found = parametric.fit(surface(0.002))
    assert found.exponent.low <= 0.28 / 0.62 <= found.exponent.high
    assert found.noise == pytest.approx(0.002, rel=0.5)
    with pytest.raises(DataError, match=r"7 runs: .* needs 8"):
        parametric.fit(surface()[:7])


def test_the_picture_is_the_same_for_the_same_runs() -> None:
    found = fitted(planted(0.002))
    assert isinstance(found.basins[0], Basin)
    first, second = pictures.curves(found), pictures.curves(found)
    assert first == second
    assert first.startswith("<?xml")
