"""Instruction rows -> tokenised rows with labels, and a validation split.

The learnt part is exactly the answers with their end marks. A row that is too long is dropped and counted, never cut.
Rows with the same question lie on one side of the split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from alignment import chat
from alignment.corpus import decontaminate
from alignment.corpus.documents import Document
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.posttrain import doctor, start, supervision
from alignment.posttrain.diagnosis import Cut, Diagnosis
from alignment.recipe import Mixture, Source
from alignment.run import Run, write_text

Row = dict[str, Any]
WRITTEN = ("id", "input_ids", "labels", "source", "language", "domain")  # of a row; its text stays in its source


class Tokenised(NamedTuple):
    """Rows that can be learnt, with what was left out by reason, and what cutting the long ones would have lost."""

    rows: list[Row]
    dropped: Counter[str]
    cut: Cut


def build(recipe: Mixture, here: Run, hardware: Hardware) -> dict[str, float | int | str]:  # noqa: ARG001
    """Write rows.jsonl, validation.jsonl and ledger.json, if the doctor finds the rows sound."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    (rows, dropped, cut), overlap = gather(recipe, here, tokenizer)
    train, validation = split(rows, recipe.validation, recipe.seed)
    where = f"{here.path}: {recipe.stage}"
    found = doctor.rows(train, validation, cut, dropped, tokenizer, where, overlong=recipe.overlong)
    counts = doctor.gate(found, here)
    for name, part in (("rows", train), ("validation", validation)):
        save(here.path / f"{name}.jsonl", ({key: row[key] for key in WRITTEN} for row in part))
    ledger = {
        **counts,
        "validation": len(validation),
        "dropped": dict(dropped),
        "sources": dict(Counter(row["source"] for row in rows)),
        "domains": dict(Counter(row["domain"] for row in rows)),
        "languages": dict(Counter(row["language"] for row in rows)),
        "tokenizer": supervision.signature(tokenizer),
        **({"decontamination": overlap} if overlap else {}),
    }
    write_text(here.path / "ledger.json", json.dumps(ledger, indent=1, ensure_ascii=False))
    here.say(f"{len(train):,} rows, {len(validation)} for validation; dropped: {said(dropped)}")
    return {**counts, "validation": len(validation), "dropped": dropped.total()}


def examine(recipe: Mixture, here: Run) -> Diagnosis:
    """Let the doctor look at the rows that this recipe would write."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    (rows, dropped, cut), _ = gather(recipe, here, tokenizer)
    train, validation = split(rows, recipe.validation, recipe.seed)
    return doctor.rows(train, validation, cut, dropped, tokenizer, recipe.stage, overlong=recipe.overlong)


def gather(recipe: Mixture, here: Run, tokenizer: Any) -> tuple[Tokenised, dict[str, Any]]:
    """Read, clean and tokenise all rows; beside them, what they shared with the held-out items."""
    dropped: Counter[str] = Counter()
    found: list[Row] = []
    for source in recipe.data:
        found += read(source, here, dropped)
    overlap: dict[str, Any] = {}
    if recipe.against:
        found, overlap = clean(found, here.inputs[recipe.against].path / "heldout")
        dropped["contains a held-out item"] += overlap["documents_containing_items"]
    with here.progress("rows", len(found)) as bar:
        rows, too_bad, cut = tokenise(found, tokenizer, recipe.max_length, bar.advance)
    return Tokenised(rows, dropped + too_bad, cut), overlap


def read(source: Source, here: Run, dropped: Counter[str]) -> list[Row]:
    """Read the instruction rows of a run or a card; what a card's reader leaves out is added to `dropped`."""
    if source.run:
        path = here.inputs[source.run].path / "instructions.jsonl"
        if not path.exists():
            raise DataError(f"{path}: no such file. Name a run that writes instructions, or a card.")
        return list(islice(load(path), source.rows))
    card = here.cards[str(source.card)]
    rows = list(islice(card.rows(), source.rows))
    dropped.update(card.dropped)
    return rows


def clean(rows: Sequence[Row], heldout: Path) -> tuple[list[Row], dict[str, Any]]:
    """Drop rows that contain a whole evaluation item; return the others, and what all shared with the items."""
    documents = (
        Document(
            str(i), "\n".join(turn["content"] for turn in row["messages"]), row["domain"], row["language"], row["source"]
        )
        for i, row in enumerate(rows)
    )
    found = decontaminate.overlap(documents, decontaminate.heldout(heldout))
    return [row for i, row in enumerate(rows) if i not in found.contains], found.report()


def tokenise(
    rows: Iterable[Row], tokenizer: Any, max_length: int, advance: Callable[[], object] = lambda: None
) -> Tokenised:
    """Encode conversations; a row that cannot be learnt is counted by its reason."""
    kept: list[Row] = []
    dropped: Counter[str] = Counter()
    cut = Cut(max_length)
    seen: set[bytes] = set()
    for row in rows:
        advance()
        messages = row["messages"]
        said_by = [[message["role"], message["content"]] for message in messages]
        known = hashlib.blake2b(json.dumps(said_by).encode(), digest_size=16).digest()
        if not all(content.strip() for role, content in said_by if role == "assistant"):
            dropped["empty answer"] += 1
            continue
        if known in seen:
            dropped["exact duplicate"] += 1
            continue
        encoded = chat.encode(tokenizer, messages, answer=True)
        if not any(encoded.learnt):
            dropped["no answer"] += 1
        elif len(encoded.input_ids) > max_length:
            dropped[f"longer than {max_length} tokens"] += 1
            cut.add(row["id"], encoded.input_ids, encoded.labels())
        else:
            seen.add(known)
            kept.append({**row, "input_ids": encoded.input_ids, "labels": encoded.labels()})
    return Tokenised(kept, dropped, cut)


def split(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Hold out about `share` of the rows, question by question, in the order of a seeded hash."""
    asked = [_question(row, seed) for row in rows]
    sizes = Counter(asked)
    wanted, held, taken = round(share * len(rows)), set(), 0
    for question in sorted(sizes):
        if taken >= wanted:
            break
        held.add(question)
        taken += sizes[question]
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row, question in zip(rows, asked, strict=True):
        sides[question in held].append(row)
    return sides


def load(path: Path) -> Iterator[Row]:
    """Read a JSONL file of ours."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def save(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def said(counts: Mapping[str, int]) -> str:
    """Say counts by reason in a line."""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "nothing"


def _question(row: Row, seed: int) -> str:
    """Hash what stands before the first answer."""
    labels = row["labels"]
    first = next(i for i, label in enumerate(labels) if label != -100)
    return hashlib.blake2b(json.dumps([seed, row["input_ids"][:first]]).encode(), digest_size=16).hexdigest()
