"""The tokens of many texts at once, as 64-bit numbers: those of `ngrams.words`, with no Python per word.

The texts lie one after another as UTF-8. A table says what each byte is part of; where a token begins and ends follows
from neighbouring bytes; the first eight bytes of all tokens are fetched as one array of numbers, longer tokens go on
from there. Tokens of up to eight bytes never share a number, others with a probability of about 2**-64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from alignment.corpus import ngrams
from alignment.corpus.ngrams import Hashes

# What a byte is, in bits. LOOK: the begin of a character whose bytes must be read; WIDE: of one of three bytes that is a
# token whatever the other two are; CASED: a capital.
WORD, BEGIN, END, SPACE, CASED, WIDE, LOOK = 1, 2, 4, 8, 16, 32, 64
WIDTHS = ((2, 0xC0, 0xE0), (3, 0xE0, 0xF0), (4, 0xF0, 0x100))  # bytes of a character, by its first byte
CODE_POINTS, PLANE = 0x40000, 0x10000  # letters lie in four planes, white space, signs and ngrams.CJK in the first
ASCII = 0x80
LONG = 48  # bytes; a longer token is hashed on its own
STEP = np.uint64(0x9E3779B97F4A7C15)
KEEP = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # masks the first so many bytes
BLANK = np.uint8(ord(" "))

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Tokens:
    """Hashes of the tokens of all texts; those of text i lie between offsets i and i + 1. Digests are of folded texts."""

    hashes: Hashes
    offsets: NDArray[np.int64]
    digests: list[bytes]


def scan(texts: Sequence[str], *, marks: bool = False) -> Tokens:
    """Hash the tokens of all texts, and each text with its case and white space folded."""
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    low, kinds, lowered = _joined(parts, marks)
    if not lowered:
        parts = [text.lower().encode("utf-8", "surrogatepass") for text in texts]
        low, kinds, _ = _joined(parts, marks)
    starts, lengths = _cut(kinds)
    borders = np.cumsum([0, *(len(part) + 1 for part in parts)])
    return Tokens(_hashed(low, starts, lengths), np.searchsorted(starts, borders), _digests(low, kinds, borders))


def _cut(kinds: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the tokens begin, and their bytes."""
    words = kinds & WORD
    turns = words.copy()  # a word begins here, or ended before
    turns[1:] ^= words[:-1]
    begins = turns & words
    turns ^= begins
    begins |= kinds & BEGIN
    turns[1:] |= kinds[:-1] & END
    turns[3:] |= kinds[:-3] & WIDE
    starts = np.flatnonzero(begins.view(np.bool_))
    return starts, np.flatnonzero(turns.view(np.bool_)) - starts


def _joined(parts: Sequence[bytes], marks: bool) -> tuple[Bytes, Bytes, bool]:
    """Join texts in lower case; say what each byte is part of, and whether all capitals could be lowered in place."""
    raw = b"\n".join([*parts, bytes(8)])  # eight bytes can be fetched from any token's begin
    codes = np.frombuffer(bytearray(raw.lower()), np.uint8)
    kinds = np.frombuffer(bytearray(raw.translate(_first_bytes(marks))), np.uint8)
    kinds[-8:] = 0
    leads = np.flatnonzero((kinds & LOOK).view(np.bool_))
    first, lowered = codes[leads], True
    for width, least, end in WIDTHS:
        here = leads[(first >= least) & (first < end)]
        if not len(here):
            continue
        points = (codes[here] & (0xFF >> width + 1)).astype(np.uint32)
        for place in range(1, width):
            points <<= np.uint32(6)
            points |= codes[here + place] & 0x3F
        found = _classes(marks).take(points, mode="clip")
        kinds[here] = found & (WORD | BEGIN | SPACE)
        for place in range(1, width - 1):
            kinds[here + place] = found & (WORD | SPACE)
        kinds[here + width - 1] = found & (WORD | END | SPACE)
        if len(capitals := np.flatnonzero(found & CASED)):
            lowered &= _lower(codes, here[capitals], _small().take(points[capitals]), width)
    return codes, kinds, lowered


