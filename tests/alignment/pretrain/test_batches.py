"""What an update sees depends on seed and step only."""

import numpy as np
import pytest

from alignment.errors import DataError
from alignment.pretrain import batches
from alignment.pretrain.batches import Batches, Windows

TOKENS = np.arange(1003)


def plain(tokens, size, seed) -> Batches:
    return Batches((Windows(tokens, 10, (seed,)),), size)


def test_a_batch_is_a_function_of_seed_and_step():
    batch = plain(TOKENS, size=4, seed=1).batch(7)
    assert batch.shape == (4, 11)
    assert (batch == plain(TOKENS, size=4, seed=1).batch(7)).all()
    assert (batch != plain(TOKENS, size=4, seed=2).batch(7)).any()


def test_an_epoch_predicts_every_token_once_and_the_next_one_in_another_order():
    source = plain(TOKENS, size=4, seed=0)
    epochs = [np.concatenate([source.batch(step) for step in range(e * 25, e * 25 + 25)]) for e in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch[:, 1:].ravel()) == list(range(1, 1001))
    assert (epochs[0] != epochs[1]).any()


def test_inputs_and_targets_are_neighbours_in_the_text():
    batch = plain(TOKENS, size=4, seed=0).batch(3)
    assert (np.diff(batch) == 1).all()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_one_global_batch(ranks):
    batch = plain(TOKENS, size=4, seed=0).batch(2)
    assert (np.concatenate([batches.share(batch, rank, ranks) for rank in range(ranks)]) == batch).all()


def test_the_same_sequences_come_in_the_same_order_for_any_batch_size():
    small, large = (plain(TOKENS, size=size, seed=0) for size in (2, 8))
    assert (
        np.concatenate([small.batch(step) for step in range(8)]) == np.concatenate([large.batch(0), large.batch(1)])
    ).all()


def test_too_little_text_for_one_sequence_is_refused():
    with pytest.raises(DataError, match="do not fill"):
        plain(TOKENS[:10], size=1, seed=0)


def test_positions_begin_again_at_every_document():
    inputs = np.array([[5, 6, 0, 7, 8, 0, 9], [0, 1, 1, 1, 1, 1, 0]])
    assert batches.positions(inputs, bos=0).tolist() == [[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5, 0]]
