"""Updates that must not be made."""

import json
import math

import pytest

from alignment import recipe as words
from alignment.errors import ModelError
from alignment.pretrain.guard import ENOUGH, WINDOW, Guard

RULE = words.Guard(norm=4.0, loss=1.0, most=2)


def seasoned(rule: words.Guard = RULE, updates: int = ENOUGH) -> Guard:
    """A guard that has seen ordinary updates: loss 2 and norm 1, more or less."""
    guard = Guard(rule)
    for number in range(updates):
        assert guard.refusal("here", 2 + 0.1 * (number % 3), 1 + 0.1 * (number % 3)) is None
    return guard


@pytest.mark.parametrize(
    ("loss", "norm", "says"),
    [
        (math.nan, 1.0, "loss nan"),
        (2.0, math.inf, "gradient norm inf"),
        (2.0, 4.5, "more than 4 times the usual 1.1"),
        (3.2, 1.0, "more than 1 above the usual 2.1"),
        (3.0, 4.0, None),
    ],
)
def test_what_is_no_number_or_far_from_usual_is_left_out(loss: float, norm: float, says: str | None) -> None:
    found = seasoned().refusal("here", loss, norm)
    assert (found is None) if says is None else (says in str(found))


def test_without_a_rule_only_what_is_no_number_is_left_out() -> None:
    guard = seasoned(words.Guard())
    assert guard.refusal("here", 1e6, 1e6) is None
    assert guard.refusal("here", math.nan, 1.0) is not None


def test_nothing_is_far_from_usual_before_there_is_enough() -> None:
    assert seasoned(updates=ENOUGH - 1).refusal("here", 50.0, 50.0) is None


def test_too_many_in_a_row_stop_the_run_and_one_that_is_made_begins_the_count_again() -> None:
    guard = seasoned()
    for _ in range(3):
        assert guard.refusal("here", math.nan, 1.0)
        assert guard.refusal("here", math.nan, 1.0)
        assert guard.refusal("here", 2.0, 1.0) is None
    assert guard.skipped == 6
    guard.refusal("here", math.nan, 1.0)
    guard.refusal("here", math.nan, 1.0)
    with pytest.raises(ModelError, match=r"update 9: loss nan.*3 update\(s\) in a row.*guard.most: 2"):
        guard.refusal("update 9", math.nan, 1.0)


def test_what_was_left_out_does_not_become_usual() -> None:
    guard = seasoned(words.Guard(norm=4.0, most=100))
    assert all(guard.refusal("here", 2.0, 9.0) for _ in range(WINDOW))


def test_a_restored_guard_judges_alike() -> None:
    first, second = seasoned(), Guard(RULE)
    first.refusal("here", math.nan, 1.0)
    second.restore(json.loads(json.dumps(first.state())))
    for loss, norm in [(2.0, 4.39), (2.0, 4.41), (3.09, 1.0), (3.11, 1.0)]:
        assert first.refusal("here", loss, norm) == second.refusal("here", loss, norm)
    assert first.state() == second.state()
