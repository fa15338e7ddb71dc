"""Mixture weights: which domain each sequence is drawn from, as a pure function of seed and place in the run.

Every thousand sequences hold each domain in its exact share, in a drawn order, so that the place of a sequence inside
its domain is arithmetic too: nothing is counted along the way, and a resumed run needs no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus.shards import Shards
from alignment.errors import DataError, RecipeError

BLOCK = 1000  # sequences that hold every domain in its share: weights count to a part in a thousand


@dataclass(frozen=True)
class Domain:
    """The documents of one domain, read as one row of tokens."""

    shards: Shards
    documents: NDArray[np.int64]
    ends: NDArray[np.int64]  # of each of these documents in the row

    @classmethod
    def of(cls, shards: Shards, number: int) -> Domain:
        """Find a domain's documents by its number in the shards."""
        documents = np.flatnonzero(shards.domain == number)
        return cls(shards, documents, np.cumsum(np.diff(shards.offsets)[documents]))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, cut: slice) -> NDArray[Any]:
        start, stop, _ = cut.indices(len(self))
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, stop, side="left"))
        parts = [self.shards[int(document)] for document in self.documents[first : last + 1]]
        before = int(self.ends[first - 1]) if first else 0
        return np.concatenate(parts)[start - before : stop - before]


@dataclass(frozen=True)
class Mixture:
    """Shares of named domains, and how many of each thousand sequences that makes."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    seed: int

    @classmethod
    def weighted(cls, weights: Mapping[str, float], known: tuple[str, ...], seed: int) -> Mixture:
        """Turn weights into whole sequences of a thousand. Raises RecipeError for a domain that there is not."""
        if unknown := sorted(weights.keys() - set(known)):
            raise RecipeError(f"mixture: {unknown[0]!r} is no domain of these shards. They have: {', '.join(known)}.")
        given = {name: weight for name, weight in weights.items() if weight > 0}
        if not given:
            raise RecipeError("mixture: at least one weight must be above 0.")
        exact = np.array(list(given.values())) * (BLOCK / sum(given.values()))
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: BLOCK - counts.sum()]] += 1  # the largest remainders
        for name, count in zip(given, counts, strict=True):
            if count < 1:
                raise RecipeError(
                    f"mixture.{name}: {given[name]} is less than one sequence in {BLOCK}. Raise it or drop it."
                )
        return cls(tuple(given), tuple(counts.tolist()), seed)

    def place(self, number: int) -> tuple[int, int]:
        """Which domain sequence `number` of the run comes from, and which of that domain's sequences it is."""
        block, slot = divmod(number, BLOCK)
        domains, ranks = _block(self.counts, self.seed, block)
        domain = int(domains[slot])
        return domain, block * self.counts[domain] + int(ranks[slot])

    def drawn(self, sequences: int) -> list[int]:
        """How many of the first so many sequences come from each domain."""
        blocks, rest = divmod(sequences, BLOCK)
        part = np.bincount(_block(self.counts, self.seed, blocks)[0][:rest], minlength=len(self.counts))
        return [blocks * count + int(more) for count, more in zip(self.counts, part, strict=True)]


@lru_cache(maxsize=2)  # a batch can lie across two blocks
def _block(counts: tuple[int, ...], seed: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The domain of each slot of a block, and its rank among the slots of its domain."""
    domains = np.random.default_rng((seed, block, BLOCK)).permutation(np.repeat(np.arange(len(counts)), counts))
    ranks = np.zeros(BLOCK, np.int64)
    for domain in range(len(counts)):
        ranks[domains == domain] = np.arange(counts[domain])
    return domains, ranks


def check_epochs(epochs: Mapping[str, float], most: float | None) -> None:
    """Refuse a run that would read some text more often than the recipe allows: the data is exhausted."""
    for name, passes in epochs.items():
        if most is not None and passes > most:
            what = f"domain {name}" if name else "the text"
            raise DataError(f"{what} would be read {passes:.2f} times, max_epochs is {most:g}. Add text or lower tokens.")
