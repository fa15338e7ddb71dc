"""The learning rate at every turn."""

import pytest

from alignment.pretrain.schedule import cosine, multi_step


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (79, 1.0), (80, 0.316), (89, 0.316), (90, 0.1), (99, 0.1)],
)
def test_multi_step_rises_stays_and_falls_twice(step, share):
    assert multi_step(step, updates=100, warmup_steps=10) == pytest.approx(share)


def test_the_first_eight_tenths_do_not_depend_on_the_budget():
    assert [multi_step(s, 100, 10) for s in range(80)] == [multi_step(s, 1000, 10) for s in range(80)]


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1)])
def test_cosine_rises_and_ends_at_a_tenth(step, share):
    assert cosine(step, updates=100, warmup_steps=10) == pytest.approx(share)


def test_without_warm_up_the_first_update_has_the_peak():
    assert multi_step(0, 10, 0) == cosine(0, 10, 0) == 1.0
