"""IsoFLOP curves (paper 3.2): at each budget a parabola of log loss in log scale; its vertices give the power laws.

Intervals are bootstrap-t: normal noise as large as the residuals of all parabolas say is drawn about the curves,
everything is fitted again, and what is resampled is the error in units of its own standard error.
Where the vertices scatter about their line more than the runs' noise allows (F test, 5 %), standard errors are scaled up
to it. Arrays carry their axes: R replicates, K budgets, S splits of a budget, P = 3 coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.scaling.laws import Interval, Power
from alignment.scaling.table import Row

Array = NDArray[np.float64]

NEAR = 0.0025  # near-optimal: within a quarter per cent of the best (paper 3.1)
SPLITS = 4  # at a budget, at least: a parabola through three has no residuals
BUDGETS = 3  # at least: a line through two has none either
REPLICATES = 4000


@dataclass(frozen=True)
class Split:
    """One model scale at one budget: the mean over seeds."""

    scale: float
    tokens: float
    loss: float
    seeds: int


@dataclass(frozen=True)
class Basin:
    """A budget whose minimum lies inside its grid."""

    budget: float
    splits: tuple[Split, ...]
    centre: float  # of the log scales
    coefficients: tuple[float, float, float]  # log loss = a + b x + c x^2, x = log scale - centre

    @property
    def scale(self) -> float:
        """The best scale."""
        _, b, c = self.coefficients
        return math.exp(self.centre - b / (2 * c))

    @property
    def loss(self) -> float:
        """The loss at the best scale."""
        a, b, c = self.coefficients
        return math.exp(a - b * b / (4 * c))

    @property
    def near(self) -> tuple[float, ...]:
        """Scales that were run and are within 0.25 % of the best run."""
        best = min(split.loss for split in self.splits)
        return tuple(split.scale for split in self.splits if split.loss <= (1 + NEAR) * best)

    def at(self, scale: float) -> float:
        """The parabola's loss."""
        a, b, c = self.coefficients
        x = math.log(scale) - self.centre
        return math.exp(a + b * x + c * x * x)


def basins(rows: Sequence[Row]) -> tuple[list[Basin], list[str]]:
    """Fit every budget; return those with a minimum inside, and for the others why not and which runs to add."""
    groups: dict[float, dict[float, list[Row]]] = {}
    for row in rows:
        groups.setdefault(row.budget, {}).setdefault(row.scale, []).append(row)
    found: list[Basin] = []
    refused: list[str] = []
    for budget, scales in sorted(groups.items()):
        splits = tuple(
            Split(scale, float(np.mean([r.tokens for r in same])), float(np.mean([r.loss for r in same])), len(same))
            for scale, same in sorted(scales.items())
        )
        outcome = _basin(budget, splits)
        if isinstance(outcome, Basin):
            found.append(outcome)
        else:
            refused.append(outcome)
    return found, refused


def _basin(budget: float, splits: tuple[Split, ...]) -> Basin | str:
    if len(splits) < SPLITS:
        return f"budget {budget:.3g}: {len(splits)} model scale(s), a parabola needs {SPLITS} or more. Add scales to it."
    x = np.log([split.scale for split in splits])
    centre = float(x.mean())
    coefficients, *_ = np.linalg.lstsq(_powers(x - centre), np.log([split.loss for split in splits]), rcond=None)
    a, b, c = map(float, coefficients)
    step = float(np.diff(x).mean())
    if c > 0 and x[0] <= centre - b / (2 * c) <= x[-1]:
        return Basin(budget, splits, centre, (a, b, c))
    ends = {True: (float(x[0]), -step, "smallest"), False: (float(x[-1]), step, "largest")}
    edge, way, name = ends[splits[0].loss < splits[-1].loss]
    more = " and ".join(f"{math.exp(edge + k * way):.3g}" for k in (1, 2))
    return f"budget {budget:.3g}: no minimum inside the grid, the loss is best towards the {name} model. Add scales {more}."


def _powers(x: Array) -> Array:
    return np.asarray(np.stack([np.ones_like(x), x, x * x], axis=1))


