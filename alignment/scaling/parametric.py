"""The loss as a function of scale and tokens, L = E + A / M^alpha + B / D^beta: a cross-check of the IsoFLOP curves.

For given alpha and beta the other three follow from non-negative least squares (of relative errors), so only two numbers
are searched for. The form is that of Hoffmann et al. (2022), with the paper's M in place of N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.scaling.laws import Interval
from alignment.scaling.table import Row

Array = NDArray[np.float64]

REPLICATES = 100
LEAST = 8  # runs: there are five numbers to fit


@dataclass(frozen=True)
class Surface:
    """The fitted numbers, and resamplings of them (alpha, beta, E, A, B in a row)."""

    numbers: Array
    resampled: Array
    noise: float  # relative

    @property
    def exponent(self) -> Interval:
        """The exponent of M that the surface implies: beta / (alpha + beta)."""
        return _interval(self.numbers, self.resampled, lambda p: p[1] / (p[0] + p[1]))

    def loss_at(self, flops: float) -> Interval:
        """The loss of one new run of the best split at a budget, by the percentiles of the resamplings."""
        random = np.random.default_rng(2)
        return _interval(
            self.numbers,
            self.resampled,
            lambda p: _best(p, flops),
            spread=lambda value: value * (1 + self.noise * random.standard_normal()),
        )


def fit(rows: Sequence[Row], seed: int = 0) -> Surface:
    """Fit the surface to all runs, and to normal noise about it. Raises DataError where there are too few."""
    if len(rows) < LEAST:
        raise DataError(f"{len(rows)} runs: the loss as a function of scale and tokens needs {LEAST} or more.")
    x, d, y = (np.array([getattr(row, name) for row in rows], float) for name in ("scale", "tokens", "loss"))
    x, d = x / np.exp(np.log(x).mean()), d / np.exp(np.log(d).mean())
    units = np.exp([np.mean(np.log([row.scale for row in rows])), np.mean(np.log([row.tokens for row in rows]))])
    start = min(((a, b) for a in (0.2, 0.5, 0.9) for b in (0.2, 0.5, 0.9)), key=lambda ab: _solved(ab, x, d, y)[1])
    found, error = _searched(start, x, d, y)
    noise = float(np.sqrt(error / max(len(rows) - 5, 1)))
    fitted = _surface(found, x, d)
    random = np.random.default_rng(seed)
    drawn = [
        _searched((found[0], found[1]), x, d, fitted * (1 + noise * random.standard_normal(len(y))))[0]
        for _ in range(REPLICATES)
    ]
    return Surface(_scaled(found, units), np.array([_scaled(each, units) for each in drawn]), noise)


def _searched(start: tuple[float, float], x: Array, d: Array, y: Array) -> tuple[Array, float]:
    from scipy.optimize import minimize

    found = minimize(
        lambda ab: _solved(ab, x, d, y)[1],
        start,
        method="Nelder-Mead",
        bounds=[(0.02, 3), (0.02, 3)],
        options={"xatol": 1e-4, "fatol": 1e-10},
    )
    numbers, error = _solved(found.x, x, d, y)
    return np.array([*found.x, *numbers]), error


def _solved(exponents: Sequence[float], x: Array, d: Array, y: Array) -> tuple[Array, float]:
    """E, A, B for given exponents, and the sum of squared relative errors."""
    from scipy.optimize import nnls

    design = np.stack([np.ones_like(x), x ** -exponents[0], d ** -exponents[1]], axis=1) / y[:, None]
    numbers, norm = nnls(design, np.ones_like(y))
    return numbers, float(norm**2)


def _surface(p: Array, x: Array, d: Array) -> Array:
    return np.asarray(p[2] + p[3] * x ** -p[0] + p[4] * d ** -p[1])


def _scaled(p: Array, units: Array) -> Array:
    """Undo the units in which scale and tokens were near 1."""
    return np.array([p[0], p[1], p[2], p[3] * units[0] ** p[0], p[4] * units[1] ** p[1]])


def _best(p: Array, flops: float) -> float:
    """The lowest loss at a budget: where alpha A / M^alpha = beta B / D^beta."""
    alpha, beta, irreducible, a, b = p
    scale = (alpha * a / (beta * b) * flops**beta) ** (1 / (alpha + beta)) if a > 0 and b > 0 else np.nan
    return float(irreducible + a / scale**alpha + b / (flops / scale) ** beta)


def _interval(
    numbers: Array, resampled: Array, read: Callable[[Array], float], spread: Callable[[float], float] = float
) -> Interval:
    low, high = np.nanquantile([spread(read(each)) for each in resampled], [0.025, 0.975])
    return Interval(float(read(numbers)), float(low), float(high))
