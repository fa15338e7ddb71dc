"""Where a document and an evaluation item are the same, shown so that people can say whether it is a leak.

A match knows its place in pieces (words or characters); here it becomes a place in the text, with what stands around it.
The rows of a sample have an empty `label`: `yes` for a leak, `no` for what is common to many texts. `precision` reads
them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.corpus.documents import Document
from alignment.corpus.ngrams import WORDS
from alignment.errors import DataError

AROUND = 80  # characters on each side
BETWEEN = re.compile(r"[^\w\-+*/×÷=<>%^]+")  # what no word of `ngrams.WORDS` holds
LABELS = ("yes", "no")


@dataclass(frozen=True)
class Match:
    """So many pieces of a text, from `begin`, that an item has too: all of the item, or a run."""

    kind: str
    item: int
    begin: int
    pieces: int
    whole: bool


def located(match: Match, text: str) -> tuple[int, int]:
    """The characters of the lower-cased text that a match covers, from first to before last."""
    if match.kind == "word":
        found = [piece.span() for piece in WORDS.finditer(text.lower())]
    else:
        found = [(place, place + 1) for place, sign in enumerate(text.lower()) if not BETWEEN.match(sign)]
    return found[match.begin][0], found[match.begin + match.pieces - 1][1]


def row(match: Match, document: Document, item_id: str, item_text: str) -> dict[str, Any]:
    """A match as a row to label."""
    begin, end = located(match, document.text)
    text = document.text if len(document.text.lower()) == len(document.text) else document.text.lower()
    return {
        "document": document.id,
        "item": item_id,
        "kind": match.kind,
        "whole": match.whole,
        "begin": begin,
        "end": end,
        "before": text[max(begin - AROUND, 0) : begin],
        "match": text[begin:end],
        "after": text[end : end + AROUND],
        "item_text": item_text,
        "label": "",
    }


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows to label, one a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def precision(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say by kind of match what share of the labelled rows is a leak, with Wilson's 95 % interval."""
    from scipy.stats import binomtest

    wrong = [row for row in rows if row.get("label") not in (*LABELS, "")]
    if wrong:
        raise DataError(
            f"label {wrong[0].get('label')!r} of document {wrong[0]['document']}: say yes, no, or leave it empty."
        )
    found = []
    for kind, whole in sorted({(row["kind"], row["whole"]) for row in rows}):
        labels = [row["label"] for row in rows if (row["kind"], row["whole"]) == (kind, whole)]
        said, right = sum(label != "" for label in labels), labels.count("yes")
        entry: dict[str, Any] = {"kind": kind, "whole": whole, "rows": len(labels), "labelled": said, "leaks": right}
        if said:
            interval = binomtest(right, said).proportion_ci(method="wilson")
            entry |= {"precision": right / said, "low": float(interval.low), "high": float(interval.high)}
        found.append(entry)
    return found
