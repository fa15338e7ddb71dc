"""The steps `order` and `deal`: which documents are taken how often, in which order, and the files that say so.

The order is decided by hashes of the ids, so it needs eight bytes a document and not the text: `Order` takes each
domain's bytes pass after pass, holds some out, sorts, and cuts the result into parts; `Deal` fetches the text of a part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus import column
from alignment.corpus.ledger import KEYS
from alignment.corpus.remix import Plan
from alignment.corpus.shelf import Rows, Shelf

PART_BYTES = 64 << 20  # of text a part, whatever the memory: a part that is finished stays what it is

KINDS: dict[str, Any] = {
    "start": np.uint64,
    "size": np.uint32,  # bytes of the text
    **dict.fromkeys(KEYS, np.uint32),  # dump, language, domain: positions in the shard's `names`
    "hash": np.uint64,  # one for each use of `uses`
}


def uses(turns: int) -> list[str]:
    """What a document's hash is needed for: to be held out, and in each pass to be taken and to be mixed."""
    return ["hold out", *(f"{what} {turn}" for turn in range(turns) for what in ("take", "mix"))]


@dataclass(frozen=True)
class Order:
    """The work of the step `order`: one shard, on columns only."""

    shards: tuple[Path, ...]
    plan: Plan
    turns: int
    held_out: float
    by_language: bool  # whether the plan's groups are `domain/language`

    def __call__(self, _: int, out: Path) -> None:
        """Write rows.npy, those to train on and then those held out, cuts.npy, which cuts them into parts, and numbers."""
        shelf = Shelf(self.shards)
        names, codes = shelf.groups("domain")
        domains = {name: np.flatnonzero(codes == code) for code, name in enumerate(names)}
        rows, turns = self._taken(shelf, dict(_by_language(shelf, domains)) if self.by_language else domains)
        held = self._held_out(shelf, domains, np.unique(rows))
        mixed = rows[np.argsort(self._mixed(shelf, rows, turns), kind="stable")]
        hidden = self._hash(shelf, held, "hold out")
        train = mixed[~np.isin(self._hash(shelf, mixed, "hold out"), hidden)]
        np.save(out / "rows.npy", np.concatenate([train, held]))
        np.save(out / "cuts.npy", np.union1d(_cuts(_sizes(shelf, train)), len(train) + _cuts(_sizes(shelf, held))))
        sides = {"documents": train, "held_out_documents": held}, {"bytes": train, "held_out_bytes": held}
        numbers = {name: len(side) for name, side in sides[0].items()}
        numbers |= {name: int(_sizes(shelf, side).sum()) for name, side in sides[1].items()}
        said = {"numbers": numbers, "tally": {"by": _moved(shelf, rows), "reasons": {}, "counts": {}}}
        (out / "said.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")

    def _taken(self, shelf: Shelf, groups: Mapping[str, Rows]) -> tuple[Rows, NDArray[np.int8]]:
        """The rows that the plan takes, each with the pass in which."""
        rows, turns = [np.zeros(0, np.int64)], [np.zeros(0, np.int8)]
        for group, wanted in self.plan.take.items():
            pool, left = groups[group], wanted
            for turn in range(self.turns):
                order = np.argsort(self._hash(shelf, pool, f"take {turn}"), kind="stable")
                sizes = _sizes(shelf, pool[order])
                some = np.cumsum(sizes) - sizes < left
                rows.append(pool[order][some])
                turns.append(np.full(some.sum(), turn, np.int8))
                left -= int(sizes[some].sum())
        return np.concatenate(rows), np.concatenate(turns)

    def _held_out(self, shelf: Shelf, domains: Mapping[str, Rows], rows: Rows) -> Rows:
        """Hold out a share of each domain's bytes; of a domain with a single document nothing."""
        held = [np.zeros(0, np.int64)]
        for _, members in sorted(domains.items()):
            pool = np.intersect1d(members, rows, assume_unique=True)
            pool = pool[np.unique(self._hash(shelf, pool, "hold out"), return_index=True)[1]]  # in order, each id once
            sizes = _sizes(shelf, pool)
            held.append(pool[:-1][(np.cumsum(sizes) - sizes < self.held_out * sizes.sum())[:-1]])
        return np.concatenate(held)

    def _mixed(self, shelf: Shelf, rows: Rows, turns: NDArray[np.int8]) -> NDArray[np.uint64]:
        keys = np.empty(len(rows), np.uint64)
        for turn in range(self.turns):
            keys[turns == turn] = self._hash(shelf, rows[turns == turn], f"mix {turn}")
        return keys

    def _hash(self, shelf: Shelf, rows: Rows, use: str) -> NDArray[np.uint64]:
        known = uses(self.turns)
        return shelf.take("hash", np.uint64, rows, len(known), known.index(use))


