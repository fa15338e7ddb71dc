"""Exact and near duplicates, sought over all dumps together (paper 2.1, Table 1).

Exact: equal after lower-casing and folding white space; the first stays. Near: documents that agree in a band of their
MinHash signatures are candidates, and a candidate pair counts only if the exact Jaccard similarity of the two sets of
n-grams reaches the threshold. Pairs are joined transitively, and a rule says which of each cluster stays. Pairs are
joined in the order of their later member, so the number of joins up to any document is what deduplication would have
removed had the corpus ended there: the curve of the paper's Table 1, and why a new dump can be held against a kept index.

Memory: some 60 bytes a document, and the candidate pairs of one band; those of all bands may lie on disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from alignment.corpus import minhash, ngrams, tokens
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Hashes
from alignment.errors import DataError

CODE = "code"  # in domains whose name holds this, marks are tokens too
WINDOW = 256  # in a band's bucket a document meets this many before it: a bucket of thousands costs no square
BLOCK = 4096  # documents whose candidates of all bands are joined at once
HELD = 1 << 23  # shingles of candidates that are held at once

Places = NDArray[np.int64]
Rule = Literal["longest", "newest", "best", "first"]


class Sets(Protocol):
    """Documents as sorted sets of n-grams: what they are compared by, exactly."""

    counts: Places

    def grams(self, position: int) -> Hashes: ...


@dataclass(frozen=True)
class Clusters:
    """By position: the cluster's smallest position, and how many clusters the document joined to one before it."""

    root: Places
    joins: Places
    candidates: int
    verified: int


# -- exact ------------------------------------------------------------------------------------------------------------


def digest(text: str) -> bytes:
    """Digest a text up to case and white space (16 bytes)."""
    return xxh3_128_digest(" ".join(text.lower().split()).encode("utf-8", "surrogatepass"))


