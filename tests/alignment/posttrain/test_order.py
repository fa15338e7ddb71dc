"""The order of the data: seeded, whole epochs, and the same items per update however they are sorted inside."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import DataError
from alignment.posttrain import sft, trainer
from alignment.recipe import Optim


def optim(size: int, epochs: float) -> Optim:
    return Optim(learning_rate=1, batch_size=size, epochs=epochs)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 99), min_size=8, max_size=40), st.sampled_from([1, 2, 8]), st.sampled_from([1.0, 1.5, 3.0]))
def test_every_item_is_seen_once_an_epoch(lengths: list[int], size: int, epochs: float) -> None:
    order = trainer.order(lengths, optim(size, epochs), seed=3)
    assert len(order) == int(len(lengths) * epochs) // size * size
    assert len(lengths) - size < len(set(order)) <= len(lengths)
    counts = [order.count(i) for i in range(len(lengths))]
    assert max(counts) <= -(-epochs // 1)


def test_items_of_an_update_depend_on_the_seed_and_not_on_lengths() -> None:
    long, short = (
        [set(o[i : i + 4]) for i in range(0, 20, 4)]
        for o in (trainer.order(range(1, 21), optim(4, 1), 0), trainer.order([5] * 20, optim(4, 1), 0))
    )
    assert long == short
    assert trainer.order([5] * 20, optim(4, 1), 1) != trainer.order([5] * 20, optim(4, 1), 0)


def test_less_than_one_update_is_an_error() -> None:
    with pytest.raises(DataError, match="less than one update"):
        trainer.order([1, 2, 3], optim(4, 1), 0)


@pytest.mark.parametrize(
    ("rows", "size", "epochs", "ends"),
    [
        (65, 8, 3.0, {8: 1, 16: 2, 24: 3}),
        (64, 8, 1.5, {8: 1, 12: 2}),
        (64, 8, 0.5, {4: 1}),
        (3, 8, 8.0, {1: 5, 2: 7, 3: 8}),  # several epochs may end in one update
    ],
)
def test_an_epoch_ends_at_the_last_update_that_it_fills(rows: int, size: int, epochs: float, ends: dict[int, int]) -> None:
    found = sft.epoch_ends(rows, optim(size, epochs))
    assert {update: epoch for update, epoch in found.items() if update} == ends
    assert max(found) == len(trainer.order([1] * rows, optim(size, epochs), 0)) // size
