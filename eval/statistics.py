"""Intervals and tests for scores: what a number on n items can and cannot say.

Every score in a report carries a 95 % interval, every comparison is paired on the same items.

    one mark an item            Wilson's interval; a difference: Tango's, which keeps its coverage where few items flip
    n samples an item, shares   cluster bootstrap: whole items are drawn again, never samples
    mean over subjects          the same inside each subject, since the subjects are the set and not a draw from it

The formulas are short enough to read; the tests hold them against scipy and simulate their coverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SMALLEST_GROUP = 5  # with fewer items a group's spread is not to be seen
RESAMPLES = 4000  # a 2.5 % quantile then has a standard error of about a quarter of a percentile
POWER = 0.8
NORMAL = NormalDist()
Z, Z_POWER = NORMAL.inv_cdf(0.975), NORMAL.inv_cdf(POWER)


@dataclass(frozen=True)
class Interval:
    """A score with the ends of its 95 % interval."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """B minus A on the same items; `gained` counts those where B is better, `lost` those where A is."""

    difference: Interval
    gained: int
    lost: int
    p_value: float  # McNemar's exact test on the items that flip
    visible: float | None  # the true difference that this set would show, in four of five draws


# -- one score --------------------------------------------------------------------------------------------------------


def wilson(right: float, n: int) -> Interval:
    """Score interval of a share (Wilson, 1927): keeps its coverage near 0 and 1, where the textbook one fails."""
    if n <= 0:
        raise ValueError("an interval needs at least one item")
    share = right / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))  # 0 and n, rounded


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold a right one (Chen et al., 2021, equation 1)."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples an item, there are {n}")
    return 1.0 - comb(n - right, k) / comb(n, k)


def mean(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean over items, of plain marks or of one share each: of its n samples that are right, or its pass@k."""
    if interval_kind(values) == "Wilson":
        return wilson(sum(values), len(values))
    return _within(_bootstrap([values], seed)[0], 0.0)


def interval_kind(values: Sequence[float]) -> Literal["Wilson", "bootstrap of items"]:
    """Name the interval that `mean` takes: a share spreads no wider than a single mark, so few shares get Wilson's."""
    return "Wilson" if {*values} <= {0.0, 1.0} or len(values) < SMALLEST_GROUP else "bootstrap of items"


def macro(groups: Mapping[str, Sequence[float]], seed: int = 0) -> Interval:
    """Mean of the groups' means (C-Eval: subjects), items drawn again inside each group."""
    _large_enough(groups)
    return _within(_bootstrap(list(groups.values()), seed)[0], 0.0)


# -- two scores -------------------------------------------------------------------------------------------------------


