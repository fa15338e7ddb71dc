"""Which tokens an update sees: a pure function of seed and step, so that resuming is arithmetic.

The token stream is cut into windows of one sequence each, every epoch in its own order. Ranks and micro-batches take
their slices of the same global batch, so that neither changes what is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError


class Tokens(Protocol):
    """Token ids in a row: an array, or shards read as one."""

    def __len__(self) -> int: ...
    def __getitem__(self, cut: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Batches:
    """A split's tokens as one stream, seen as batches of `size` sequences of `length` tokens, for ever."""

    tokens: Tokens
    length: int
    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise DataError(
                f"{len(self.tokens)} tokens do not fill one sequence of {self.length}. Give more text or shorten it."
            )

    @property
    def windows(self) -> int:
        """Sequences in one epoch. Each also reads the token after it, the last target."""
        return (len(self.tokens) - 1) // self.length

    def batch(self, step: int) -> NDArray[np.int64]:
        """The global batch of update `step`: (size, length + 1); inputs are [:, :-1], targets [:, 1:]."""
        return np.stack([self._window(step * self.size + row) for row in range(self.size)]).astype(np.int64)

    def _window(self, number: int) -> NDArray[Any]:
        epoch, place = divmod(number, self.windows)
        start = int(_order(self.windows, self.seed, epoch)[place]) * self.length
        return self.tokens[start : start + self.length + 1]


@lru_cache(maxsize=2)  # a batch can lie across two epochs
def _order(windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(windows)


def share(batch: NDArray[np.int64], rank: int, ranks: int) -> NDArray[np.int64]:
    """The rows of the global batch that this rank computes."""
    rows = len(batch) // ranks
    return batch[rank * rows : (rank + 1) * rows]


def positions(inputs: NDArray[np.int64], bos: int) -> NDArray[np.int64]:
    """Positions that begin again at every document: what keeps packed documents apart, with no mask and no cache."""
    places = np.broadcast_to(np.arange(inputs.shape[1]), inputs.shape)
    starts = np.maximum.accumulate(np.where(inputs == bos, places, 0), axis=1)
    return places - starts
