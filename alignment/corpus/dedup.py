"""Exact and near duplicates, sought over all dumps together (paper 2.1, Table 1).

Exact: equal after lower-casing and folding white space; the first stays. Near: MinHash signatures are cut into bands,
documents that agree in a band are candidates, and a candidate pair counts only if the exact Jaccard similarity of the
two sets of n-grams reaches the threshold. Pairs are joined transitively; of each group the longest text stays and, of
equally long ones, the smallest id. Pairs are joined in the order of their later member, so the number of joins up to
any document is what deduplication would have removed had the corpus ended there: the curve of the paper's Table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash
from xxhash import xxh3_128_digest

from alignment.corpus import ngrams
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Hashes
from alignment.errors import RecipeError

CODE = "code"  # in domains whose name holds this, marks are tokens too
WINDOW = 256  # in a band's bucket a document meets this many before it: a bucket of thousands costs no square


@dataclass(frozen=True)
class Duplicates:
    """What a search found, by position: the survivor of each lost document, and whether the document was a join."""

    survivor: dict[int, int]
    joins: NDArray[np.bool_]
    pairs: int = 0
    candidates: int = 0


def exact(documents: Sequence[Document]) -> Duplicates:
    """Find documents equal to an earlier one up to case and white space."""
    first: dict[bytes, int] = {}
    survivor = {}
    for position, document in enumerate(documents):
        digest = xxh3_128_digest(" ".join(document.text.lower().split()).encode())
        if first.setdefault(digest, position) != position:
            survivor[position] = first[digest]
    joins = np.zeros(len(documents), np.bool_)
    joins[list(survivor)] = True
    return Duplicates(survivor, joins)


def near(documents: Sequence[Document], *, shingle: int, hashes: int, bands: int, threshold: float, seed: int) -> Duplicates:
    """Find documents whose n-grams have a Jaccard similarity of at least `threshold` with another's."""
    if hashes % bands:
        raise RecipeError(f"near: {hashes} hashes cannot be cut into {bands} equal bands. Use a divisor of {hashes}.")
    grams = [shingles(document, shingle) for document in documents]
    pairs = _candidates(_signatures(grams, hashes, seed), bands)
    groups = _Groups(len(documents))
    joins = np.zeros(len(documents), np.bool_)
    verified = 0
    for earlier, later in pairs.tolist():
        if groups.find(earlier) != groups.find(later) and jaccard(grams[earlier], grams[later]) >= threshold:
            groups.join(earlier, later)
            joins[later] = True
            verified += 1
    return Duplicates(_survivors(documents, groups), joins, verified, len(pairs))


def shingles(document: Document, n: int) -> Hashes:
    """The sorted set of a document's n-grams: of words, of characters in Chinese, of words and marks in code."""
    tokens = ngrams.hashes(ngrams.words(document.text, marks=CODE in document.domain))
    return np.unique(ngrams.Windows(tokens).of(min(n, max(len(tokens), 1))))


def jaccard(left: Hashes, right: Hashes) -> float:
    """Shared share of two sorted sets. Two empty sets share nothing that could be judged."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(len(left) + len(right) - shared, 1)


def _signatures(grams: Sequence[Hashes], hashes: int, seed: int) -> NDArray[np.uint32]:
    if not grams:
        return np.zeros((0, hashes), np.uint32)
    offsets = np.cumsum([0, *map(len, grams)], dtype=np.uint64)
    flat = np.concatenate(grams)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, hashes, seed).to_rows()
    return np.array(rows, dtype=np.uint32)


def _candidates(signatures: NDArray[np.uint32], bands: int) -> NDArray[np.int64]:
    """Pairs (earlier, later) that agree in a band, each once, ordered by the later."""
    found = [np.zeros((0, 2), np.int64)]
    for band in np.hsplit(signatures, bands) if len(signatures) else ():
        keys = np.ascontiguousarray(band).view(f"V{band.itemsize * band.shape[1]}").ravel()
        group = np.unique(keys, return_inverse=True)[1]
        members = np.argsort(group, kind="stable")
        bucket = group[members]
        for distance in range(1, min(WINDOW, len(members) - 1) + 1):
            same = bucket[distance:] == bucket[:-distance]
            if not same.any():
                break
            found.append(np.stack([members[:-distance][same], members[distance:][same]], axis=1))
    pairs = np.unique(np.concatenate(found)[:, ::-1], axis=0)  # sorted by the later member, then the earlier
    return pairs[:, ::-1]


class _Groups:
    """Union-find."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = member = self.parent[self.parent[member]]
        return member

    def join(self, left: int, right: int) -> None:
        self.parent[self.find(right)] = self.find(left)


def _survivors(documents: Sequence[Document], groups: _Groups) -> dict[int, int]:
    members: dict[int, list[int]] = {}
    for position in range(len(documents)):
        members.setdefault(groups.find(position), []).append(position)
    survivor = {}
    for group in members.values():
        best = min(group, key=lambda position: (-len(documents[position].text), documents[position].id))
        survivor.update({position: best for position in group if position != best})
    return survivor
