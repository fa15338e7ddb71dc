"""Rows that a source gives, tokenised in batches; by source and reason, what cannot be learnt from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from alignment.posttrain import mould
from alignment.posttrain.diagnosis import Cut
from alignment.posttrain.spool import Row


@dataclass
class Intake:
    """Tokenises rows, batch after batch; counts by source and reason those that cannot be learnt."""

    tokenizer: Any
    cut: Cut
    read: Counter[str] = field(default_factory=Counter)  # rows by source
    dropped: dict[str, Counter[str]] = field(default_factory=dict)  # source -> reason -> rows
    seen: set[bytes] = field(default_factory=set)

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that can be learnt, with `input_ids` and `labels`."""
        new = [row for row in rows if not self._drop(row, self._unfit(row))]
        kept = []
        for row, (ids, labels) in zip(new, mould.encode(self.tokenizer, [row["messages"] for row in new]), strict=True):
            if labels.count(-100) == len(labels):
                self._drop(row, "no answer")
            elif len(ids) > self.cut.limit:
                self._drop(row, f"longer than {self.cut.limit} tokens")
                self.cut.add(row["id"], ids, labels)
            else:
                kept.append({**row, "input_ids": ids, "labels": labels})
        return kept

    def _unfit(self, row: Row) -> str | None:
        said = [[turn["role"], turn["content"]] for turn in row["messages"]]
        if not all(content.strip() for role, content in said if role == "assistant"):
            return "empty answer"
        known = hashlib.blake2b(orjson.dumps(said), digest_size=16).digest()
        if known in self.seen:
            return "exact duplicate"
        self.seen.add(known)
        return None

    def _drop(self, row: Row, reason: str | None) -> bool:
        if reason:
            self.count(row["source"], reason)
        return reason is not None

    @property
    def left_out(self) -> Counter[str]:
        """What was left out, by reason."""
        return sum(self.dropped.values(), Counter())

    def count(self, source: str, reason: str, rows: int = 1) -> None:
        """Note rows of a source that are left out."""
        if rows:
            self.dropped.setdefault(source, Counter())[reason] += rows