# -- power laws through the vertices ----------------------------------------------------------------------------------


class Curves(NamedTuple):
    """Vertices of all budgets, with their standard errors; each array is (R, K), the first replicate as measured."""

    scale: Array  # log of the best scale
    scale_error: Array
    loss: Array  # log of the loss there
    loss_error: Array
    noise: Array  # (R,) standard deviation of a split about its parabola


@dataclass(frozen=True)
class Fit:
    """What the IsoFLOP curves of one corpus say."""

    basins: tuple[Basin, ...]
    curves: Curves

    @classmethod
    def of(cls, found: Sequence[Basin], refused: Sequence[str] = (), seed: int = 0) -> Fit:
        """Fit power laws. Raises DataError, with what to add, where too few budgets have a minimum."""
        if len(found) < BUDGETS:
            lines = "".join(f"\n  {text}" for text in refused)
            raise DataError(f"{len(found)} budget(s) with a minimum inside the grid; a law needs {BUDGETS} or more.{lines}")
        return cls(tuple(found), _resampled(found, np.random.default_rng(seed)))

    @property
    def free(self) -> int:
        """Degrees of freedom of the noise: splits beyond the three coefficients of every parabola."""
        return sum(len(basin.splits) - 3 for basin in self.basins)

    @property
    def budgets(self) -> Array:
        """Their logarithms."""
        return np.log([basin.budget for basin in self.basins])

    def exponents(self) -> tuple[Interval, Interval, Interval]:
        """Exponents of M, of D and of the loss. C = M D, so those of M and D add up to 1."""
        weights = _slope(self.budgets)
        scale = self._interval(self.curves.scale, self.curves.scale_error, weights)
        loss = self._interval(self.curves.loss, self.curves.loss_error, weights)
        return scale, Interval(1 - scale.value, 1 - scale.high, 1 - scale.low), loss

    def law(self) -> Power:
        """M as a power of C."""
        return self._power(self.curves.scale[0])

    def loss_law(self) -> Power:
        """The loss of the best split as a power of C."""
        return self._power(self.curves.loss[0])

    def scale_at(self, flops: float) -> Interval:
        """The best scale at a budget."""
        found = self._interval(self.curves.scale, self.curves.scale_error, self._towards(flops))
        return Interval(*map(math.exp, found))

    def loss_at(self, flops: float) -> Interval:
        """The loss of one new run of the best split at a budget: the law's uncertainty, and the run's own noise."""
        found = self._interval(self.curves.loss, self.curves.loss_error, self._towards(flops), new=True)
        return Interval(*map(math.exp, found))

    def _power(self, y: Array) -> Power:
        slope = float(y @ _slope(self.budgets))
        return Power(math.exp(float(y.mean()) - slope * float(self.budgets.mean())), slope)

    def _towards(self, flops: float) -> Array:
        return np.asarray(1 / len(self.budgets) + (math.log(flops) - self.budgets.mean()) * _slope(self.budgets))

    def _interval(self, values_RK: Array, errors_RK: Array, weights_K: Array, *, new: bool = False) -> Interval:
        """Bootstrap-t interval of a weighted sum of the vertices; `new`: of a run that is to come."""
        sums = values_RK @ weights_K
        law_R = errors_RK**2 @ weights_K**2
        noise_R = new * self.curves.noise**2
        drawn = np.random.default_rng(1).standard_normal(len(sums)) * np.sqrt(noise_R[0])
        t = ((sums - sums[0] - drawn) / np.sqrt(law_R + noise_R))[1:]
        low, high = np.quantile(t[np.isfinite(t)], [0.025, 0.975])
        wider = _excess(values_RK[0], errors_RK[0], self.budgets, self.free)
        value, error = float(sums[0]), math.sqrt(law_R[0] * wider**2 + noise_R[0])
        return Interval(value, value - float(high) * error, value - float(low) * error)


def _slope(x: Array) -> Array:
    """Weights of the values at x in the slope of their regression line."""
    return np.asarray((x - x.mean()) / ((x - x.mean()) ** 2).sum())


