"""Evaluation items cut into pieces and looked for in texts: which runs of an item, and which whole items, stand where.

A run is 13 words (a Chinese character counts as one), or 50 characters (20 of a Chinese item) with white space and marks
left out: words stand whatever the marks, characters also where words were cut or joined otherwise. Signs of arithmetic
stay in both, 4 + 2 is not 4 x 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus import ngrams, tokens
from alignment.corpus.ngrams import CJK, Hashes, Windows
from alignment.corpus.spans import BETWEEN, Match

RUN = 13  # words; an item shorter than this is matched whole
RUN_CHARACTERS, RUN_CHINESE = 50, 20  # an item shorter than that is left to its words

SPARE = 5  # bits

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Item:
    """An evaluation item: its whole question. `group` tells apart what is expected to overlap from what must not."""

    id: str
    text: str
    group: str


@dataclass(frozen=True)
class Shared:
    """What the documents share with one item. `longest` counts the pieces in unbroken shared runs."""

    item: str
    group: str
    tokens: int
    exact: bool
    longest: int


def words(texts: Sequence[str]) -> list[Hashes]:
    """Hash the words of each text."""
    found = tokens.scan(texts)
    return np.split(found.hashes, found.offsets[1:-1])


def characters(texts: Sequence[str]) -> list[Hashes]:
    """Hash the characters of each text that words are made of."""
    kept = [BETWEEN.sub("", text.lower()) for text in texts]
    return [ngrams.mixed(np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)) for text in kept]


def run_of_characters(text: str, pieces: int) -> int:
    """How many characters of an item make a run; 0: too short to be told by its characters."""
    chinese = 2 * len(re.findall(f"[{CJK}]", text)) > pieces
    length = RUN_CHINESE if chinese else RUN_CHARACTERS
    return length if pieces >= length else 0


Cut = Callable[[Sequence[str]], list[Hashes]]
KINDS: dict[str, tuple[Cut, Callable[[str, int], int]]] = {
    "word": (words, lambda _, pieces: min(RUN, pieces)),
    "character": (characters, run_of_characters),
}


class Search:
    """All items cut into one kind of pieces, and what of them was found so far."""

    def __init__(self, kind: str, items: Sequence[Item]) -> None:
        self.kind, self.items = kind, items
        self.cut, run = KINDS[kind]
        cut = self.cut([item.text for item in items]) if items else []
        self.sizes = [len(pieces) for pieces in cut]
        self.lengths = [run(item.text, size) for item, size in zip(items, self.sizes, strict=True)]
        windows = [Windows(pieces) for pieces in cut]
        self.runs = [
            w.of(length) if length else np.zeros(0, np.uint64) for w, length in zip(windows, self.lengths, strict=True)
        ]
        self.wholes = [w.of(size)[:1] for w, size in zip(windows, self.sizes, strict=True)]
        self.exact = np.zeros(len(items), np.bool_)
        self.tables = {}
        for length in sorted({length for length in self.lengths if length}):
            mine = [item for item, other in enumerate(self.lengths) if other == length]
            self.tables[length] = Table(length, np.concatenate([self.runs[item] for item in mine]))
        self.begun: dict[tuple[int, int], list[int]] = {}  # by length and first run: the items that begin so
        for item, (runs, length) in enumerate(zip(self.runs, self.lengths, strict=True)):
            if length:
                self.begun.setdefault((length, int(runs[0])), []).append(item)

    def look(self, texts: Sequence[str]) -> tuple[dict[int, list[Match]], dict[int, int]]:
        """Find per text the items it contains whole and one run of each, and how many places share a run."""
        parts = self.cut(texts)
        ends = np.cumsum([len(part) + 1 for part in parts])
        begins = ends - [len(part) + 1 for part in parts]
        # One sequence; a zero between texts keeps runs from crossing.
        joined = np.concatenate([np.append(part, np.uint64(0)) for part in parts])
        windows = Windows(joined)
        matches: dict[int, list[Match]] = {}
        shared: dict[int, int] = {}
        for length, table in self.tables.items():
            hits, grams = table.hits(windows)
            owners = np.searchsorted(ends, hits, side="right")
            for owner, first, count in zip(*np.unique(owners, return_index=True, return_counts=True), strict=True):
                text, place = int(owner), int(hits[first])
                shared[text] = shared.get(text, 0) + int(count)
                item = table.owner(grams[first], self.runs, self.lengths)
                matches.setdefault(text, []).append(Match(self.kind, item, place - int(begins[text]), length, whole=False))
            for place, gram in zip(hits.tolist(), grams.tolist(), strict=True):
                for item in self.begun.get((length, gram), ()):
                    size, text = self.sizes[item], int(np.searchsorted(ends, place, side="right"))
                    if place + size < ends[text] and windows.at(np.array([place]), size)[0] == self.wholes[item][0]:
                        self.exact[item] = True
                        matches.setdefault(text, []).append(
                            Match(self.kind, item, place - int(begins[text]), size, whole=True)
                        )
        return matches, shared

    def shared(self) -> list[Shared]:
        """Say item by item what was found."""
        return [self._shared(number) for number in range(len(self.items))]

    def _shared(self, number: int) -> Shared:
        item, length = self.items[number], self.lengths[number]
        found = self.tables[length].was_found(self.runs[number]) if length else np.zeros(0, np.bool_)
        stretches = [sum(1 for _ in same) for hit, same in groupby(found.tolist()) if hit]
        longest = max(stretches) + length - 1 if stretches else 0
        return Shared(item.id, item.group, self.sizes[number], bool(self.exact[number]), longest)

    def plain(self) -> dict[str, Any]:
        """Say in plain data what was found."""
        found = {str(length): np.flatnonzero(table.found).tolist() for length, table in self.tables.items()}
        return {"found": found, "exact": np.flatnonzero(self.exact).tolist()}

    def add(self, plain: Mapping[str, Any]) -> None:
        """Take up what another search for the same items found."""
        for length, found in plain["found"].items():
            self.tables[int(length)].found[found] = True
        self.exact[plain["exact"]] = True


class Table:
    """The runs of all items of one length, and which of them were found in a document."""

    def __init__(self, length: int, runs: Hashes) -> None:
        self.length, self.runs = length, np.unique(runs)
        self.found = np.zeros(len(self.runs), np.bool_)
        bits = len(self.runs).bit_length() + SPARE
        self.rest = np.uint64(64 - bits)
        self.likely = np.zeros(1 << bits, np.bool_)  # by its first bits: most windows are told from all runs by these
        self.likely[self.runs >> self.rest] = True
        self._owner: dict[int, int] | None = None

    def hits(self, windows: Windows) -> tuple[Places, Hashes]:
        """Where in a sequence a run of some item begins, and which."""
        grams = windows.of(self.length)
        maybe = np.flatnonzero(self.likely[grams >> self.rest])
        place = np.searchsorted(self.runs, grams[maybe]).clip(max=len(self.runs) - 1)
        same = self.runs[place] == grams[maybe]
        self.found[place[same]] = True
        return maybe[same], grams[maybe[same]]

    def was_found(self, runs: Hashes) -> NDArray[np.bool_]:
        return self.found[np.searchsorted(self.runs, runs)]

    def owner(self, gram: np.uint64, runs: Sequence[Hashes], lengths: Sequence[int]) -> int:
        """The first item that has this run."""
        if self._owner is None:
            self._owner = {}
            for item, (mine, size) in enumerate(zip(runs, lengths, strict=True)):
                for run in mine.tolist() if size == self.length else ():
                    self._owner.setdefault(run, item)
        return self._owner[int(gram)]


def summary(items: Sequence[Shared]) -> dict[str, dict[str, int]]:
    groups = groupby(sorted(items, key=lambda shared: shared.group), key=lambda shared: shared.group)
    return {name: _counts(list(found)) for name, found in groups}


def _counts(items: Sequence[Shared]) -> dict[str, int]:
    return {
        "items": len(items),
        "exact": sum(shared.exact for shared in items),
        "sharing_runs": sum(shared.longest > 0 for shared in items),
        "longest_run": max(shared.longest for shared in items),
    }