def _lower(codes: Bytes, here: NDArray[np.int64], small: NDArray[np.uint32], width: int) -> bool:
    """Write small letters over capitals of `width` bytes; False where one of them has another width."""
    if not ((small >= (0, 0, 0x80, 0x800, 0x10000)[width]) & (small < (0, 0, 0x800, 0x10000, CODE_POINTS)[width])).all():
        return False
    for place in range(width - 1, 0, -1):
        codes[here + place] = 0x80 | small & 0x3F
        small = small >> np.uint32(6)
    codes[here] = codes[here] & (0xFF ^ 0xFF >> width + 1) | small
    return True


def _hashed(low: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Hashes:
    """Hash the tokens that begin at `starts`: eight bytes at a time."""
    eights = np.ndarray(len(low) - 7, "<u8", low, strides=(1,))
    hashes = eights[starts]
    hashes &= KEEP.take(lengths, mode="clip")
    hashes = ngrams.mixed(hashes)
    more = np.flatnonzero(lengths > 8)
    for place in range(8, LONG, 8):
        rest = KEEP.take(lengths[more] - place, mode="clip")
        hashes[more] = ngrams.mixed(hashes[more] * STEP + (eights[starts[more] + place] & rest))
        more = more[lengths[more] > place + 8]
        if not len(more):
            break
    for token in more.tolist():
        hashes[token] = xxh3_64_intdigest(low[starts[token] : starts[token] + lengths[token]].tobytes())
    return hashes


def _digests(low: Bytes, kinds: Bytes, borders: NDArray[np.int64]) -> list[bytes]:
    """Digest each text with its runs of white space as one space, and none at its ends."""
    spaces = kinds >> 3 & 1
    stays = spaces ^ 1
    stays[1:] |= spaces[:-1] ^ 1  # the first of a run
    folded, places = low ^ (low ^ BLANK) * spaces, stays.view(np.bool_)
    return [
        xxh3_128_digest(folded[begin : end - 1][places[begin : end - 1]].tobytes().strip(b" "))
        for begin, end in pairwise(borders.tolist())
    ]


@lru_cache
def _first_bytes(marks: bool) -> bytes:
    """What a byte is, as far as it says so itself."""
    classes = _classes(marks)
    found = np.zeros(256, np.uint8)
    found[:ASCII] = classes[:ASCII] & (WORD | BEGIN | END | SPACE)
    found[0xC0:] = LOOK
    for byte in range(0xE0, 0xF0):
        if (classes[byte % 16 << 12 :][: 1 << 12] == BEGIN | END).all():
            found[byte] = WIDE | BEGIN
    return found.tobytes()


@lru_cache
def _classes(marks: bool) -> Bytes:
    """What each code point is, by the patterns of `ngrams`. As a mark counts all that is nothing else."""
    if marks:
        found = _classes(False).copy()
        found[found & ~np.uint8(CASED) == 0] |= BEGIN | END
        return found
    every = np.arange(CODE_POINTS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    found = np.zeros(CODE_POINTS, np.uint8)
    for pattern, kind, end in (
        (ngrams.LETTERS, WORD, CODE_POINTS),
        (f"[{ngrams.CJK}]+|{ngrams.SIGN}", BEGIN | END, PLANE),
        (r"\s+", SPACE, PLANE),
    ):
        for run in re.finditer(pattern, every[:end]):
            found[run.start() : run.end()] |= kind
    found[_small() != np.arange(CODE_POINTS)] |= CASED
    return found


@lru_cache
def _small() -> NDArray[np.uint32]:
    """Each code point in lower case; 0 where that is two, or depends on its neighbours."""
    every = np.arange(CODE_POINTS, dtype="<u4")
    special = np.array([ord("İ"), ord("Σ")])
    every[special] = 0
    lower = every.tobytes().decode("utf-32-le", "surrogatepass").lower()
    return np.frombuffer(lower.encode("utf-32-le", "surrogatepass"), "<u4")
