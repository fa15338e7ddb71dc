"""A document read once for all rules: its tokens, its lines, the runs of tokens that stand in it twice.

A token is what `ngrams` says it is (a word, a Chinese character, a mark), but found in numpy over code points: no rule
makes a string of a word. Each part is made when the first rule asks for it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.corpus.documents import Document
from alignment.corpus.ngrams import CJK, Hashes, Windows

SPACE, WORD, CHINESE, MARK = range(4)  # what a code point is to a tokenizer; CHINESE also stands for kana and hangul
LETTER = 4  # added to those that are letters
CHARACTERS_PER_WORD = 2  # of Chinese, where a rule counts words (our choice: two-character words are the most frequent)
CODE = "code"  # in domains whose name holds this, the rules for prose do not apply
SHIFT = np.uint64(29)
PLACE = np.uint64(21)  # a code point has 21 bits

Places = NDArray[np.int64]


class Repeated(NamedTuple):
    """Runs that stand more than once: where each begins (in order), which is which, and whether it is the first such."""

    starts: Places
    group: Places
    first: NDArray[np.bool_]
    most: int  # how often the most frequent one stands; at most 1 where none stands twice
    top: int  # where that one begins first


class Reading:
    """A document and what rules ask about it."""

    def __init__(self, document: Document) -> None:
        self.document, self.text = document, document.text
        self._repeated: dict[int, Repeated] = {}

    @cached_property
    def codes(self) -> NDArray[np.uint32]:
        """The code points."""
        return np.frombuffer(self.text.encode("utf-32-le"), np.uint32)

    @cached_property
    def kinds(self) -> NDArray[np.uint8]:
        """What each character is."""
        return _kinds()[self.codes]

    @cached_property
    def visible(self) -> int:
        """Characters that are not white space."""
        return int(np.count_nonzero(self.kinds))

    @cached_property
    def letters(self) -> int:
        """Letters of any script."""
        return int(np.count_nonzero(self.kinds & LETTER))

    @cached_property
    def symbols(self) -> int:
        """Marks, and the underscore."""
        return int(np.count_nonzero(self.kinds == MARK)) + self.text.count("_")

    @cached_property
    def tokens(self) -> tuple[Places, Places]:
        """Where each token begins and ends."""
        kind = self.kinds & 3
        single, word = kind >= CHINESE, kind == WORD
        edges = np.diff(np.concatenate([[False], word, [False]]).astype(np.int8))
        starts = np.flatnonzero(single | (edges[:-1] == 1))
        ends = np.flatnonzero(single | (edges[1:] == -1)) + 1
        return starts, ends

    @cached_property
    def word_starts(self) -> Places:
        """Where white space ends."""
        visible = self.kinds != SPACE
        return np.flatnonzero(visible & ~np.concatenate([[False], visible[:-1]]))

    @cached_property
    def lengths(self) -> Places:
        """Characters of each token."""
        starts, ends = self.tokens
        return ends - starts

    @cached_property
    def token_kinds(self) -> NDArray[np.uint8]:
        """What each token is."""
        kinds: NDArray[np.uint8] = self.kinds[self.tokens[0]] & np.uint8(3)
        return kinds

    @cached_property
    def counts(self) -> list[int]:
        """Tokens by kind."""
        counts: list[int] = np.bincount(self.token_kinds, minlength=4).tolist()
        return counts

    @property
    def words(self) -> int:
        """Words: what is written with spaces, and Chinese characters by two."""
        return self.counts[WORD] + self.counts[CHINESE] // CHARACTERS_PER_WORD

    @property
    def units(self) -> int:
        """Words and marks, at least one."""
        return max(self.words + self.counts[MARK], 1)

    @cached_property
    def chinese(self) -> bool:
        """Whether most tokens are characters of a script without spaces."""
        return self.counts[CHINESE] > self.counts[WORD]

    @cached_property
    def hashes(self) -> Hashes:
        """A hash of each token, upper and lower case apart."""
        return _hashes(self.codes, *self.tokens)

    @cached_property
    def lower(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    @cached_property
    def folded(self) -> Hashes:
        """A hash of each token in lower case: what lists and classifiers compare."""
        return self.hashes if self.lower == self.text else Reading(replace(self.document, text=self.lower)).hashes

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank."""
        return [line for line in self.text.split("\n") if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What blank lines set apart."""
        return [part for paragraph in self.text.split("\n\n") if (part := paragraph.strip())]

    @cached_property
    def clauses(self) -> tuple[int, int]:
        """Stretches between marks and line ends: how many, and their characters."""
        lines = self.codes == ord("\n")
        stop = ((self.kinds == MARK) | lines)[(self.kinds != SPACE) | lines]
        begins = int(np.count_nonzero(~stop[1:] & stop[:-1])) + bool(len(stop) and not stop[0])
        return begins, len(stop) - int(np.count_nonzero(stop))

    def repeated(self, length: int) -> Repeated:
        """The runs of so many tokens that stand in the text more than once."""
        if length not in self._repeated:
            shorter = max((known for known in self._repeated if known < length), default=0)
            if shorter:
                starts = self._repeated[shorter].starts  # a longer run can only repeat where a shorter one does
                starts = starts[starts + length <= len(self.hashes)]
                grams = self._windows.at(starts, length)
            else:
                grams = self._windows.of(length)
                starts = np.arange(len(grams))
            self._repeated[length] = _repeated(*_crowded(starts, grams))
        return self._repeated[length]

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self.hashes)

    @cached_property
    def _written(self) -> Places:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def run_characters(self, starts: Places | int, length: int) -> Any:
        """Characters of the tokens in runs of so many, without what stands between them."""
        return self.characters_between(starts, starts + length)

    def characters_between(self, starts: Places | int, ends: Places | int) -> Any:
        """Characters of the tokens from one to before another."""
        return self._written[ends] - self._written[starts]


def word_hash(text: str) -> int:
    """The hash that a token has in a reading."""
    (value,) = Reading(Document("", text, "", "", "")).hashes.tolist()
    return int(value)


def _crowded(starts: Places, grams: Hashes) -> tuple[Places, Hashes]:
    """Leave out most runs that stand once: those alone in their cell of a small table."""
    bits = max(len(grams).bit_length() + 2, 8)
    cells = (grams >> np.uint64(64 - bits)).astype(np.int64)
    shared = np.bincount(cells, minlength=1 << bits)[cells] > 1
    return starts[shared], grams[shared]


def _repeated(starts: Places, grams: Hashes) -> Repeated:
    if not len(grams):
        return Repeated(starts, starts, np.zeros(0, np.bool_), 0, 0)
    order = np.argsort(grams)
    ordered = grams[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(begins, append=len(grams))
    earliest = np.minimum.reduceat(order, begins)
    group = np.empty(len(grams), np.int64)
    group[order] = np.repeat(np.arange(len(begins)), counts)
    first = np.zeros(len(grams), np.bool_)
    first[earliest] = True
    twice = counts[group] > 1
    most = int(counts.max())
    top = int(starts[earliest[counts == most].min()])
    return Repeated(starts[twice], group[twice], first[twice], most, top)


def _hashes(codes: NDArray[np.uint32], starts: Places, ends: Places) -> Hashes:
    """Sum over each token its code points, each mixed with its place in the token."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    lengths = ends - starts
    first = np.cumsum(lengths) - lengths  # where each token begins once what stands between them is left out
    place = np.arange(int(lengths.sum())) - np.repeat(first, lengths)
    inside = codes[np.repeat(starts, lengths) + place].astype(np.uint64)
    return _spread(np.add.reduceat(_spread(inside + (place.astype(np.uint64) + np.uint64(1) << PLACE)), first))


def _spread(values: Hashes) -> Hashes:
    values = (values ^ (values >> SHIFT)) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> SHIFT)


@cache
def _kinds() -> NDArray[np.uint8]:
    """The kind of every code point, by the expressions that `ngrams` cuts words with."""
    every = "".join(map(chr, range(0x110000)))
    table = np.full(len(every), MARK, np.uint8)
    for pattern, kind in ((r"\s+", SPACE), (r"\w+", WORD), (rf"[{CJK}]+", CHINESE)):
        for found in re.finditer(pattern, every):
            table[found.start() : found.end()] = kind
    for found in re.finditer(r"[^\W\d_]+", every):
        table[found.start() : found.end()] |= LETTER
    return table
