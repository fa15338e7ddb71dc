"""The finished shards of a step as one long list of documents: columns and texts by row, in files, not in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from alignment.corpus import column, documents
from alignment.corpus.documents import Document

Rows = NDArray[np.int64]
OPEN = 64  # files of documents at a time


def said(folder: Path) -> dict[str, Any]:
    """What a finished shard says of itself."""
    found: dict[str, Any] = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    return found


class Shelf:
    """Shards of one step, side by side. Opened anew in each process; closes the files of documents behind itself."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._files: dict[int, tuple[IO[bytes], NDArray[np.uint64]]] = {}

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._files.values():
            opened[0].close()

    @cached_property
    def first(self) -> Rows:
        """The row that each shard begins at, and the number of rows."""
        sizes = [(folder / "start.bin").stat().st_size // 8 - 1 for folder in self.folders]
        return np.cumsum([0, *sizes], dtype=np.int64)

    @property
    def count(self) -> int:
        """How many documents there are."""
        return int(self.first[-1])

    def said(self) -> Iterator[dict[str, Any]]:
        """What each shard says of itself."""
        return map(said, self.folders)

    def column(self, shard: int, name: str, kind: DTypeLike, width: int | None = None) -> NDArray[Any]:
        """Map a column of one shard."""
        return column.load(self.folders[shard], name, kind, width)

    def groups(self, key: str) -> tuple[list[str], NDArray[np.uint32]]:
        """The dumps, languages or domains by name in the order of the rows, and of each row the position of its own."""
        names: dict[str, int] = {}
        codes = [np.zeros(0, np.uint32)]
        for shard, said in enumerate(self.said()):
            known = [names.setdefault(name, len(names)) for name in said["names"][key]]
            codes.append(np.array(known, np.uint32)[self.column(shard, key, np.uint32)])
        return list(names), np.concatenate(codes)

    def take(self, name: str, kind: DTypeLike, rows: Rows, width: int | None = None, at: int = 0) -> NDArray[Any]:
        """Read a column at some rows, in their order; of a wide one, the number `at`."""
        found = np.empty(len(rows), kind)
        order = np.argsort(rows, kind="stable")
        cuts = np.searchsorted(rows[order], self.first)
        for shard, (begin, end) in enumerate(pairwise(cuts)):
            if begin < end:
                there = order[begin:end]
                values = self.column(shard, name, kind, width)
                local = rows[there] - self.first[shard]
                found[there] = values[local] if width is None else values[local, at]
        return found

    def lines(self, rows: Rows) -> Iterator[bytes]:
        """Read documents as lines; quickest where the rows rise."""
        for shard, row in zip(np.searchsorted(self.first, rows, side="right") - 1, rows, strict=True):
            file, starts = self._opened(int(shard))
            begin, end = starts[row - self.first[shard] :][:2]
            yield os.pread(file.fileno(), int(end - begin), int(begin))

    def shard(self, shard: int) -> Iterator[Document]:
        """Read the documents of one shard from its beginning to its end."""
        with (self.folders[shard] / "documents.jsonl").open("rb") as lines:
            for line in lines:
                yield Document(**documents.parse(line))

    def documents(self, rows: Rows) -> Iterator[Document]:
        """Read documents."""
        return (Document(**documents.parse(line)) for line in self.lines(rows))

    def _opened(self, shard: int) -> tuple[IO[bytes], NDArray[np.uint64]]:
        if shard not in self._files:
            while len(self._files) >= OPEN:
                self._files.pop(next(iter(self._files)))[0].close()
            file = (self.folders[shard] / "documents.jsonl").open("rb", buffering=0)
            self._files[shard] = file, self.column(shard, "start", np.uint64)
        return self._files[shard]
