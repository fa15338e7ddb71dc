"""The fingerprint is about what is learnt, and a difference is named by its field."""

from __future__ import annotations

from typing import Any

import pytest

from alignment import manifest

WORDS = {"stage": "corpus", "seed": 0, "bytes": 10, "fits": ["cpu"]}
CARD = {"revision": None, "rows": None, "digest": "abc"}


def plan(*, card: dict[str, Any] = CARD, start: str = "1", **changes: Any) -> dict[str, Any]:
    return manifest.compose(words={**WORDS, **changes}, inputs={"a": start}, cards={"alpaca": card}, hardware={})


def test_the_fingerprint_is_about_what_is_learnt() -> None:
    one = plan()["fingerprint"]
    assert one == plan(fits=["gpu-80gb"])["fingerprint"]
    assert one == plan(overlong=0.5)["fingerprint"]  # a gate that was passed changes nothing
    assert one == plan(card={**CARD, "revision": "c0ffee", "rows": 7})["fingerprint"]
    assert one != plan(card={**CARD, "digest": "abd"})["fingerprint"]
    assert one != plan(bytes=11)["fingerprint"]
    assert one != plan(start="2")["fingerprint"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bytes": 11, "fits": ["gpu-80gb"]}, "bytes: was 10, now 11"),
        ({"start": "2"}, "inputs.a: was '1', now '2'"),
        ({"card": {"revision": "c0ffee", "rows": 7, "digest": "abd"}}, "cards.alpaca: was 'abc', now 'abd'"),
    ],
)
def test_the_first_difference_is_named_with_both_values(changes: dict[str, Any], said: str) -> None:
    assert manifest.first_difference(plan(), plan(**changes)) == said


def test_an_empty_section_that_was_not_there_is_named():
    old, new = ({"recipe": recipe, "inputs": {}, "cards": {}} for recipe in ({"a": 1}, {"a": 1, "caps": {}}))
    assert manifest.first_difference(old, new) == "caps: was None, now {}"
