"""The ledger: documents and bytes into and out of each step, by dump, language and domain, and why they went.

A worker fills a `Tally` document by document; tallies are plain data and add up in the order of the shards, so the
ledger is the same however many workers there were.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.corpus.documents import Document

SAMPLES = 3
EXCERPT = 160  # characters
BEFORE = 40  # of them before two texts differ
KEYS = ("dump", "language", "domain")

Sizes = dict[str, int]  # documents, bytes


class Tally:
    """What one step took in and gave out, what it dropped for which reason with a few samples, and what it counted."""

    def __init__(self) -> None:
        self.by: dict[str, dict[str, dict[str, Sizes]]] = {key: {} for key in KEYS}
        self.reasons: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def came(self, document: Document) -> None:
        """Enter a document that came in."""
        self._move(document, "in")

    def went(self, document: Document) -> None:
        """Enter a document that went on, as it is now."""
        self._move(document, "out")

    def lost(self, document: Document, reason: str, instead: Document | str | None = None) -> None:
        """Enter a document that was dropped, and the one that stays for it, or its id.

        Of both texts the sample shows where they begin to differ.
        """
        entry = self.reasons.setdefault(reason, _reason())
        _add(entry, 1, document.bytes)
        if len(entry["samples"]) < SAMPLES:
            start, sample = 0, {"id": document.id}
            if isinstance(instead, Document):
                start = max(_alike(document.text, instead.text) - BEFORE, 0)
                sample |= {"instead": instead.id, "instead_text": instead.text[start : start + EXCERPT]}
            elif instead is not None:
                sample["instead"] = instead
            entry["samples"].append({**sample, "text": document.text[start : start + EXCERPT]})

    def total(self, side: str) -> Sizes:
        """All documents and bytes that came `in` or went `out`."""
        sizes = [group[side] for group in self.by["dump"].values()]
        return {name: sum(size[name] for size in sizes) for name in ("documents", "bytes")}

    def plain(self) -> dict[str, Any]:
        """Say it in plain data, for a file beside the shard."""
        return {"by": self.by, "reasons": self.reasons, "counts": dict(self.counts)}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Tally:
        """Take up what `plain` said."""
        return cls() + plain

    def __add__(self, other: Tally | Mapping[str, Any]) -> Tally:
        """The tally of both, this one's samples first."""
        result = Tally()
        for part in (self.plain(), other.plain() if isinstance(other, Tally) else other):
            for key, groups in part["by"].items():
                for group, sides in groups.items():
                    ours = result.by[key].setdefault(group, {"in": _sizes(), "out": _sizes()})
                    for side, sizes in sides.items():
                        _add(ours[side], sizes["documents"], sizes["bytes"])
            for reason, entry in part["reasons"].items():
                mine = result.reasons.setdefault(reason, _reason())
                _add(mine, entry["documents"], entry["bytes"])
                mine["samples"] = [*mine["samples"], *entry["samples"]][:SAMPLES]
            result.counts.update(part["counts"])
        return result

    def _move(self, document: Document, side: str) -> None:
        for key in KEYS:
            groups = self.by[key]
            name = getattr(document, key)
            if name not in groups:
                groups[name] = {"in": _sizes(), "out": _sizes()}
            _add(groups[name][side], 1, document.bytes)


class Ledger:
    """Collects one entry a step; `facts` holds what is said beside the steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self._since = time.monotonic()

    def step(self, name: str, tally: Tally) -> None:
        """Enter a step by its tally; groups in the order of their names."""
        now = time.monotonic()
        by = {key: dict(sorted(groups.items())) for key, groups in tally.by.items()}
        row = {"step": name, "in": tally.total("in"), "out": tally.total("out"), "seconds": round(now - self._since, 2)}
        self.steps.append({**row, "by": by, "reasons": tally.reasons, "counts": dict(sorted(tally.counts.items()))})
        self._since = now

    def plain(self) -> dict[str, Any]:
        """Say it all in plain data."""
        return {"steps": self.steps, **self.facts}

    def write(self, path: Path) -> None:
        """Write the ledger as JSON."""
        draft = path.with_name(path.name + ".part")
        text = json.dumps(self.plain(), ensure_ascii=False, indent=2)
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)


def joined(documents: Mapping[str, int], removed: Mapping[str, int]) -> list[dict[str, Any]]:
    """Say what share deduplication removes when the dumps are joined one by one (the paper's Table 1).

    Both count by dump, `documents` in the order of joining; removed is what equals, or joins, an earlier document.
    """
    rows, whole, gone = [], 0, 0
    for number, (dump, count) in enumerate(documents.items(), 1):
        whole, gone = whole + count, gone + removed.get(dump, 0)
        rate = round(gone / max(whole, 1), 4)
        rows.append({"dumps": number, "joined": dump, "documents": whole, "removed": gone, "rate": rate})
    return rows


def _alike(left: str, right: str) -> int:
    """How many characters two texts begin with in common."""
    shorter = min(len(left), len(right))
    return next((place for place in range(shorter) if left[place] != right[place]), shorter)


def _sizes() -> Sizes:
    return {"documents": 0, "bytes": 0}


def _reason() -> dict[str, Any]:
    return {"documents": 0, "bytes": 0, "samples": []}


def _add(sizes: dict[str, Any], documents: int, size: int) -> None:
    sizes["documents"] += documents
    sizes["bytes"] += size
