from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from eval import statistics


@pytest.fixture
def quick(monkeypatch):
    """Fewer resamples where thousands of intervals are simulated."""
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


# -- one score --------------------------------------------------------------------------------------------------------


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
    print(f"Wilson, n {n}: mean {np.mean(covered):.4f}, minimum {min(covered):.4f}")  # noqa: T201
    assert 0.94 <= np.mean(covered) <= 0.96, f"mean {np.mean(covered):.4f}, minimum {min(covered):.4f}"
    assert min(covered) > 0.9, f"minimum {min(covered):.4f}"


@pytest.mark.parametrize(("n", "right"), [(1, 0), (1, 1), (10, 3), (20, 20), (20, 1)])
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_sample(n, right):
    for k in {1, min(5, n), n}:
        missed = scipy.stats.hypergeom.pmf(0, n, right, k)
        assert statistics.pass_at_k(n, right, k) == pytest.approx(1 - missed)


def test_pass_at_k_is_unbiased():
    n, k, chance = 8, 3, 0.3
    expected = sum(scipy.stats.binom.pmf(c, n, chance) * statistics.pass_at_k(n, c, k) for c in range(n + 1))
    assert expected == pytest.approx(1 - (1 - chance) ** k)


def test_pass_at_k_refuses_more_draws_than_samples():
    with pytest.raises(ValueError, match="at least 5 samples"):
        statistics.pass_at_k(4, 2, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_cluster_bootstrap_covers_95_percent_on_average():
    rng = np.random.default_rng(11)
    covered = []
    for chance in (0.1, 0.3, 0.5, 0.8):
        for spread in (0.5, 3.0):  # an item's own chance: nearly always 0 or 1, or anything
            hits = 0
            for trial in range(250):
                own = rng.beta(chance * spread, (1 - chance) * spread, 164)
                found = statistics.mean((rng.binomial(4, own) / 4).tolist(), seed=trial)
                hits += found.low <= chance <= found.high
            covered.append(hits / 250)
    print(f"cluster bootstrap: mean {np.mean(covered):.4f}, minimum {min(covered):.4f}")  # noqa: T201
    assert 0.94 <= np.mean(covered) <= 0.96, f"mean {np.mean(covered):.4f}, minimum {min(covered):.4f}"


def test_samples_of_an_item_are_not_items():
    rng = np.random.default_rng(2)
    own = (rng.random(50) < 0.5).astype(float)  # each item is always right or always wrong
    shares = np.where(own == 1, 0.9, 0.1).tolist()
    many, plain = statistics.mean(shares), statistics.wilson(sum(shares) * 16, 50 * 16)
    assert many.high - many.low > 2.5 * (plain.high - plain.low)


@pytest.mark.parametrize("mark", [0.0, 0.5, 1.0])
def test_marks_without_any_spread_still_have_an_interval(mark):
    found = statistics.mean([mark] * 40)
    assert 0 <= found.low <= mark <= found.high <= 1
    assert found.high - found.low >= statistics.wilson(0, 40).high - 1e-12
    macro = statistics.macro({"law": [mark] * 20, "logic": [mark] * 20})
    assert (macro.low, macro.high) == pytest.approx((found.low, found.high))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_macro_average_of_small_groups_covers_the_truth():
    rng = np.random.default_rng(8)
    covered, chances = [], rng.beta(2, 2, 12)
    for size in (8, 12, 24):
        hits = 0
        for trial in range(500):
            groups = {str(i): (rng.random(size) < p).astype(float).tolist() for i, p in enumerate(chances)}
            found = statistics.macro(groups, seed=trial)
            hits += found.low <= chances.mean() <= found.high
        covered.append(hits / 500)
    print(f"stratified bootstrap: mean {np.mean(covered):.4f}, minimum {min(covered):.4f}")  # noqa: T201
    assert 0.94 <= np.mean(covered) <= 0.96, f"mean {np.mean(covered):.4f}, minimum {min(covered):.4f}"


def test_a_macro_average_weighs_groups_equally_and_resamples_inside_them():
    mixed = statistics.macro({"law": [1.0, 0.0] * 20, "physics": [1.0, 0.0, 0.0, 0.0] * 20})
    error = np.sqrt(0.25 / 39 + 0.1875 / 79) / 2
    assert mixed.score == pytest.approx(0.375)
    assert mixed.high - mixed.low == pytest.approx(2 * 1.96 * error, rel=0.08)


# -- two scores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 1), (12, 30), (40, 41), (0, 9)])
def test_mcnemar_is_the_exact_binomial_test_on_the_flips(gained, lost):
    theirs = scipy.stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert statistics.mcnemar(gained, lost) == pytest.approx(theirs, abs=1e-12)


def test_tangos_interval_is_the_published_one():
    found = statistics.tango(1, 7, 21)  # hyper-responsiveness of 21 children: Fagerland, Lydersen and Laake, 2014
    assert (round(found.low, 3), round(found.high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 5, 60), (1, 7, 21), (30, 30, 100), (9, 0, 164)])
