"""The steps that find which lines and runs several documents hold; `strings` says what those are, and cuts them.

    windows   of each shard: hashes of its lines, and of some of its windows of tokens   shards, all processes
    shared    those that several documents hold                                          numbers of all shards, one process
    runs      of each document with such a window: hashes of all its windows             shards, all processes
    strings   those that several documents hold                                          numbers of all shards, one process

The last pass looks at every window of such documents, so a run is cut from its first token to its last.
A shard writes its hashes in piles, each in order and cut at the same BUCKETS borders: what lies between two borders
is put in order for all shards at once. Memory: one pile, or one bucket, a 1024th of all hashes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from alignment import section
from alignment.corpus import column, duplicates, ngrams, strings
from alignment.corpus.column import Columns, mapped
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Hashes
from alignment.corpus.shelf import Rows, Shelf
from alignment.corpus.strings import Lookup, names_of

LINES, CHOSEN, RUNS = "lines", "chosen", "runs"
PILE = 1 << 20  # hashes
BUCKET_BITS = 10
BUCKETS = 1 << BUCKET_BITS


@dataclass(frozen=True)
class Windows:
    """The work of the step `windows`."""

    shards: tuple[Path, ...]  # of `read`
    duplicates: Path
    words: section.Strings

    def __call__(self, shard: int, out: Path) -> None:
        """Pile up the lines and the chosen windows of one shard."""
        with ExitStack() as stack:
            lines, chosen = (stack.enter_context(_Piles(out, name)) for name in (LINES, CHOSEN))
            for document in strings.scanned(unique(self.shards, self.duplicates, shard)):
                said = [value for _, value in document.lines(self.words.line_characters)]
                lines.add(np.array(said, np.uint64), document.name)
                chosen.add(strings.chosen(document.windows(self.words.run_tokens)), document.name)


@dataclass(frozen=True)
class Runs:
    """The work of the step `runs`."""

    shards: tuple[Path, ...]  # of `read`
    duplicates: Path
    words: section.Strings
    shared: Path

    def __call__(self, shard: int, out: Path) -> None:
        """Pile up all windows of the documents of one shard that share a chosen one."""
        wanted = Lookup(self.shared, CHOSEN)
        with _Piles(out, RUNS) as runs:
            for document in strings.scanned(unique(self.shards, self.duplicates, shard)):
                windows = document.windows(self.words.run_tokens)
                if wanted.holds(strings.chosen(windows)).any():
                    runs.add(windows, document.name)


@dataclass(frozen=True)
class Shared:
    """The work of the steps `shared` and `strings`: one shard. `most` says how many documents may hold a hash."""

    folders: tuple[Path, ...]
    most: Mapping[str, int]

    def __call__(self, _: int, out: Path) -> None:
        """Write the hashes that more documents hold, each with the first of these, and how many there are."""
        said = {name: self._gather(name, most, out) for name, most in self.most.items()}
        (out / "said.json").write_text(json.dumps(said), encoding="utf-8")

    def _gather(self, name: str, most: int, out: Path) -> int:
        cuts = [column.load(folder, cuts_of(name), np.int64, BUCKETS + 1) for folder in self.folders]
        count = 0
        with Columns(out, {name: np.uint64, names_of(name): np.uint64}) as columns:
            for low, high in _groups(sum(np.diff(some).sum(axis=0) for some in cuts)):
                places = [(f, *place) for f, some in zip(self.folders, cuts, strict=True) for place in some[:, [low, high]]]
                hashes, names = (_joined(part, places) for part in (name, names_of(name)))
                order = np.argsort(hashes, kind="stable")  # of equal ones the first document's is still the first
                hashes, names = hashes[order], names[order]
                begins = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
                several = begins[np.diff(begins, append=len(hashes)) > most]
                columns.add(**{name: hashes[several], names_of(name): names[several]})
                count += len(several)
        return count


def _groups(sizes: Rows) -> Iterator[tuple[int, int]]:
    """Cut the row of buckets into groups of up to a pile; a larger bucket stands alone."""
    begin = held = 0
    for bucket, size in enumerate(sizes.tolist()):
        if held and held + size > PILE:
            yield begin, bucket
            begin, held = bucket, 0
        held += size
    yield begin, BUCKETS


def _joined(part: str, places: Sequence[tuple[Path, int, int]]) -> Hashes:
    """Read some places of a column. A mapping would count as held."""
    read = (np.fromfile(folder / f"{part}.bin", np.uint64, end - begin, offset=8 * begin) for folder, begin, end in places)
    return np.concatenate([np.zeros(0, np.uint64), *read])


def unique(shards: tuple[Path, ...], step: Path, shard: int) -> Iterator[Document]:
    """Read the documents of one shard that are no duplicates, in their order."""
    with Shelf(shards) as shelf:
        begin, end = shelf.first[shard : shard + 2]
        fate = mapped(step / duplicates.FATE)[begin:end]
        yield from shelf.documents(begin + np.flatnonzero(fate == duplicates.STAYS))


def cuts_of(name: str) -> str:
    """What the column is called that says where in a column's piles the buckets begin."""
    return f"{name}_cuts"


class _Piles:
    """A column of hashes, in order pile by pile, with the names of their documents."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.columns = Columns(folder, {name: np.uint64, names_of(name): np.uint64, cuts_of(name): np.int64})
        self.held: list[Hashes] = []
        self.names: list[int] = []
        self.size = self.written = 0

    def __enter__(self) -> _Piles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._pour()
        self.columns.__exit__(kind, error, where)

    def add(self, hashes: Hashes, name: int) -> None:
        """Add what one document holds, each once."""
        self.held.append(ngrams.distinct(hashes))
        self.names.append(name)
        self.size += len(self.held[-1])
        if self.size >= PILE:
            self._pour()

    def _pour(self) -> None:
        hashes = np.concatenate([np.zeros(0, np.uint64), *self.held])
        names = np.repeat(np.array(self.names, np.uint64), [len(some) for some in self.held])
        order = np.argsort(hashes, kind="stable")
        hashes, names = hashes[order], names[order]
        cuts = self.written + np.searchsorted(hashes >> np.uint64(64 - BUCKET_BITS), np.arange(BUCKETS + 1, dtype=np.uint64))
        self.columns.add(**{self.name: hashes, names_of(self.name): names, cuts_of(self.name): cuts})
        self.written += self.size
        self.held, self.names, self.size = [], [], 0
