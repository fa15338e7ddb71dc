"""What documents share with evaluation items, and which documents go for it.

Held-out sets have two halves. Items of templates that are trained with other values share long runs with training
text by nature: those are counted and reported. Items of templates that are never trained must share none: their count
is the proof. A document that contains a whole item is a leak in both and goes. Every match keeps its place, and a sample
of them is written down to be labelled (`spans`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Literal

from alignment.corpus import search, spans
from alignment.corpus.documents import Document
from alignment.corpus.search import RUN, RUN_CHARACTERS, RUN_CHINESE, Item, Search, Shared
from alignment.errors import DataError

SHOTS = {"train", "dev"}  # files of worked examples for prompts: shown, not scored
SAMPLES = 5
LABELLED = 100  # matches a shard keeps for the sample that people label


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


# -- documents against items -------------------------------------------------------------------------------------------


class Sought:
    """Evaluation items that are looked for in documents, batch after batch, and what was found of them.

    `drop` says which documents go: those that contain a whole item, or those that share a run with one.
    """

    def __init__(self, items: Sequence[Item], drop: Literal["item", "run"] = "item") -> None:
        self.drop = drop
        self.searches = [Search(kind, items) for kind in search.KINDS]
        self.documents = 0
        self.runs: dict[int, int] = {}  # by position: places that share a run of words
        self.contains: dict[int, list[str]] = {}  # by position: the items for which a document goes
        self.sharing = 0  # documents that share a run of either kind
        self.rows: list[dict[str, Any]] = []  # of the sample to label

    def look(self, batch: Sequence[Document]) -> dict[int, list[str]]:
        """Compare a batch; return the items, by position in the batch, for which a document must go."""
        goes: dict[int, list[str]] = {}
        texts = [document.text for document in batch]
        sharing: set[int] = set()
        for one in self.searches:
            matches, shared = one.look(texts)
            sharing |= shared.keys()
            if one.kind == "word":
                self.runs |= {self.documents + position: count for position, count in shared.items()}
            for position, found in sorted(matches.items()):
                self._show(found, batch[position], one.items)
                taken = [one.items[m.item].id for m in found if m.whole or self.drop == "run"]
                if taken:
                    goes[position] = list(dict.fromkeys([*goes.get(position, ()), *taken]))
        self.contains |= {self.documents + position: ids for position, ids in goes.items()}
        self.sharing += len(sharing)
        self.documents += len(batch)
        return goes

    def _show(self, found: Sequence[spans.Match], document: Document, items: Sequence[Item]) -> None:
        for match in found:
            if len(self.rows) < LABELLED:
                item = items[match.item]
                self.rows.append(spans.row(match, document, item.id, item.text))

    @property
    def items(self) -> list[Shared]:
        """What is shared with each item, by words."""
        return self.searches[0].shared()

    def summary(self) -> dict[str, dict[str, int]]:
        """Count per group: items, exact matches, items that share a run, and the longest run."""
        return search.summary(self.items)

    def plain(self) -> dict[str, Any]:
        """Say it in plain data, for a file beside the shard."""
        return {
            "sharing": self.sharing,
            "containing": len(self.contains),
            "searches": [one.plain() for one in self.searches],
            "rows": self.rows,
        }

    def report(self) -> dict[str, Any]:
        """Say it all in plain data."""
        return _report(self.searches, [self.plain()])


def overlap(documents: Iterable[Document], items: Sequence[Item]) -> Sought:
    """Compare documents with items."""
    sought, rest = Sought(items), iter(documents)
    while batch := list(islice(rest, 1000)):
        sought.look(batch)
    return sought


def report(items: Sequence[Item], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what shards found."""
    searches = [Search(kind, items) for kind in search.KINDS]
    for part in parts:
        for one, found in zip(searches, part["searches"], strict=True):
            one.add(found)
    return _report(searches, parts)


def _report(searches: Sequence[Search], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    words, characters = (one.shared() for one in searches)
    rows = [row for part in parts for row in part["rows"]]
    flagged = sorted((asdict(shared) for shared in words if shared.longest), key=lambda shared: -shared["longest"])
    return {
        "run_tokens": RUN,
        "groups": search.summary(words),
        "run_characters": {"spaced": RUN_CHARACTERS, "chinese": RUN_CHINESE},
        "groups_by_characters": search.summary(characters),
        "documents_sharing_runs": sum(part["sharing"] for part in parts),
        "documents_containing_items": sum(part["containing"] for part in parts),
        "longest": flagged[:SAMPLES],
        "samples": [{"document": row["document"], "run": row["match"]} for row in rows if row["kind"] == "word"][:SAMPLES],
    }


def sample(parts: Sequence[Mapping[str, Any]], rows: int = LABELLED) -> list[dict[str, Any]]:
    """Choose matches to label: as many of each kind as there are, by turns, up to a number in all."""
    kinds: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for part in parts:
        for row in part["rows"]:
            kinds.setdefault((row["kind"], row["whole"]), []).append(row)
    turns = [row for turn in zip_longest(*kinds.values()) for row in turn if row is not None]
    return turns[:rows]
