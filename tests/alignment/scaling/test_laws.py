"""The published laws: every row that the report's tables and stars give."""

from __future__ import annotations

import pytest

from alignment.errors import RecipeError
from alignment.models import presets
from alignment.scaling import laws

# C, learning rate, batch in tokens, sequences of 4096, of 2048, M, D, steps (None: not worked out)
POINTS = [
    (1e17, 2.338e-3, 1.062e5, 25.9, 51.9, 1.404e8, 7.123e8, 6708),
    (1e18, 1.753e-3, 2.255e5, 55.1, 110.1, 4.695e8, 2.130e9, 9445),
    (2e19, 1.206e-3, 6.008e5, 146.7, 293.4, 2.258e9, 8.857e9, 14741),
    (1e20, 9.860e-4, 1.0171e6, 248.3, 496.7, 5.251e9, 1.9045e10, 18724),
    (3e20, 8.595e-4, 1.457e6, 355.7, 711.4, 9.341e9, 3.212e10, 22045),
    (8.456e22, 4.246e-4, 9.224e6, 2252, 4504, 1.799e11, 4.703e11, None),
    (8.655e23, 3.175e-4, 1.973e7, 4818, 9635, 6.088e11, 1.421e12, None),
]
# paper, table 3: layers, width, N1, N2, M
SCALES = [
    (8, 512, 25.2e6, 77.6e6, 352e6),
    (12, 768, 84.9e6, 164e6, 963e6),
    (24, 1024, 302e6, 407e6, 3.02e9),
    (24, 2048, 1.21e9, 1.42e9, 9.66e9),
    (32, 4096, 6.44e9, 6.86e9, 45.1e9),
    (40, 5120, 12.6e9, 13.1e9, 85.6e9),
    (80, 8192, 64.4e9, 65.3e9, 419e9),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p[0]:g}")
def test_the_laws_give_what_they_give_worked_out_by_hand(point: tuple[float, ...]) -> None:
    flops, rate, batch, long, short, scale, tokens, steps = point
    near = {"rel": 1.5e-3}  # what is printed has four digits; the budgets of the last two rows are rounded, too
    assert laws.LEARNING_RATE(flops) == pytest.approx(rate, **near)
    assert laws.BATCH_TOKENS(flops) == pytest.approx(batch, **near)
    assert laws.BATCH_TOKENS(flops) / 4096 == pytest.approx(long, rel=2.5e-3)
    assert laws.BATCH_TOKENS(flops) / 2048 == pytest.approx(short, rel=1.5e-3)
    assert laws.SCALE(flops) == pytest.approx(scale, **near)
    assert laws.TOKENS(flops) == pytest.approx(tokens, **near)
    if steps:
        assert laws.TOKENS(flops) / laws.BATCH_TOKENS(flops) == pytest.approx(steps, **near)


def test_model_times_tokens_is_the_budget() -> None:
    for flops in (1e17, 3e20, 1e24):
        assert laws.SCALE(flops) * laws.TOKENS(flops) == pytest.approx(flops, rel=2e-4)


def test_the_published_walk_through_is_wrong_by_a_factor_of_31() -> None:
    assert laws.LEARNING_RATE(1e20) / 3.16e-5 == pytest.approx(31.2, rel=1e-3)
    assert pytest.approx(3.1623e-3, rel=1e-4) == 1e20**-0.125


@pytest.mark.parametrize("row", SCALES, ids=lambda r: f"{r[0]}x{r[1]}")
def test_the_three_measures_of_scale_are_those_of_table_3(row: tuple[int, int, float, float, float]) -> None:
    layers, width, n1, n2, scale = row
    assert laws.n1(layers, width) == pytest.approx(n1, rel=5e-3)
    assert laws.n2(layers, width, 102_400) == pytest.approx(n2, rel=5e-3)
    assert laws.scale(layers, width, 4096) == pytest.approx(scale, rel=2e-3)
    assert 6 * laws.n1(layers, width) < laws.scale(layers, width, 4096)


