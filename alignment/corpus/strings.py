"""Text that documents repeat, below the level of whole documents: lines, and long runs of tokens (DeepSeek LLM README 4).

The first document that holds a line or run keeps it, the others lose it. Code is left whole: a program with a hole is none.
Here stands what is looked at in a document, and how it is cut; `repeats` finds what several documents hold.

Windows are chosen by their content (winnowing, Schleimer et al. 2003): of STRIDE windows that begin one after another the
one with the least hash, so two documents that share a run of run_tokens + STRIDE - 1 tokens have chosen one window alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from alignment import section
from alignment.corpus import column, dedup, ngrams, tokens
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Hashes
from alignment.corpus.reading import MARK, Reading

STRIDE = 16  # a power of two
BATCH = 300_000  # characters that are scanned at once
LIKELY_BITS = 22
REST = np.uint64(64 - LIKELY_BITS)
LINE = re.compile(r"[^\n]+\n?")
SIGNS = np.array([ord(sign) for sign in ngrams.SIGN.strip("[]")], np.uint32)

Rows = NDArray[np.int64]
Span = tuple[int, int]


@dataclass(frozen=True)
class Scanned:
    """A text, the hashes of its tokens, and its name: after exact deduplication no two documents have the same."""

    text: str
    tokens: Hashes
    name: int

    def windows(self, length: int) -> Hashes:
        """Hash all windows of so many tokens."""
        return ngrams.Windows(self.tokens).of(length)

    def lines(self, least: int) -> Iterator[tuple[Span, int]]:
        """Find the lines of so many characters: where, and the hash of what they say."""
        for line in LINE.finditer(self.text):
            begin, end = line.span()
            if end - begin >= least and len(said := " ".join(line[0].split())) >= least:
                yield (begin, end), xxh3_64_intdigest(said.lower().encode("utf-8", "surrogatepass"))


def scan(texts: list[str]) -> Iterator[Scanned]:
    """Scan some texts at once; each is on its own."""
    found = tokens.scan(texts)
    for text, digest, (begin, end) in zip(texts, found.digests, pairwise(found.offsets.tolist()), strict=True):
        yield Scanned(text, found.hashes[begin:end], int.from_bytes(digest[:8], "little"))


def scanned(documents: Iterable[Document]) -> Iterator[Scanned]:
    """Scan all documents that are not code."""
    held: list[str] = []
    size = 0
    for document in documents:
        if dedup.CODE not in document.domain:
            held.append(document.text)
            size += len(document.text)
        if size > BATCH:
            yield from scan(held)
            held, size = [], 0
    yield from scan(held)


def chosen(windows: Hashes) -> Hashes:
    """Choose of each STRIDE windows in a row the least, once for rows that share it; of fewer the least of all."""
    if len(windows) < STRIDE:
        return windows[np.argmin(windows) :][:1] if len(windows) else windows
    least, width = windows, 1
    while width < STRIDE:
        least = np.minimum(least[:-width], least[width:])
        width *= 2
    again: NDArray[np.bool_] = np.append(False, least[1:] == least[:-1])
    return least[~again]


# -- cutting ----------------------------------------------------------------------------------------------------------


class Lookup:
    """Hashes that several documents hold, each with the name of the first of these, as `repeats` wrote them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.hashes, self.names = (column.load(folder, part, np.uint64) for part in (name, names_of(name)))
        self.likely = np.zeros(1 << LIKELY_BITS, np.bool_)  # by its first bits: most are told from all that are here
        for begin in range(0, len(self.hashes), 1 << 20):
            self.likely[self.hashes[begin : begin + (1 << 20)] >> REST] = True

    def holds(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these hashes are here."""
        found: NDArray[np.bool_] = self.likely[hashes >> REST]
        maybe = np.flatnonzero(found)
        at = np.searchsorted(self.hashes, hashes[maybe]).clip(max=len(self.hashes) - 1)
        found[maybe] = self.hashes[at] == hashes[maybe]
        return found

    def foreign(self, hashes: Hashes, name: int) -> NDArray[np.bool_]:
        """Which of these hashes are here, and of another document first."""
        found = self.holds(hashes)
        at = np.flatnonzero(found)
        found[at] = self.names[np.searchsorted(self.hashes, hashes[at])] != np.uint64(name)
        return found


def names_of(name: str) -> str:
    """What the column is called that says of each hash of a column which document holds it."""
    return f"{name}_names"


def cutter(words: section.Strings, lines: Path, runs: Path) -> Callable[[Document], tuple[Document, Counter[str]]]:
    """Return what takes from a document all that one before it holds, and counts what it took.

    `lines` and `runs` are the folders in which lies what several documents hold.
    """
    known_lines, known_runs = Lookup(lines, "lines"), Lookup(runs, "runs")

    def cut(document: Document) -> tuple[Document, Counter[str]]:
        if dedup.CODE in document.domain:
            return document, Counter()
        (found,) = scan([document.text])
        each = list(found.lines(words.line_characters))
        foreign = known_lines.foreign(np.array([value for _, value in each], np.uint64), found.name)
        spans = [span for (span, _), gone in zip(each, foreign, strict=True) if gone]
        begins = np.flatnonzero(known_runs.foreign(found.windows(words.run_tokens), found.name))
        stretches = list(_stretches(document, len(found.tokens), begins, words.run_tokens)) if len(begins) else []
        if not spans and not stretches:
            return document, Counter()
        text = _without(document.text, [*spans, *stretches])
        counts = Counter(lines=len(spans), runs=len(stretches), characters=len(document.text) - len(text))
        return replace(document, text=text), counts

    return cut


def _stretches(document: Document, tokens_: int, begins: Rows, length: int) -> Iterator[Span]:
    """Characters from the first to the last token of every stretch of runs, which begin at these tokens."""
    starts, ends = spans_of_tokens(document)
    if len(starts) != tokens_:
        return  # a dotted capital I is two tokens in lower case: spans would be shifted
    covered = np.zeros(len(starts) + 2, np.int64)
    np.add.at(covered, begins + 1, 1)
    np.add.at(covered, begins + 1 + length, -1)
    inside = np.cumsum(covered) > 0
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    for first, behind in edges.reshape(-1, 2).tolist():
        yield int(starts[first]), int(ends[behind - 1])


def spans_of_tokens(document: Document) -> tuple[Rows, Rows]:
    """Where the tokens of `ngrams.WORDS` begin and end: those of a reading without the marks that are no signs."""
    reading = Reading(document)
    starts, ends = reading.tokens
    kept = (reading.token_kinds != MARK) | np.isin(reading.codes[starts], SIGNS)
    return starts[kept], ends[kept]


def _without(text: str, spans: list[Span]) -> str:
    parts, done = [], 0
    for begin, end in sorted(spans):
        parts.append(text[done : max(begin, done)])
        done = max(done, end)
    return "".join([*parts, text[done:]])
