"""The gate before fine-tuning: is what will be learnt what was meant?

The usual accidents are silent: no answer token is learnt, the end mark is not (the model never stops), BOS stands
twice, the rows were made with another tokenizer. Here each of them stops the run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from alignment import chat
from alignment.errors import DataError

Row = Mapping[str, Any]
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]


def check(rows: Iterable[Row], tokenizer: Any, where: str) -> dict[str, int]:
    """Count tokens and learnt tokens of tokenised rows. Raises DataError listing every kind of violation."""
    ends, vocabulary, bos = chat.end_ids(tokenizer), len(tokenizer), opening(tokenizer)
    wrong: Counter[str] = Counter()
    first: dict[str, int] = {}
    seen: Counter[str] = Counter(rows=0, tokens=0, learnt_tokens=0)
    for number, row in enumerate(rows, 1):
        ids, labels = row["input_ids"], row["labels"]
        seen.update(rows=1, tokens=len(ids), learnt_tokens=sum(label != -100 for label in labels))
        for fault in _faults(ids, labels, ends, vocabulary, bos):
            wrong[fault] += 1
            first.setdefault(fault, number)
    if not seen["rows"]:
        raise DataError(f"{where}: no row is left to learn from. See what was dropped, or name other data.")
    if wrong:
        lines = [f"  {n} of {seen['rows']} rows: {fault} (first: row {first[fault]})" for fault, n in wrong.most_common()]
        raise DataError(f"{where}: the rows would not teach what is meant.\n" + "\n".join(lines))
    return dict(seen)


def opening(tokenizer: Any) -> int | None:
    """The id that stands once, in front of every conversation; None where the template has no such mark."""
    bos = tokenizer.bos_token_id
    ids = chat.encode(tokenizer, TURNS, answer=False).input_ids
    return bos if bos is not None and ids[0] == bos and ids.count(bos) == 1 else None


def signature(tokenizer: Any) -> str:
    """Name a tokenizer with its chat template by content: rows made with one are not read with another."""
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode()).hexdigest()


def _faults(ids: list[int], labels: list[int], ends: set[int], vocabulary: int, bos: int | None) -> Iterator[str]:
    if len(ids) != len(labels):
        yield "as many labels as tokens are needed"
        return
    if any(label not in (-100, i) for i, label in zip(ids, labels, strict=True)):
        yield "a label is neither -100 nor its token"
    if not all(0 <= i < vocabulary for i in ids):
        yield f"a token lies outside the vocabulary of {vocabulary}"
    if bos is not None and (ids[:1] != [bos] or ids.count(bos) != 1):
        yield "exactly one BOS must stand, in front"
    stretches = [list(part) for learnt, part in groupby(labels, lambda label: label != -100) if learnt]
    if not stretches:
        yield "no token is learnt"
    if any(stretch[-1] not in ends for stretch in stretches):
        yield "an answer does not end in a learnt end mark (was it cut?)"
