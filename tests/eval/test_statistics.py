from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from eval import statistics


@pytest.mark.parametrize(("right", "n"), [(0, 1), (0, 200), (1, 7), (57, 164), (100, 200), (200, 200), (660, 1319)])
def test_the_wilson_interval_is_scipys(right, n):
    ours = statistics.wilson(right, n)
    theirs = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.score <= ours.high


@pytest.mark.parametrize("n", [164, 200, 1319])
def test_the_wilson_interval_covers_95_percent_on_average(n):
    shares = np.linspace(0.02, 0.98, 193)
    counts = np.arange(n + 1)
    intervals = [statistics.wilson(int(k), n) for k in counts]
    low, high = np.array([i.low for i in intervals]), np.array([i.high for i in intervals])
    covered = [scipy.stats.binom.pmf(counts, n, p)[(low <= p) & (p <= high)].sum() for p in shares]
    assert 0.94 <= np.mean(covered) <= 0.96, f"mean {np.mean(covered):.4f}, minimum {min(covered):.4f}"
    assert min(covered) > 0.9, f"minimum {min(covered):.4f}"


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 1), (12, 30), (40, 41), (0, 9)])
def test_mcnemar_is_the_exact_binomial_test_on_the_flips(gained, lost):
    theirs = scipy.stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert statistics.mcnemar(gained, lost) == pytest.approx(theirs, abs=1e-12)


def test_the_paired_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(3)
    before = (rng.random(300) < 0.4).astype(float)
    after = np.where(rng.random(300) < 0.2, 1.0, before)
    ours = statistics.paired(before.tolist(), after.tolist())
    theirs = scipy.stats.bootstrap((after - before,), np.mean, method="percentile", rng=4).confidence_interval
    assert ours.difference.score == pytest.approx(float((after - before).mean()))
    assert (ours.difference.low, ours.difference.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)
    assert ours.gained > 0
    assert ours.lost == 0


def test_the_paired_bootstrap_covers_the_true_difference():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        draws = rng.choice([-1.0, 0.0, 1.0], size=200, p=[0.1, 0.7, 0.2])
        interval = statistics.paired([0.0] * 200, draws.tolist(), seed=trial).difference
        covered += interval.low <= 0.1 <= interval.high
    assert 0.92 <= covered / 300 <= 0.98  # 95 % give or take the noise of 300 trials


def test_a_macro_average_of_small_groups_covers_the_truth():
    rng = np.random.default_rng(8)
    covered = 0
    for trial in range(300):
        groups = {str(i): (rng.random(6) < 0.5).astype(float).tolist() for i in range(20)}
        interval = statistics.macro(groups, seed=trial)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.92 <= covered / 300 <= 0.98


def test_no_flip_is_no_certainty():
    difference = statistics.paired([1.0] * 100, [1.0] * 100).difference
    assert difference.high == -difference.low == pytest.approx(scipy.stats.binomtest(0, 100).proportion_ci().high)


def test_the_smallest_visible_difference_is_just_significant():
    n, flips = 200, 30
    visible = statistics.smallest_visible(n, flips)
    assert visible is not None
    net = round(visible * n)
    assert statistics.mcnemar((flips - net) // 2, (flips + net) // 2) < 0.05
    assert statistics.mcnemar((flips - net) // 2 + 1, (flips + net) // 2 - 1) >= 0.05
    assert statistics.smallest_visible(200, 4) is None


@pytest.mark.parametrize(("n", "right"), [(1, 0), (1, 1), (10, 3), (20, 20), (20, 1)])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(n, right):
    for k in {1, min(5, n), n}:
        missed = scipy.stats.hypergeom.pmf(0, n, right, k)
        assert statistics.pass_at_k(n, right, k) == pytest.approx(1 - missed)


def test_pass_at_k_refuses_more_draws_than_samples():
    with pytest.raises(ValueError, match="at least 5 samples"):
        statistics.pass_at_k(4, 2, 5)


def test_a_macro_average_weighs_groups_equally_and_resamples_inside_them():
    groups = {"law": [1.0] * 10, "physics": [0.0] * 90}
    interval = statistics.macro(groups)
    assert (interval.low, interval.score, interval.high) == (0.5, 0.5, 0.5)
    mixed = statistics.macro({"law": [1.0, 0.0] * 20, "physics": [1.0, 0.0, 0.0, 0.0] * 20})
    error = np.sqrt(0.25 / 39 + 0.1875 / 79) / 2
    assert mixed.score == pytest.approx(0.375)
    assert mixed.high - mixed.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_nothing_has_no_score():
    with pytest.raises(ValueError, match="at least one item"):
        statistics.wilson(0, 0)
    for groups in ({}, {"law": [1.0] * 4, "logic": [1.0] * 9}):
        with pytest.raises(ValueError, match="at least 5 items"):
            statistics.macro(groups)
    with pytest.raises(ValueError, match="same items twice"):
        statistics.paired([1.0], [1.0, 0.0])
