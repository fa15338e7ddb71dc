"""The step `sift`: what deduplication left of a shard -> the documents that may be trained on, in one pass.

Each document is cut and masked, filtered, and compared with the held-out items. What stays is written with the numbers
that the remix needs; what goes is counted where it goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment import recipe as words
from alignment.corpus import deal, decontaminate, documents, duplicates, filters, redact, remix, strings
from alignment.corpus.column import Columns, mapped
from alignment.corpus.documents import Document
from alignment.corpus.ledger import KEYS, SAMPLES, Tally
from alignment.corpus.shelf import Shelf

STEPS = ("exact duplicates", "near duplicates", "repeated strings", "filters", "decontamination")
REASONS = {duplicates.EQUAL: "equal text", duplicates.NEAR: "near duplicate"}
CONTAINS = "contains a held-out item"


@dataclass(frozen=True)
class Sift:
    """The work of the step."""

    shards: tuple[Path, ...]  # of `read`
    duplicates: Path
    strings: tuple[words.Strings, Path, Path] | None  # what documents repeat, and where lines and runs lie
    filters: words.Filters
    models: Path
    against: Path | None
    seed: int
    turns: int

    def __call__(self, shard: int, out: Path) -> None:
        """Sift one shard."""
        tallies = {step: Tally() for step in STEPS}
        names: dict[str, dict[str, int]] = {key: {} for key in KEYS}
        sought = self._sought()
        known = deal.uses(self.turns)
        start = 0
        with (
            Shelf(self.shards) as shelf,
            Columns(out, deal.KINDS) as columns,
            (out / "documents.jsonl").open("wb") as lines,
        ):
            for batch in documents.batches(self._filtered(shelf, shard, tallies)):
                if sought:
                    batch = list(_clean(batch, sought, tallies["decontamination"]))
                rows = [documents.line(document) for document in batch]
                lines.writelines(rows)
                ends = np.cumsum([start, *map(len, rows)])
                columns.add(
                    start=ends[:-1],
                    size=[document.bytes for document in batch],
                    hash=[[remix.key(document, self.seed, use) for use in known] for document in batch],
                )
                for key, seen in names.items():
                    columns.add(**{key: [seen.setdefault(getattr(document, key), len(seen)) for document in batch]})
                start = int(ends[-1])
            columns.add(start=[start])
        said: dict[str, Any] = {
            "names": {key: list(seen) for key, seen in names.items()},
            "tallies": {step: tally.plain() for step, tally in tallies.items()},
            "overlap": sought.plain() if sought else None,
        }
        (out / "said.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")

    def _sought(self) -> decontaminate.Sought | None:
        if self.against is None:
            return None
        return decontaminate.Sought(decontaminate.heldout(self.against), self.filters.contaminated_by)

    def _unique(self, shelf: Shelf, shard: int, tallies: dict[str, Tally]) -> Iterator[Document]:
        """What is no duplicate."""
        begin, end = shelf.first[shard : shard + 2]
        fate = mapped(self.duplicates / "fate.npy")[begin:end].tolist()
        instead = mapped(self.duplicates / "instead.npy")[begin:end].tolist()
        for document, lot, other in zip(shelf.shard(shard), fate, instead, strict=True):
            for step, takes in zip(STEPS, REASONS, strict=False):
                tallies[step].came(document)
                if lot == takes:
                    tallies[step].lost(document, REASONS[takes], _named(shelf, other, tallies[step]))
                    break
                tallies[step].went(document)
            else:
                yield document

    def _cut(self, shelf: Shelf, shard: int, tallies: dict[str, Tally]) -> Iterator[Document]:
        """What is left of documents without the strings that others hold too."""
        unique = self._unique(shelf, shard, tallies)
        if self.strings is None:
            yield from unique
            return
        cut, tally = strings.cutter(*self.strings), tallies["repeated strings"]
        for document in unique:
            tally.came(document)
            shorter, counts = cut(document)
            tally.counts.update(counts)
            tally.went(shorter)
            yield shorter

    def _filtered(self, shelf: Shelf, shard: int, tallies: dict[str, Tally]) -> Iterator[Document]:
        """What no rule takes, cut and masked."""
        rules = filters.rules(self.filters, self.models)
        edit = redact.editor(self.filters)
        tally = tallies["filters"]
        for document in self._cut(shelf, shard, tallies):
            tally.came(document)
            edited, counts = edit(document)
            tally.counts.update(counts)
            if reason := filters.refused(edited, rules):
                tally.lost(document, reason)
            else:
                tally.went(edited)
                yield edited


def _named(shelf: Shelf, row: int, tally: Tally) -> Document | str | None:
    """The document that stays, where it will be shown."""
    if any(entry["documents"] >= SAMPLES for entry in tally.reasons.values()):
        return None
    if row <= duplicates.INDEX:
        return f"document {duplicates.INDEX - row} of the index"
    (document,) = shelf.documents(np.array([row]))
    return document


def _clean(batch: list[Document], sought: decontaminate.Sought, tally: Tally) -> Iterator[Document]:
    """What contains no held-out item."""
    contains = sought.look(batch)
    for position, document in enumerate(batch):
        tally.came(document)
        if position in contains:
            tally.lost(document, CONTAINS)
        else:
            tally.went(document)
            yield document
