"""What documents share with evaluation items: whole items, and runs of 13 tokens (a word, or a Chinese character).

Held-out sets have two halves. Items of templates that are trained with other values share long runs with training
text by nature: those are counted and reported. Items of templates that are never trained must share none: their count
is the proof. A document that contains a whole item is a leak in both and goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus import ngrams
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Hashes, Windows
from alignment.errors import DataError

RUN = 13  # tokens; an item shorter than this is matched whole
SHOTS = {"train", "dev"}  # files of worked examples for prompts: shown, not scored
SAMPLES = 5


@dataclass(frozen=True)
class Item:
    """An evaluation item: its whole question. `group` tells apart what is expected to overlap from what must not."""

    id: str
    text: str
    group: str


@dataclass(frozen=True)
class Shared:
    """What the documents share with one item. `longest` counts tokens in unbroken shared runs."""

    item: str
    group: str
    tokens: int
    exact: bool
    longest: int


@dataclass
class Overlap:
    """Per item what was found; per document (by position) how many runs it shares and which items it contains."""

    items: list[Shared]
    runs: dict[int, int] = field(default_factory=dict)
    contains: dict[int, list[str]] = field(default_factory=dict)
    samples: list[dict[str, str]] = field(default_factory=list)

    def summary(self) -> dict[str, dict[str, int]]:
        """Count per group: items, exact matches, items that share a run, and the longest run."""
        groups = groupby(sorted(self.items, key=lambda shared: shared.group), key=lambda shared: shared.group)
        return {name: _counts(list(items)) for name, items in groups}

    def report(self) -> dict[str, Any]:
        """Say it all in plain data."""
        flagged = [asdict(shared) for shared in self.items if shared.longest]
        return {
            "run_tokens": RUN,
            "groups": self.summary(),
            "documents_sharing_runs": len(self.runs),
            "documents_containing_items": len(self.contains),
            "longest": sorted(flagged, key=lambda shared: -shared["longest"])[:SAMPLES],
            "samples": self.samples,
        }


def _counts(items: Sequence[Shared]) -> dict[str, int]:
    return {
        "items": len(items),
        "exact": sum(shared.exact for shared in items),
        "sharing_runs": sum(shared.longest > 0 for shared in items),
        "longest_run": max(shared.longest for shared in items),
    }


def heldout(folder: Path) -> list[Item]:
    """Read the scored items of a folder of benchmarks in their own formats; `unseen` marks untrained templates."""
    files = sorted(path for path in folder.rglob("*.jsonl") if path.stem not in SHOTS)
    items = [item for path in files for item in _items(path, folder)]
    if not items:
        raise DataError(f"{folder}: no held-out items here. Does `against` name a run that writes heldout/?")
    return items


def _items(path: Path, folder: Path) -> Iterator[Item]:
    name = path.relative_to(folder).as_posix()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        question = row.get("question") or row.get("prompt")
        if not question:
            raise DataError(f"{path}, line {number}: neither `question` nor `prompt`. Is this an evaluation set?")
        choices = "".join(f"\n{letter}. {row[letter]}" for letter in "ABCD" if letter in row)
        yield Item(f"{name}:{number}", question + choices, "unseen" if row.get("unseen") else "seen")


def overlap(documents: Iterable[Document], items: Sequence[Item]) -> Overlap:
    """Compare documents with items, case and marks aside."""
    wanted = [_Wanted(item) for item in items]
    table = {
        length: _Lookup(np.unique(np.concatenate([w.runs for w in wanted if w.length == length])))
        for length in sorted({w.length for w in wanted if w.length})
    }
    result = Overlap([])
    for start, batch in _batches(documents):
        _compare(start, batch, wanted, table, result)
    result.items = [w.shared(table) for w in wanted]
    return result


class _Wanted:
    """An item as hashes: its runs of `length` tokens in order, and itself as one long run."""

    def __init__(self, item: Item) -> None:
        tokens = ngrams.hashes(ngrams.words(item.text))
        self.item, self.tokens, self.length = item, len(tokens), min(RUN, len(tokens))
        windows = Windows(tokens)
        self.runs = windows.of(self.length) if self.length else np.zeros(0, np.uint64)
        self.whole = windows.of(self.tokens) if self.length else self.runs
        self.exact = False

    def places(self, hits: NDArray[np.int64], grams: Hashes, windows: Windows) -> NDArray[np.int64]:
        """Where the whole item stands, given where any run of its length stands."""
        begins = hits[grams[hits] == self.runs[0]]
        begins = begins[begins + self.tokens < len(windows.prefix)]
        places: NDArray[np.int64] = begins[windows.at(begins, self.tokens) == self.whole]
        return places

    def shared(self, table: dict[int, _Lookup]) -> Shared:
        found = table[self.length].was_found(self.runs) if self.length else np.zeros(0, np.bool_)
        stretches = [sum(1 for _ in same) for hit, same in groupby(found.tolist()) if hit]
        longest = max(stretches) + self.length - 1 if stretches else 0
        return Shared(self.item.id, self.item.group, self.tokens, self.exact, longest)


class _Lookup:
    """The runs of all items of one length, and which of them were found in a document."""

    def __init__(self, runs: Hashes) -> None:
        self.runs, self.found = runs, np.zeros(len(runs), np.bool_)
        self.likely = np.zeros(1 << 16, np.bool_)
        self.likely[runs >> np.uint64(48)] = True

    def hits(self, grams: Hashes) -> NDArray[np.int64]:
        """Positions in `grams` that are a run of some item."""
        maybe = np.flatnonzero(self.likely[grams >> np.uint64(48)])
        place = np.searchsorted(self.runs, grams[maybe]).clip(max=len(self.runs) - 1)
        same = self.runs[place] == grams[maybe]
        self.found[place[same]] = True
        found: NDArray[np.int64] = maybe[same]
        return found

    def was_found(self, runs: Hashes) -> NDArray[np.bool_]:
        return self.found[np.searchsorted(self.runs, runs)]


def _batches(documents: Iterable[Document]) -> Iterator[tuple[int, list[Document]]]:
    start, rest = 0, iter(documents)
    while batch := list(islice(rest, 1000)):
        yield start, batch
        start += len(batch)


def _compare(
    start: int, batch: Sequence[Document], wanted: Sequence[_Wanted], table: dict[int, _Lookup], result: Overlap
) -> None:
    """Look a batch up as one sequence; a zero between documents keeps runs from crossing."""
    parts = [ngrams.hashes(ngrams.words(document.text)) for document in batch]
    ends = np.cumsum([len(part) + 1 for part in parts])
    windows = Windows(np.concatenate([np.append(part, np.uint64(0)) for part in parts]))
    for length, lookup in table.items():
        grams = windows.of(length)
        hits = lookup.hits(grams)
        owners = np.searchsorted(ends, hits, side="right")
        for owner, first, count in zip(*np.unique(owners, return_index=True, return_counts=True), strict=True):
            position = start + int(owner)
            if position not in result.runs and len(result.samples) < SAMPLES:
                begin = int(hits[first] - (ends[owner] - len(parts[owner]) - 1))
                run = ngrams.words(batch[owner].text)[begin : begin + length]
                result.samples.append({"document": batch[owner].id, "run": " ".join(run)})
            result.runs[position] = result.runs.get(position, 0) + int(count)
        for w in (w for w in wanted if w.length == length and len(hits)):
            for begin in w.places(hits, grams, windows):
                owner = int(np.searchsorted(ends, begin, side="right"))
                w.exact = True
                result.contains.setdefault(start + owner, []).append(w.item.id)
