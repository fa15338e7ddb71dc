"""Right is paired with wrong, never equal, never cut; and each answer as seldom as can be."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from alignment.posttrain import preferences

ROW = {"id": "p", "prompt": "6 x 7?", "kind": "number", "language": "en", "domain": "curriculum-math"}


def said(text: str, *, correct: bool, cut: bool = False) -> dict[str, Any]:
    return {"answer": text, "correct": correct, "cut": cut, "why": "" if correct else f"{text}, not 42"}


def pairs(*answers: dict[str, Any], most: int = 9) -> list[dict[str, Any]]:
    return list(preferences.pair(ROW, answers, most, Random(0)))


def test_chosen_is_right_and_rejected_is_wrong() -> None:
    (made,) = pairs(said("42", correct=True), said("41", correct=False))
    assert (made["chosen"], made["rejected"], made["reason"]) == ("42", "41", "number: 41, not 42")


def test_answers_are_spread_before_they_are_used_twice() -> None:
    made = pairs(*(said(f"{i}", correct=i < 3) for i in range(6)), most=3)
    assert len({one["chosen"] for one in made}) == len({one["rejected"] for one in made}) == 3


def test_an_answer_that_was_cut_or_is_empty_is_no_candidate() -> None:
    assert not pairs(said("42", correct=True), said("41 and", correct=False, cut=True), said("", correct=False))


def test_equal_answers_count_once() -> None:
    assert len(pairs(said("42", correct=True), said("42", correct=True), said("41", correct=False))) == 1


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ([said("42", correct=True)] * 2, "all right"),
        ([said("1", correct=False)] * 2, "all wrong"),
        ([said("42", correct=True), said("1", correct=False)], "paired"),
        ([said("42", correct=True), said("1", correct=False, cut=True)], "no whole pair"),
    ],
)
def test_a_problem_without_a_pair_says_why(answers: list[dict[str, Any]], word: str) -> None:
    assert preferences.outcome(answers, pairs(*answers)) == word
