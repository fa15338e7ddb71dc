"""Intervals and tests for scores: what a number on n items can and cannot say.

Every score in a report carries a 95 % interval, every comparison is paired on the same items. The formulas are
short enough to read; the tests hold them against scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

SMALLEST_GROUP = 5  # with fewer items a group's spread is not to be seen
RESAMPLES = 4000  # a 2.5 % quantile then has a standard error of about a quarter of a percentile


@dataclass(frozen=True)
class Interval:
    """A score with the ends of its 95 % interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """B minus A on the same items; `gained` items only B has right, `lost` only A."""

    difference: Interval  # over items, also where a score is a mean of groups
    gained: int
    lost: int
    p_value: float
    visible: float | None


def wilson(right: float, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a share (Wilson, 1927): keeps its coverage near 0 and 1, where the textbook one fails."""
    if n <= 0:
        raise ValueError("an interval needs at least one item")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that items flip one way as readily as the other (McNemar, 1947)."""
    flips = gained + lost
    tail = sum(comb(flips, i) for i in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**flips))


def smallest_visible(n: int, flips: int, level: float = 0.05) -> float | None:
    """Smallest paired difference that McNemar's test would call real, given how many of n items flip.

    None when even flips that all go one way would not do.
    """
    for minority in range(flips // 2, -1, -1):
        if mcnemar(minority, flips - minority) < level:
            return (flips - 2 * minority) / n
    return None


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold a right one (Chen et al., 2021, equation 1)."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples an item, there are {n}")
    return 1.0 - comb(n - right, k) / comb(n, k)


def paired(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Paired:
    """Compare two models item by item: bootstrap of the mean difference, McNemar on the items that flip."""
    if len(before) != len(after) or not before:
        raise ValueError(f"a paired comparison needs the same items twice, got {len(before)} and {len(after)}")
    gains = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    gained, lost = int((gains > 0).sum()), int((gains < 0).sum())
    difference = _quantiles(float(gains.mean()), _resampled_means(gains, seed))
    if not gained + lost:  # no item flipped, which is no certainty that none would: the exact bound on their share
        most = 1 - 0.025 ** (1 / len(gains))
        difference = Interval(0.0, -most, most)
    return Paired(
        difference=difference,
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
        visible=smallest_visible(len(gains), gained + lost),
    )


def macro(groups: Mapping[str, Sequence[float]], seed: int = 0) -> Interval:
    """Mean of the groups' means (C-Eval: subjects), resampled inside each group, since the groups are not a sample.

    Resampling n items shows a variance that is too small by (n - 1) / n, which counts in small groups: it is put back.
    """
    if min(map(len, groups.values()), default=0) < SMALLEST_GROUP:
        raise ValueError(f"a macro average needs at least {SMALLEST_GROUP} items in every group")
    arrays = [np.asarray(values, dtype=np.float64) for values in groups.values()]
    means = np.stack([_widened(values, _resampled_means(values, seed + i)) for i, values in enumerate(arrays)])
    found = _quantiles(float(np.mean([values.mean() for values in arrays])), means.mean(axis=0))
    return Interval(found.score, max(0.0, found.low), min(1.0, found.high))


def _widened(values: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64]:
    centre, n = values.mean(), len(values)
    wide: NDArray[np.float64] = centre + (means - centre) * sqrt(n / (n - 1))
    return wide


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    means: NDArray[np.float64] = values[picks].mean(axis=1)
    return means


def _quantiles(score: float, means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(score, float(low), float(high))
