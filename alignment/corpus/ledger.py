"""The ledger: documents and bytes into and out of each step, by dump, language and domain, and why they went."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus.documents import Document

SAMPLES = 3
EXCERPT = 160  # characters


class Ledger:
    """Collects one entry a step; `facts` holds what is said beside the steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {}
        self._since = time.monotonic()

    def step(
        self,
        name: str,
        before: Sequence[Document],
        after: Sequence[Document],
        dropped: Mapping[str, Sequence[Document]] | None = None,
        instead: Mapping[str, Document] | None = None,
    ) -> None:
        """Enter a step: what came in, what went out, what was dropped for which reason (and what stays instead)."""
        now = time.monotonic()
        by = {key: _compared(before, after, key) for key in ("dump", "language", "domain")}
        reasons = {reason: _entry(lost, instead or {}) for reason, lost in (dropped or {}).items()}
        row = {"step": name, "in": _sizes(before), "out": _sizes(after), "seconds": round(now - self._since, 2)}
        self.steps.append({**row, "by": by, "reasons": reasons})
        self._since = now

    def write(self, path: Path) -> None:
        """Write the ledger as JSON."""
        draft = path.with_name(path.name + ".part")
        text = json.dumps({"steps": self.steps, **self.facts}, ensure_ascii=False, indent=2)
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)


def joined(documents: Sequence[Document], lost: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Say what share deduplication removes when the dumps are joined one by one (the paper's Table 1).

    `lost` marks documents that equal, or join, an earlier one; documents lie in the order of their dumps.
    """
    last = {document.dump: position + 1 for position, document in enumerate(documents)}
    removed = np.cumsum(lost)
    rows = [(dump, end, int(removed[end - 1])) for dump, end in last.items()]
    return [
        {"dumps": number, "joined": dump, "documents": end, "removed": gone, "rate": round(gone / end, 4)}
        for number, (dump, end, gone) in enumerate(rows, 1)
    ]


def _sizes(documents: Iterable[Document]) -> dict[str, int]:
    sizes = [document.bytes for document in documents]
    return {"documents": len(sizes), "bytes": sum(sizes)}


def _compared(before: Sequence[Document], after: Sequence[Document], key: str) -> dict[str, dict[str, dict[str, int]]]:
    groups = sorted({getattr(document, key) for document in before} | {getattr(document, key) for document in after})
    return {
        group: {
            "in": _sizes(document for document in before if getattr(document, key) == group),
            "out": _sizes(document for document in after if getattr(document, key) == group),
        }
        for group in groups
    }


def _entry(lost: Sequence[Document], instead: Mapping[str, Document]) -> dict[str, Any]:
    samples = []
    for document in lost[:SAMPLES]:
        sample = {"id": document.id, "text": document.text[:EXCERPT]}
        if document.id in instead:
            sample["instead"] = instead[document.id].id
        samples.append(sample)
    return {**_sizes(lost), "samples": samples}
