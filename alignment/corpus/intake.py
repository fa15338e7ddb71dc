"""The step `read`: a source's shard -> its documents in our form, and what deduplication asks about each of them.

One pass over the text: what cannot be used is put aside, every other document is written, digested and signed. The
columns have one row a document, `signature` one row for each document whose near-duplicates are sought.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from alignment import recipe as words
from alignment.corpus import dedup, documents, minhash, sources
from alignment.corpus.column import Columns
from alignment.corpus.documents import Document
from alignment.corpus.ledger import Tally
from alignment.corpus.sources import Part

KINDS: dict[str, Any] = {
    "start": np.uint64,  # the byte in documents.jsonl that the document begins at; one more, for the end of the last
    "dump": np.uint32,  # a position in the shard's `names`
    "characters": np.int64,
    "date": np.float64,  # seconds; not a number where a row has none
    "quality": np.float64,  # what a row says of itself, likewise
}
DATES = ("date", "timestamp", "created", "added")  # fields of a row that may say when it was written


@dataclass(frozen=True)
class Intake:
    """The work of the step."""

    parts: tuple[Part, ...]
    near: words.Near
    seed: int

    def __call__(self, shard: int, out: Path) -> None:
        """Read one shard: documents.jsonl, aside.jsonl, the columns, the sketch, and what there is to say of it."""
        tally, aside, dumps = Tally(), Counter[str](), dict[str, int]()
        with (
            Columns(out, KINDS) as columns,
            (out / "documents.jsonl").open("wb") as lines,
            (out / "aside.jsonl").open("w", encoding="utf-8") as bad,
        ):

            def sketches() -> Iterator[minhash.Sketch]:
                start = 0
                for batch in documents.batches(_usable(self.parts[shard], bad, aside)):
                    rows = [documents.line(document) for document in batch]
                    lines.writelines(rows)
                    ends = start + np.cumsum([len(row) for row in rows])
                    columns.add(
                        start=np.concatenate([[start], ends[:-1]]),
                        dump=[dumps.setdefault(document.dump, len(dumps)) for document in batch],
                        characters=[len(document.text) for document in batch],
                        date=[date(document.meta) for document in batch],
                        quality=[quality(document.meta) for document in batch],
                    )
                    start = int(ends[-1])
                    for document in batch:
                        tally.came(document)
                        tally.went(document)
                    yield self._sketch(batch)
                columns.add(start=[start])

            minhash.write(out / "sketch", sketches())
        said = {"names": {"dump": list(dumps)}, "tally": tally.plain(), "aside": aside}
        (out / "said.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")

    def _sketch(self, batch: list[Document]) -> minhash.Sketch:
        return minhash.sketch(
            [document.text for document in batch],
            [dedup.CODE in document.domain for document in batch],
            shingle=self.near.shingle,
            hashes=self.near.hashes,
            bands=self.near.bands,
            seed=self.seed,
        )


def quality(meta: dict[str, Any]) -> float:
    """What a row says of its quality; not a number where it says nothing."""
    value = meta.get("quality")
    return float(value) if isinstance(value, int | float) else float("nan")


def date(meta: dict[str, Any]) -> float:
    """When a document was written, in seconds; not a number where it does not say, or not readably."""
    for name in DATES:
        value = meta.get(name)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                found = datetime.fromisoformat(value)
            except ValueError:
                continue
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    return float("nan")


def _usable(part: Part, bad: IO[str], aside: Counter[str]) -> Iterator[Document]:
    for found in sources.read(part):
        if isinstance(found, Document):
            yield found
        else:
            aside[found.reason] += 1
            bad.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