def first_equal(digests: Hashes) -> Places:
    """Find for each position the first with the same digest (N x 2); itself where it is the first."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal digests stay in the order of their positions
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return first


# -- near -------------------------------------------------------------------------------------------------------------


def cluster(
    found: minhash.Store,
    threshold: float,
    among: NDArray[np.bool_] | None = None,
    kept: Places | None = None,
    scratch: Path | None = None,
) -> Clusters:
    """Join documents whose Jaccard similarity reaches the threshold, of those that share a band.

    `among` False: takes no part. `kept`: the roots of an earlier run for the first positions, which are not compared with
    each other again. `scratch`: a folder for the candidates, which are else held in memory.
    """
    size = len(found.counts)
    if size >= 2**32:
        raise DataError(f"near: {size:,} documents in one step; 4,294,967,295 are the most. Deduplicate in parts.")
    taking = np.flatnonzero((found.counts > 0) & (True if among is None else among))
    before = 0 if kept is None else len(kept)
    bands = [_stored(_pairs(found.keys(band)[taking], taking, before), scratch, band) for band in range(found.bands)]
    groups = _Groups(size, kept)
    joins = np.zeros(size, np.int64)
    close = _Close(found, threshold)
    candidates = verified = 0
    for pairs in _in_order(bands, size):
        candidates += len(pairs)
        for pair in pairs.tolist():
            later, earlier = pair >> 32, pair & 0xFFFFFFFF
            if groups.find(earlier) != groups.find(later) and close(earlier, later):
                groups.join(earlier, later)
                joins[later] += 1
                verified += 1
    return Clusters(groups.roots(), joins, candidates, verified)


def _pairs(keys: Hashes, positions: Places, before: int) -> Hashes:
    """Pairs that share a key, as later * 2**32 + earlier, in order; none of two positions below `before`."""
    order = np.argsort(keys, kind="stable")
    bucket, members = keys[order], positions[order]
    found = [np.zeros(0, np.uint64)]
    left = np.arange(len(order))  # those whose bucket goes on at this distance
    for distance in range(1, min(WINDOW, len(order) - 1) + 1):
        left = left[: np.searchsorted(left, len(order) - distance)]
        left = left[bucket[left + distance] == bucket[left]]
        if not len(left):
            break
        later = members[left + distance]
        new = later >= before
        found.append((later[new] << 32 | members[left[new]]).astype(np.uint64))
    pairs = np.concatenate(found)
    pairs.sort()
    return pairs


def _stored(pairs: Hashes, scratch: Path | None, band: int) -> Hashes:
    if scratch is None or not len(pairs):
        return pairs
    file = scratch / f"candidates-{band:03d}"
    pairs.tofile(file)
    mapped = np.memmap(file, np.uint64, "r")
    file.unlink()  # the mapping keeps it
    return mapped


def _in_order(bands: Sequence[Hashes], size: int) -> Iterator[Hashes]:
    """The pairs of all bands, each once, by their later member."""
    borders = np.array([*range(0, size, BLOCK), size], np.uint64) << np.uint64(32)
    cuts = [np.searchsorted(band, borders).tolist() for band in bands]
    for block in range(len(borders) - 1):
        pairs = [band[cut[block] : cut[block + 1]] for band, cut in zip(bands, cuts, strict=True)]
        yield ngrams.distinct(np.concatenate(pairs))


class _Close:
    """Whether two documents are as similar as the threshold asks. Recent sets are held."""

    def __init__(self, found: Sets, threshold: float) -> None:
        self.found, self.threshold = found, threshold
        self.sets: dict[int, Hashes] = {}
        self.held = 0

    def __call__(self, earlier: int, later: int) -> bool:
        return jaccard(self._set(earlier), self._set(later)) >= self.threshold

    def _set(self, position: int) -> Hashes:
        if position not in self.sets:
            if self.held > HELD:
                self.sets.clear()
                self.held = 0
            self.sets[position] = self.found.grams(position)
            self.held += len(self.sets[position])
        return self.sets[position]


def jaccard(left: Hashes, right: Hashes) -> float:
    """Shared share of two sorted sets. Two empty sets share nothing that could be judged."""
    both = np.concatenate([left, right])
    both.sort(kind="stable")  # merges two sorted runs
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(len(both) - shared, 1)


class _Groups:
    """Union-find; a group's root is its smallest member."""

    def __init__(self, size: int, kept: Places | None) -> None:
        self.parent = array("q", np.arange(size, dtype=np.int64).tobytes())
        if kept is not None:
            self.parent[: len(kept)] = array("q", kept.astype(np.int64).tobytes())

    def find(self, member: int) -> int:
        parent = self.parent
        while parent[member] != member:
            parent[member] = member = parent[parent[member]]
        return member

    def join(self, left: int, right: int) -> None:
        low, high = sorted((self.find(left), self.find(right)))
        self.parent[high] = low

    def roots(self) -> Places:
        root = np.array(self.parent, np.int64)
        while len(moved := np.flatnonzero(root[root] != root)):
            root[moved] = root[root[moved]]
        return root


def survivors(
    clusters: Clusters,
    rule: Rule,
    lengths: NDArray[np.float64] | None = None,
    dates: NDArray[np.float64] | None = None,
    quality: NDArray[np.float64] | None = None,
) -> Places:
    """Find for each position the document of its cluster that stays: itself, if it does. Of equals the first stays.

    What is not known (nan) comes after all that is.
    """
    root = clusters.root
    by = {"longest": lengths, "newest": dates, "best": quality, "first": np.zeros(len(root))}[rule]
    if by is None:
        raise DataError(f"near.keep: {rule}, and nothing to tell it by. Give lengths, dates or quality.")
    order = np.lexsort((-np.nan_to_num(by.astype(np.float64), nan=-np.inf), root))  # stable: of equals the first
    begins = np.ones(len(order), np.bool_)
    begins[1:] = root[order[1:]] != root[order[:-1]]
    stays = np.empty(len(order), np.int64)
    stays[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
    return stays


def shingles(document: Document, n: int) -> Hashes:
    """The sorted set of a document's n-grams: of words, of characters in Chinese, of words and marks in code."""
    found = tokens.scan([document.text], marks=CODE in document.domain)
    return ngrams.distinct(minhash.shingles(found, n)[0])
