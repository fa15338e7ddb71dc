"""Learning rate and batch from a grid at fixed budgets (paper 3.1): near-optimal runs, and power laws through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.scaling.isoflop import NEAR
from alignment.scaling.laws import Interval, Power
from alignment.scaling.table import Row

Array = NDArray[np.float64]

AXES = ("learning_rate", "batch_tokens")
REPLICATES = 2000


@dataclass(frozen=True)
class Near:
    """The runs at a budget that are within 0.25 % of the best, seeds averaged."""

    budget: float
    best: tuple[float, float]  # learning rate, batch in tokens
    loss: float
    near: tuple[tuple[float, float], ...]
    edges: tuple[str, ...]  # where the best run lies on the edge of the grid: what to add


@dataclass(frozen=True)
class Law:
    """A power law of the budget, and the interval of its exponent; with one budget a mean without an exponent."""

    power: Power
    exponent: Interval | None


def grid(rows: Sequence[Row]) -> list[Near]:
    """Find the near-optimal runs of every budget that has a grid of learning rates and batches."""
    budgets: dict[float, dict[tuple[float, float], list[float]]] = {}
    for row in rows:
        if row.learning_rate is not None and row.batch_tokens is not None:
            budgets.setdefault(row.budget, {}).setdefault((row.learning_rate, row.batch_tokens), []).append(row.loss)
    return [_near(budget, cells) for budget, cells in sorted(budgets.items()) if len(cells) > 1]


def _near(budget: float, cells: dict[tuple[float, float], list[float]]) -> Near:
    losses = {place: float(np.mean(found)) for place, found in cells.items()}
    best = min(losses, key=lambda place: losses[place])
    near = tuple(place for place, loss in losses.items() if loss <= (1 + NEAR) * losses[best])
    edges = []
    for axis, name in enumerate(AXES):
        tried = sorted({place[axis] for place in losses})
        if len(tried) > 1 and best[axis] in (tried[0], tried[-1]):
            more = best[axis] ** 2 / (tried[1] if best[axis] == tried[0] else tried[-2])
            edges.append(f"budget {budget:.3g}: the best {name} {best[axis]:g} is the edge of the grid. Add {more:.3g}.")
    return Near(budget, best, losses[best], near, tuple(edges))


def laws(found: Sequence[Near], seed: int = 0) -> dict[str, Law]:
    """Fit learning rate and batch to the budget over all near-optimal runs. Budgets whose best is an edge are left out.

    The intervals resample the near-optimal runs of each budget. Raises DataError, with what to add, where no budget is left.
    """
    fitted = {}
    for axis, name in enumerate(AXES):
        inside = [near for near in found if not any(f"best {name} " in edge for edge in near.edges)]
        if not inside:
            edges = "".join(f"\n  {edge}" for near in found for edge in near.edges if f"best {name} " in edge)
            raise DataError(f"{name}: no budget has its best inside the grid.{edges}")
        values = [np.log([place[axis] for place in near.near]) for near in inside]
        fitted[name] = _law(np.log([near.budget for near in inside]), values, np.random.default_rng(seed))
    return fitted


def _law(x: Array, values: Sequence[Array], random: np.random.Generator) -> Law:
    if len(x) < 2:
        return Law(Power(math.exp(float(values[0].mean())), 0.0), None)
    slope, level = _line(x, values)
    drawn = [_line(x, [random.choice(found, len(found)) for found in values])[0] for _ in range(REPLICATES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Law(Power(math.exp(level), slope), Interval(slope, float(low), float(high)))


def _line(x: Array, values: Sequence[Array]) -> tuple[float, float]:
    """Slope and level of a regression in which every near-optimal run counts once."""
    places = np.repeat(x, [len(found) for found in values])
    y = np.concatenate(values)
    away = places - places.mean()
    slope = float(away @ y / (away @ away))
    return slope, float(y.mean()) - slope * float(places.mean())