def _excess(values_K: Array, errors_K: Array, x: Array, free: int) -> float:
    """How much the vertices scatter about their line beyond their errors; 1 where chance may have done it.

    `free`: degrees of freedom of the errors.
    """
    from scipy.special import betainc

    left = values_K - values_K.mean() - (values_K @ _slope(x)) * (x - x.mean())
    ratio = float(((left / errors_K) ** 2).mean()) * len(x) / (len(x) - 2)  # F with len - 2 and `free`
    chance = float(betainc(free / 2, (len(x) - 2) / 2, free / (free + (len(x) - 2) * ratio)))
    return math.sqrt(ratio) if chance < 0.05 else 1.0


def _resampled(found: Sequence[Basin], random: np.random.Generator) -> Curves:
    """Fit the measured losses and REPLICATES resamplings of them."""
    designs = [_powers(np.log([s.scale for s in basin.splits]) - basin.centre) for basin in found]
    fitted = [design @ np.array(basin.coefficients) for design, basin in zip(designs, found, strict=True)]
    measured = [np.log([split.loss for split in basin.splits]) for basin in found]
    free = sum(len(y) - 3 for y in measured)
    left = sum(float(((y - fit) ** 2).sum()) for y, fit in zip(measured, fitted, strict=True))
    spread = math.sqrt(left / free)
    coefficients, squares = [], np.zeros(REPLICATES + 1)
    for design, fit, y in zip(designs, fitted, measured, strict=True):
        drawn_RS = fit + spread * random.standard_normal((REPLICATES, len(y)))
        all_RS = np.concatenate([y[None], drawn_RS])
        coefficients.append(all_RS @ np.linalg.pinv(design).T)
        squares += ((all_RS - coefficients[-1] @ design.T) ** 2).sum(1)
    noise = np.sqrt(squares / free)
    columns = []
    for design, basin, abc_RP in zip(designs, found, coefficients, strict=True):
        columns.append(_vertex(abc_RP, np.asarray(np.linalg.inv(design.T @ design), float), noise, basin.centre))
    places, place_errors, heights, height_errors = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return Curves(places, place_errors, heights, height_errors, noise)


def _vertex(abc_RP: Array, covariance_PP: Array, noise: Array, centre: float) -> tuple[Array, Array, Array, Array]:
    """Place and height of the lowest point with their standard errors (delta method)."""
    a, b, c = abc_RP.T
    with np.errstate(divide="ignore", invalid="ignore"):
        c = np.where(c > 0, c, np.nan)  # a replicate without a minimum has no vertex
        place = -b / (2 * c)
        to_place = np.stack([np.zeros_like(b), -1 / (2 * c), -place / c], axis=1)
        to_height = np.stack([np.ones_like(b), place, place**2], axis=1)
    errors = [noise * np.sqrt(np.einsum("rp,pq,rq->r", g, covariance_PP, g)) for g in (to_place, to_height)]
    return place + centre, errors[0], a + b * place / 2, errors[1]


# -- measures of the model's scale ------------------------------------------------------------------------------------


def by_measure(rows: Sequence[Row], measure: str) -> list[Row]:
    """The same runs with another measure of the model's scale; the budget they belong to keeps them together."""
    missing = [row.run for row in rows if getattr(row, measure) is None]
    if missing:
        raise DataError(f"{missing[0]}: no {measure}. Measures can be compared where every row has scale_6n1 and scale_6n2.")
    return [replace(row, scale=float(getattr(row, measure))) for row in rows]


def measured_budgets(found: Sequence[Basin]) -> Mapping[float, float]:
    """What a budget is in the basins' own measure: best scale x best tokens, read off the curve between the splits."""
    shown = {}
    for basin in found:
        x = np.log([split.scale for split in basin.splits])
        y = np.log([split.tokens for split in basin.splits])
        slope, level = np.polyfit(x, y, 1)
        shown[basin.budget] = basin.scale * math.exp(level + slope * math.log(basin.scale))
    return shown