def test_the_ends_of_tangos_interval_are_1_96_standard_errors_away(gained, lost, n):
    """An oracle that finds the constrained maximum of the likelihood numerically instead of by Tango's formula."""
    found = statistics.tango(gained, lost, n)
    for end in (found.low, found.high):

        def worse(share, end=end):
            shares = np.array([share + end, share, 1 - 2 * share - end])
            counts = np.array([gained, lost, n - gained - lost])
            return -float(np.sum(counts * np.log(np.maximum(shares, 1e-300))))

        bounds = (max(0.0, -end), (1 - end) / 2)
        share = scipy.optimize.minimize_scalar(worse, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        error = np.sqrt((2 * share + end - end**2) / n)
        assert abs((gained - lost) / n - end) / error == pytest.approx(1.96, abs=2e-3)


def test_tangos_interval_covers_95_percent_on_average():
    n, covered = 120, []
    interval = cache(lambda gained, lost: statistics.tango(gained, lost, n))
    for discordant in (0.1, 0.2, 0.4):
        for tilt in (0.0, 0.3, 0.7):
            difference, chance = discordant * tilt, 0.0
            for flips in range(n + 1):
                seen = scipy.stats.binom.pmf(flips, n, discordant)
                if seen > 1e-5:
                    gained = np.arange(flips + 1)
                    likely = seen * scipy.stats.binom.pmf(gained, flips, (1 + tilt) / 2)
                    ends = [interval(int(g), int(flips - g)) for g in gained[likely > 1e-7]]
                    holds = [found.low <= difference <= found.high for found in ends]
                    chance += float(likely[likely > 1e-7] @ holds)
            covered.append(chance)
    print(f"Tango, n {n}: mean {np.mean(covered):.4f}, minimum {min(covered):.4f}")  # noqa: T201
    assert 0.94 <= np.mean(covered) <= 0.96, f"mean {np.mean(covered):.4f}, minimum {min(covered):.4f}"
    assert min(covered) > 0.93


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_the_interval_of_a_difference_turns_with_the_models(gained, lost, rest):
    n = gained + lost + rest + 1
    one, other = statistics.tango(gained, lost, n), statistics.tango(lost, gained, n)
    assert (one.low, one.score, one.high) == pytest.approx((-other.high, -other.score, -other.low), abs=1e-9)
    assert -1 <= one.low <= one.score <= one.high <= 1


def test_no_flip_is_no_certainty():
    found = statistics.paired([1.0] * 100, [1.0] * 100)
    assert found.difference.high == -found.difference.low == pytest.approx(statistics.wilson(0, 100).high)
    assert (found.gained, found.lost, found.p_value, found.visible) == (0, 0, 1.0, None)


def test_shares_are_compared_by_a_bootstrap_over_items():
    rng = np.random.default_rng(3)
    before = rng.integers(0, 5, 300) / 4
    after = np.clip(before + rng.choice([-0.25, 0.0, 0.25], 300, p=[0.1, 0.6, 0.3]), 0, 1)
    ours = statistics.paired(before.tolist(), after.tolist())
    theirs = scipy.stats.bootstrap((after - before,), np.mean, method="BCa", rng=4).confidence_interval
    assert ours.difference.score == pytest.approx(float((after - before).mean()))
    assert (ours.difference.low, ours.difference.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert ours.gained == int((after > before).sum())
    error = float((after - before).std(ddof=1) / np.sqrt(300))
    assert ours.visible == pytest.approx((1.960 + 0.842) * error, rel=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_paired_shares_cover_the_true_difference():
    rng, hits = np.random.default_rng(5), 0
    for trial in range(1500):
        gains = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], 200, p=[0.05, 0.05, 0.6, 0.2, 0.1])
        found = statistics.paired((0.0 * gains).tolist(), gains.tolist(), seed=trial).difference
        hits += found.low <= 0.125 <= found.high
    assert 0.94 <= hits / 1500 <= 0.96


def test_two_macro_averages_are_compared_inside_their_groups():
    law, logic = ([0.0] * 10, [1.0] * 5 + [0.0] * 5), ([0.0, 1.0] * 50, [0.0, 1.0] * 50)
    found = statistics.paired_macro({"law": law, "logic": logic})
    assert found.difference.score == pytest.approx(0.25)
    assert (found.gained, found.lost) == (5, 0)
    error = np.sqrt(0.25 / 9) / 2
    assert found.difference.high - found.difference.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_two_sets_apart_differ_as_newcombe_says():
    found = statistics.apart([1.0] * 48 + [0.0] * 32, [1.0] * 56 + [0.0] * 14)
    assert found.score == pytest.approx(0.2)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)  # Newcombe, 1998, 56/70 against 48/80


@pytest.mark.parametrize(("n", "flips"), [(164, 40), (1319, 260)])
def test_the_smallest_visible_difference_is_found_four_times_in_five(n, flips):
    visible = statistics.smallest_visible(n, flips)
    assert visible is not None
    rng, share = np.random.default_rng(1), flips / n
    chances = [(share + visible) / 2, (share - visible) / 2, 1 - share]
    draws = rng.multinomial(n, chances, 6000)
    significant = cache(lambda gained, lost: statistics.mcnemar(gained, lost) < 0.05)
    assert np.mean([significant(int(g), int(lost)) for g, lost, _ in draws]) == pytest.approx(0.8, abs=0.02)
    assert statistics.power(n, share, 0.0) < 0.05


def test_too_few_flips_can_show_nothing():
    assert statistics.smallest_visible(200, 4) is None
    assert statistics.smallest_visible(200, 0) is None


def test_nothing_has_no_score():
    with pytest.raises(ValueError, match="at least one item"):
        statistics.mean([])
    for groups in ({}, {"law": [1.0] * 4, "logic": [1.0] * 9}):
        with pytest.raises(ValueError, match="at least 5 items"):
            statistics.macro(groups)
    with pytest.raises(ValueError, match="same items twice"):
        statistics.paired([1.0], [1.0, 0.0])