@pytest.mark.parametrize(("ratios", "row"), [
    ((0.43, 1.32), (8, 512)), ((0.53, 1.02), (12, 768)), ((0.60, 0.81), (24, 1024)), ((0.75, 0.88), (24, 2048)),
    ((0.857, 0.91), (32, 4096)), ((0.88, 0.92), (40, 5120)), ((0.92, 0.94), (80, 8192)),
])  # fmt: skip
def test_small_models_are_where_the_measures_differ(ratios: tuple[float, float], row: tuple[int, int]) -> None:
    scale = laws.scale(*row, 4096)
    assert 6 * laws.n1(*row) / scale == pytest.approx(ratios[0], abs=0.006)
    assert 6 * laws.n2(*row, 102_400) / scale == pytest.approx(ratios[1], abs=0.006)


@pytest.mark.parametrize(("preset", "rate", "sequences", "scale"), [
    ("deepseek-llm-7b", 4.2e-4, 2304, 4.247e10),  # its feed-forward width is a little above 8/3
    ("deepseek-llm-67b", 3.2e-4, 4608, 4.327e11),
])  # fmt: skip
def test_the_released_models_reproduce(preset: str, rate: float, sequences: int, scale: float) -> None:
    real = presets.flops_per_token(presets.PRESETS[preset], 4096)
    assert real == pytest.approx(scale, rel=1e-3)
    flops = real * 2e12
    assert laws.LEARNING_RATE(flops) == pytest.approx(rate, rel=0.02)
    assert laws.BATCH_TOKENS(flops) / 4096 == pytest.approx(sequences, rel=0.05)


def test_equation_2_gives_the_point_of_the_7b() -> None:
    assert laws.scale(30, 4096, 4096) == pytest.approx(4.228e10, rel=1e-3)
    assert laws.LEARNING_RATE(laws.scale(30, 4096, 4096) * 2e12) == pytest.approx(4.246e-4, rel=1e-3)
    assert laws.BATCH_TOKENS(laws.scale(30, 4096, 4096) * 2e12) == pytest.approx(9.223e6, rel=1e-3)


def test_equation_2_says_too_much_for_shared_keys_and_values() -> None:
    by_formula = laws.scale(95, 8192, 4096)
    assert by_formula == pytest.approx(4.973e11, rel=1e-3)
    assert laws.LEARNING_RATE(by_formula * 2e12) == pytest.approx(3.120e-4, rel=1e-3)
    assert laws.BATCH_TOKENS(by_formula * 2e12) == pytest.approx(20.65e6, rel=1e-3)


def test_the_67b_is_best_at_the_budget_of_figure_4() -> None:
    assert laws.SCALE(4.51e23) == pytest.approx(4.327e11, rel=2e-3)
    assert laws.TOKENS(4.51e23) == pytest.approx(1.04e12, rel=5e-3)


def test_only_the_current_data_has_a_published_factor() -> None:
    assert laws.split("current") is laws.SCALE
    for name, exponent in {"early": 0.450, "openwebtext2": 0.578, "chinchilla": 0.49, "kaplan": 0.73}.items():
        with pytest.raises(RecipeError, match=r"only its exponent .* --pivot"):
            laws.split(name)
        found = laws.split(name, (1e17, 1.4e8))
        assert found(1e17) == pytest.approx(1.4e8)
        assert found(1e19) == pytest.approx(1.4e8 * 100**exponent)
    with pytest.raises(RecipeError, match="Did you mean 'early'"):
        laws.split("earl")


def test_better_data_moves_the_optimum_towards_the_model() -> None:
    early, now, best = (laws.QUALITIES[name] for name in ("early", "current", "openwebtext2"))
    assert early < now < best


def test_a_budget_outside_the_fitted_range_is_said() -> None:
    assert laws.beyond(1e18, laws.SPLIT_RANGE, "x") is None
    assert "3 times above" in str(laws.beyond(9e20, laws.SPLIT_RANGE, "x"))
    assert "1e+05 times below" in str(laws.beyond(1e12, laws.SPLIT_RANGE, "x"))


def test_warm_up_is_2000_updates_or_a_twentieth() -> None:
    assert [laws.warmup(updates) for updates in (1, 100, 6708, 40_000, 211_927)] == [1, 5, 335, 2000, 2000]
