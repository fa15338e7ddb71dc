"""The learning rate at every turn."""

import pytest

from alignment import recipe
from alignment.errors import RecipeError
from alignment.pretrain import schedule
from alignment.pretrain.schedule import cosine, multi_step, wsd


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (79, 1.0), (80, 0.316), (89, 0.316), (90, 0.1), (99, 0.1)],
)
def test_multi_step_rises_stays_and_falls_twice(step, share):
    assert multi_step(step, updates=100, warmup_steps=10) == pytest.approx(share)


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (10, 1.0), (89, 1.0), (90, 1.0), (95, 0.55), (99, 0.19), (100, 0.1)])
def test_wsd_rises_stays_and_falls_linearly(step, share):
    assert wsd(step, updates=100, warmup_steps=10) == pytest.approx(share)


def test_the_first_part_does_not_depend_on_the_budget():
    assert [multi_step(s, 100, 10) for s in range(80)] == [multi_step(s, 1000, 10) for s in range(80)]
    assert [wsd(s, 100, 10) for s in range(90)] == [wsd(s, 1000, 10) for s in range(90)]


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1)])
def test_cosine_rises_and_ends_at_a_tenth(step, share):
    assert cosine(step, updates=100, warmup_steps=10) == pytest.approx(share)


def test_without_warm_up_the_first_update_has_the_peak():
    assert multi_step(0, 10, 0) == cosine(0, 10, 0) == wsd(0, 10, 0) == 1.0


def optim(**words: object) -> recipe.PretrainOptim:
    return recipe.schema.validate(recipe.PretrainOptim, {"learning_rate": 1e-3, "warmup_steps": 0, **words}, "here")


def test_the_recipe_says_turns_factors_floor_and_decay():
    steps = optim(turns=[0.6, 0.8], factors=[0.5, 0.2])
    assert [schedule.share(step, 10, steps) for step in (5, 6, 8)] == [1.0, 0.5, 0.2]
    assert schedule.share(10, 10, optim(schedule="cosine", floor=0.0)) == pytest.approx(0.0)
    assert schedule.share(8, 10, optim(schedule="wsd", decay=0.4, floor=0.0)) == pytest.approx(0.5)
    assert schedule.share(80, 100, optim()) == 0.316


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"schedule": "cosine", "turns": [0.5, 0.9]}, "the cosine schedule does not read turns"),
        ({"decay": 0.2}, "multi-step schedule does not read decay"),
        ({"turns": [0.9, 0.8]}, "turns must rise"),
        ({"turns": [0.9]}, "each needs its factor"),
    ],
)
def test_words_that_the_schedule_does_not_read_are_refused(words, says):
    with pytest.raises(RecipeError, match=says):
        optim(**words)
