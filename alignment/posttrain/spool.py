"""Tokenised rows on disk, and in memory only what is needed to choose among them: some 40 bytes a row.

rows, batch after batch -> `add()` -> `part(times)`: some of them, each so often, as often as somebody asks
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Row = dict[str, Any]
Times = NDArray[np.int32]  # of every row, how often
NAMED = ("source", "domain", "language")


class Spool:
    """Rows with their ids, labels and text, in the order in which they came."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self.names: dict[str, dict[str, int]] = {name: {} for name in NAMED}  # source: number
        self.numbers = {name: array("i") for name in NAMED}
        self.sizes = array("i")  # characters of the text
        self.questions = bytearray()  # 16 bytes a row: what stands before its first answer, hashed with the seed

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows."""
        with self.path.open("ab") as file:
            file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        for row in rows:
            for name, numbers in self.numbers.items():
                known = self.names[name]
                numbers.append(known.setdefault(row[name], len(known)))
            self.sizes.append(sum(len(turn["content"]) for turn in row["messages"]))
            self.questions += question(row, self.seed)

    def groups(self, name: str) -> tuple[list[str], NDArray[np.int32]]:
        """The sources, domains or languages, and of every row the number of its own."""
        return list(self.names[name]), np.array(self.numbers[name], np.int32)

    def part(self, times: Times) -> Part:
        """Take every row so often."""
        return Part(self, times)

    def counts(self, name: str, times: Times) -> dict[str, int]:
        """How many rows of each source, domain or language are taken."""
        known, numbers = self.groups(name)
        counted = np.bincount(numbers, times, len(known)).astype(int).tolist()
        return {one: count for one, count in zip(known, counted, strict=True) if count}


@dataclass(frozen=True)
class Part:
    """Some rows of a spool, each so often as `times` says; read anew from the disk whenever it is gone through."""

    spool: Spool
    times: Times

    def __len__(self) -> int:
        return int(self.times.sum())

    def __iter__(self) -> Iterator[Row]:
        if not len(self):
            return
        with self.spool.path.open("rb") as lines:
            for line, times in zip(lines, self.times.tolist(), strict=True):
                row = orjson.loads(line) if times else {}
                for turn in range(times):
                    yield {**row, "id": f"{row['id']}#{turn + 1}"} if turn else row


def question(row: Mapping[str, Any], seed: int) -> bytes:
    """Hash what stands before the first answer (16 bytes)."""
    labels, ids = row["labels"], row["input_ids"]
    first = next(i for i, label in enumerate(labels) if label != -100)
    return hashlib.blake2b(json.dumps([seed, ids[:first]]).encode(), digest_size=16).digest()


def held_out(questions: bytes | bytearray, share: float) -> NDArray[np.bool_]:
    """Choose about `share` of the rows, question by question, in the order of their hashes (16 bytes a row)."""
    halves = np.frombuffer(bytes(questions), ">u8").reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    taken_before = np.flatnonzero(begins)  # as many rows as stand before a question begins
    held = np.zeros(len(order), np.bool_)
    held[order] = (taken_before < round(share * len(order)))[np.cumsum(begins) - 1]
    return held


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Cut rows into batches."""
    rest = iter(rows)
    while batch := list(islice(rest, size)):
        yield batch
