"""Runs of n tokens as 64-bit numbers: what deduplication and decontamination compare.

A token is a word, a sign of arithmetic (4 + 2 is not 4 x 2), or a single Chinese, Japanese or Korean character, which
have no spaces to cut at; in code every mark counts. A prefix sum of powers gives the hash of any window of any length
in two numpy operations, as in Rabin and Karp. Two different runs share a hash with a probability of about 2**-64.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

Hashes = NDArray[np.uint64]

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
LETTERS = rf"[^\W{CJK}]+"  # and digits
SIGN, MARK = "[-+*/×÷=<>%^]", r"[^\w\s]"
WORDS = re.compile(f"[{CJK}]|{LETTERS}|{SIGN}")
WORDS_AND_MARKS = re.compile(f"[{CJK}]|{LETTERS}|{MARK}")

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(BASE, -1, 2**64)


@lru_cache(maxsize=1 << 20)
def _hash(token: str) -> int:
    return xxh3_64_intdigest(token.encode())


def words(text: str, *, marks: bool = False) -> list[str]:
    """Cut lower-cased text into tokens."""
    return (WORDS_AND_MARKS if marks else WORDS).findall(text.lower())


def hashes(tokens: list[str]) -> Hashes:
    """Hash each token on its own."""
    return np.fromiter(map(_hash, tokens), dtype=np.uint64, count=len(tokens))


def distinct(values: Hashes) -> Hashes:
    """Sort hashes and drop repetitions: np.unique, which in numpy 2.4 is eight times slower on some thousand numbers."""
    ordered = np.sort(values)
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


class Windows:
    """All windows of a token sequence, by length."""

    def __init__(self, tokens: Hashes) -> None:
        weighted = tokens * _powers(BASE, len(tokens))
        self.prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])

    def of(self, length: int) -> Hashes:
        """Hash every window of this length, in order of its start; empty where the text is shorter."""
        count = len(self.prefix) - length
        if count <= 0:
            return np.zeros(0, np.uint64)
        return mixed((self.prefix[length:] - self.prefix[:count]) * _powers(INVERSE, count))

    def at(self, starts: NDArray[np.int64], length: int) -> Hashes:
        """Hash the windows of this length that begin at `starts`; all must fit."""
        return mixed((self.prefix[starts + length] - self.prefix[starts]) * _powers(INVERSE, len(self.prefix))[starts])


def mixed(values: Hashes) -> Hashes:
    """Spread the bits (the finaliser of splitmix64): low bits of a polynomial hash alone are weak."""
    found = values >> np.uint64(30)
    found ^= values
    found *= np.uint64(0xBF58476D1CE4E5B9)
    found ^= found >> np.uint64(27)
    found *= np.uint64(0x94D049BB133111EB)
    found ^= found >> np.uint64(31)
    return found


_tables: dict[int, Hashes] = {}


def _powers(base: int, count: int) -> Hashes:
    """The first powers of a base modulo 2**64, from a table that grows."""
    table = _tables.get(base)
    if table is None or len(table) < count:
        factors = np.full(max(1 << 16, 2 * count), base, dtype=np.uint64)
        factors[0] = 1
        table = _tables[base] = np.cumprod(factors, dtype=np.uint64)
    return table[:count]