def paired(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Paired:
    """Compare two models item by item: on plain marks Tango's interval, on shares the bootstrap of the mean gain."""
    gains = _gains(before, after)
    gained, lost = int((gains > 0).sum()), int((gains < 0).sum())
    if {*before, *after} <= {0.0, 1.0}:
        difference, visible = tango(gained, lost, len(gains)), smallest_visible(len(gains), gained + lost)
    else:
        difference, error = _bootstrap([gains], seed)
        visible = (Z + Z_POWER) * error if error else None
    return Paired(_within(difference, -1.0), gained, lost, mcnemar(gained, lost), visible)


def paired_macro(groups: Mapping[str, tuple[Sequence[float], Sequence[float]]], seed: int = 0) -> Paired:
    """Compare two means over groups, item by item inside each group. McNemar's test is on the items of all."""
    gains = {name: _gains(before, after) for name, (before, after) in groups.items()}
    _large_enough(gains)
    difference, error = _bootstrap(list(gains.values()), seed)
    every = np.concatenate(list(gains.values()))
    gained, lost = int((every > 0).sum()), int((every < 0).sum())
    visible = (Z + Z_POWER) * error if error else None
    return Paired(_within(difference, -1.0), gained, lost, mcnemar(gained, lost), visible)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that items flip one way as readily as the other (McNemar, 1947)."""
    flips = gained + lost
    tail = sum(comb(flips, i) for i in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**flips))


def tango(gained: int, lost: int, n: int) -> Interval:
    """Score interval of a paired difference (Tango, 1998): all differences that a score test would not reject."""
    score = (gained - lost) / n

    def end(outside: float) -> float:
        inside = score
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if _fits(gained, lost, n, middle) else (inside, middle)
        return inside

    return Interval(score, end(-1.0), end(1.0))


def _fits(gained: int, lost: int, n: int, difference: float) -> bool:
    """Whether the observed difference lies within Z standard errors of this one (Tango, 1998, equations 6 to 9)."""
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    likeliest_lost = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # share of items, at this difference
    variance = n * (2 * likeliest_lost + difference * (1 - difference))
    return (gained - lost - n * difference) ** 2 <= Z * Z * variance


def apart(left: Sequence[float], right: Sequence[float], seed: int = 0) -> Interval:
    """Mean of the right items minus that of the left ones, where no item is in both (Newcombe, 1998, method 10)."""
    a, b = mean(left, seed), mean(right, seed + 1)
    score = b.score - a.score
    low = score - sqrt((b.score - b.low) ** 2 + (a.high - a.score) ** 2)
    high = score + sqrt((b.high - b.score) ** 2 + (a.score - a.low) ** 2)
    return Interval(score, low, high)


def smallest_visible(n: int, flips: int) -> float | None:
    """Smallest true difference that McNemar's exact test finds at 5 % with a power of 80 %, if this share of items flips.

    None when even flips that all go one way would not do.
    """
    if not flips or power(n, flips / n, flips / n) < POWER:
        return None
    unseen, seen = 0.0, flips / n
    while seen - unseen > 1e-5:
        middle = (unseen + seen) / 2
        unseen, seen = (unseen, middle) if power(n, flips / n, middle) >= POWER else (middle, seen)
    return seen


def power(n: int, discordant: float, difference: float) -> float:
    """Chance that McNemar's exact test on n items is significant at 5 %, over the counts of flips that may come up."""
    from scipy.stats import binom

    fewest, most = binom.ppf([1e-9, 1 - 1e-9], n, discordant)
    flips = np.arange(int(fewest), int(most) + 1)
    rarer = binom.ppf(0.025, flips, 0.5) - 1  # so many flips of the rarer way are still significant
    gain = (1 + difference / discordant) / 2
    found = binom.cdf(rarer, flips, 1 - gain) + binom.cdf(rarer, flips, gain)
    return float(binom.pmf(flips, n, discordant) @ found)


# -- the bootstrap ----------------------------------------------------------------------------------------------------


def _bootstrap(groups: Sequence[Sequence[float] | NDArray[np.float64]], seed: int) -> tuple[Interval, float]:
    """Mean of the groups' means with its interval (BCa: Efron, 1987) and standard error.

    Drawing n items again shows a variance that is too small by (n - 1) / n, which counts in small groups: it is put
    back. Where no item differs from its group there is no spread to see: then the interval is as wide as for a score of
    0, at most so many items are otherwise.
    """
    random = np.random.default_rng(seed)
    draws = np.zeros(RESAMPLES)
    square = cube = 0.0
    for values in groups:
        distinct, counts = np.unique(values, return_counts=True)
        n, centre = len(values), float(np.mean(values))
        drawn = random.multinomial(n, counts / n, RESAMPLES) @ distinct / n  # as drawing items, for equal ones count
        draws += (drawn - centre) * sqrt(n / max(1, n - 1)) / len(groups)
        square += float(counts @ (distinct - centre) ** 2) / n**2
        cube += float(counts @ (distinct - centre) ** 3) / n**3
    score = float(np.mean([np.mean(values) for values in groups]))
    if square < 1e-12:
        most = wilson(0, sum(map(len, groups))).high
        return Interval(score, score - most, score + most), 0.0
    low, high = (score + np.quantile(draws, _corrected(draws, cube / (6 * square**1.5)))).tolist()
    return Interval(score, low, high), float(draws.std())


def _corrected(draws: NDArray[np.float64], acceleration: float) -> list[float]:
    """Which quantiles of skewed draws, in differences from the score, are the ends of a 95 % interval."""
    below = float(np.mean(draws < -1e-12) + np.mean(np.abs(draws) <= 1e-12) / 2)
    bias = NORMAL.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    return [NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (-Z, Z)]


def _within(found: Interval, floor: float) -> Interval:
    return Interval(found.score, max(floor, found.low), min(1.0, found.high))


def _gains(before: Sequence[float], after: Sequence[float]) -> NDArray[np.float64]:
    if len(before) != len(after) or not before:
        raise ValueError(f"a paired comparison needs the same items twice, got {len(before)} and {len(after)}")
    return np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)


def _large_enough(groups: Mapping[str, Sequence[float] | NDArray[np.float64]]) -> None:
    if min(map(len, groups.values()), default=0) < SMALLEST_GROUP:
        raise ValueError(f"a macro average needs at least {SMALLEST_GROUP} items in every group")