@dataclass(frozen=True)
class Deal:
    """The work of the step `deal`: the text of one part."""

    shards: tuple[Path, ...]
    order: Path

    def __call__(self, shard: int, out: Path) -> None:
        """Write one part in its order."""
        begin, end = np.load(self.order / "cuts.npy")[shard : shard + 2]
        rows, places = np.unique(column.mapped(self.order / "rows.npy")[begin:end], return_inverse=True)
        with Shelf(self.shards) as shelf:
            lines = list(shelf.lines(rows))
        with (out / "documents.jsonl").open("wb") as file:
            file.writelines(lines[place] for place in places)


def available(shards: Sequence[Path]) -> dict[tuple[str, str], int]:
    """The bytes that there are of each domain in each language."""
    shelf, found = Shelf(shards), Counter[tuple[str, str]]()
    for shard, said in enumerate(shelf.said()):
        domains, languages = (said["names"][key] for key in ("domain", "language"))
        domain, language = (shelf.column(shard, key, np.uint32).astype(np.int64) for key in ("domain", "language"))
        sizes = np.bincount(domain * len(languages) + language, shelf.column(shard, "size", np.uint32))
        for code in np.flatnonzero(sizes).tolist():
            found[domains[code // len(languages)], languages[code % len(languages)]] += int(sizes[code])
    return dict(found)


def _by_language(shelf: Shelf, domains: Mapping[str, Rows]) -> Iterator[tuple[str, Rows]]:
    names, codes = shelf.groups("language")
    for domain, rows in domains.items():
        for code, name in enumerate(names):
            yield f"{domain}/{name}", rows[codes[rows] == code]


def _moved(shelf: Shelf, taken: Rows) -> dict[str, Any]:
    """What the remix took in and gave out, as a tally says it."""
    sizes = [_sizes(shelf, np.arange(shelf.count)), _sizes(shelf, taken)]
    by: dict[str, Any] = {}
    for key in KEYS:
        names, codes = shelf.groups(key)
        counts = [np.bincount(some, minlength=len(names)).tolist() for some in (codes, codes[taken])]
        bytes_ = [
            np.bincount(some, size, len(names)).tolist() for some, size in zip((codes, codes[taken]), sizes, strict=True)
        ]
        by[key] = {
            name: {
                side: {"documents": counts[number][code], "bytes": int(bytes_[number][code])}
                for number, side in enumerate(("in", "out"))
            }
            for code, name in enumerate(names)
        }
    return by


def _sizes(shelf: Shelf, rows: Rows) -> NDArray[np.int64]:
    return shelf.take("size", np.uint32, rows).astype(np.int64)


def _cuts(sizes: NDArray[np.int64]) -> Rows:
    """Where the parts begin, and the end: a part ends with the document that fills it."""
    ends = np.cumsum(sizes)
    whole = np.arange(PART_BYTES, int(ends[-1]) if len(ends) else 0, PART_BYTES)
    return np.unique(np.concatenate([[0], np.searchsorted(ends, whole) + 1, [len(sizes)]]))
