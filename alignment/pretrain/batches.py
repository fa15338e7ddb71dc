"""Which tokens an update sees: a pure function of seed and step, so that resuming is arithmetic.

The token stream is cut into windows of one sequence each, every epoch in its own order; with mixture weights each domain
is a stream of its own. Ranks and micro-batches take their slices of the same global batch, so that neither changes what
is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alignment.corpus.shards import Shards
from alignment.errors import DataError
from alignment.pretrain.domains import Domain, Mixture
from alignment.recipe import Pretrain


class Tokens(Protocol):
    """Token ids in a row: an array, or shards read as one."""

    def __len__(self) -> int: ...
    def __getitem__(self, cut: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Windows:
    """Tokens in a row, seen as sequences of `length`, for ever: every epoch in an order of its own."""

    tokens: Tokens
    length: int
    seed: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self) < 1:
            raise DataError(
                f"{len(self.tokens)} tokens do not fill one sequence of {self.length}. Give more text or shorten it."
            )

    def __len__(self) -> int:
        """Sequences in one epoch. Each also reads the token after it, the last target."""
        return (len(self.tokens) - 1) // self.length

    def window(self, number: int) -> NDArray[Any]:
        """Sequence `number`, counted over all epochs, and the token after it."""
        epoch, place = divmod(number, len(self))
        start = int(_order(len(self), self.seed, epoch)[place]) * self.length
        return self.tokens[start : start + self.length + 1]


@dataclass(frozen=True)
class Batches:
    """A split as batches of `size` sequences, for ever; several streams need the mixture that draws from them."""

    streams: tuple[Windows, ...]
    size: int
    mixture: Mixture | None = None

    @classmethod
    def of(cls, recipe: Pretrain, seen: Shards) -> Batches:
        """Say the recipe's data as batches."""
        if recipe.mixture is None:
            return cls((Windows(seen.tokens, recipe.sequence_length, (recipe.seed,)),), recipe.batch_size)
        mixture = Mixture.weighted(recipe.mixture, seen.domains, recipe.seed)
        numbers = [seen.domains.index(name) for name in mixture.names]
        streams = (Windows(Domain.of(seen, n), recipe.sequence_length, (recipe.seed, n)) for n in numbers)
        return cls(tuple(streams), recipe.batch_size, mixture)

    def batch(self, step: int) -> NDArray[np.int64]:
        """The global batch of update `step`: (size, length + 1); inputs are [:, :-1], targets [:, 1:]."""
        return np.stack([self._window(step * self.size + row) for row in range(self.size)]).astype(np.int64)

    def _window(self, number: int) -> NDArray[Any]:
        stream, place = (0, number) if self.mixture is None else self.mixture.place(number)
        return self.streams[stream].window(place)

    def epochs(self, updates: int) -> dict[str, float]:
        """Passes over each domain's text after so many updates; without a mixture all text has the name ''."""
        sequences = updates * self.size
        if self.mixture is None:
            return {"": sequences / len(self.streams[0])}
        drawn = self.mixture.drawn(sequences)
        return {
            name: count / len(stream) for name, count, stream in zip(self.mixture.names, drawn, self.streams, strict=True)
        }


@lru_cache(maxsize=64)  # of every domain, and a batch can lie across two epochs
def _order(windows: int, seed: tuple[int, ...], epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((*seed, epoch)).permutation(windows)


def share(batch: NDArray[np.int64], rank: int, ranks: int) -> NDArray[np.int64]:
    """The rows of the global batch that this rank computes."""
    rows = len(batch) // ranks
    return batch[rank * rows : (rank + 1) * rows]


def positions(inputs: NDArray[np.int64], bos: int) -> NDArray[np.int64]:
    """Positions that begin again at every document: what keeps packed documents apart, with no mask and no cache."""
    places = np.broadcast_to(np.arange(inputs.shape[1]), inputs.shape)
    starts = np.maximum.accumulate(np.where(inputs == bos, places, 0), axis=1)
    return places - starts
