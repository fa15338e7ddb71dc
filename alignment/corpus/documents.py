"""The unit of a corpus, and the JSON Lines file it travels in between stages.

A file is written beside its place and moved there when it is whole, so a killed stage leaves no half corpus behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from alignment.errors import DataError


@dataclass(frozen=True)
class Document:
    """One text with its origin. `dump` is the delivery it came in: duplicates are sought over all dumps together."""

    id: str
    text: str
    domain: str
    language: str
    dump: str
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def bytes(self) -> int:
        """The length of the text in UTF-8."""
        return len(self.text.encode())


BATCH_DOCUMENTS, BATCH_BYTES = 1024, 4 << 20
NAMES = tuple(field.name for field in fields(Document))


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read JSON objects line by line, each with the place (file and line) a complaint can name."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield row(line, f"{path}, line {number}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Run the stage that writes it first.") from None


def row(line: bytes, where: str) -> tuple[str, dict[str, Any]]:
    """Read one line as a JSON object with a `text`."""
    try:
        value = parse(line)
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            value["text"].encode()
            return where, value
    except ValueError as error:  # not UTF-8, not JSON, or half a surrogate pair
        raise DataError(f"{where}: not a row of JSON in UTF-8 ({error}). Mend or remove the line.") from None
    raise DataError(f"{where}: a document is an object with a `text` string. Mend or remove the line.")


def read(path: Path) -> Iterator[Document]:
    """Read the documents that `write` wrote. Raises DataError naming file and line."""
    for where, value in rows(path):
        missing, unknown = set(NAMES) - set(value), set(value) - set(NAMES)
        if missing or unknown:
            raise DataError(f"{where}: fields missing: {sorted(missing)}, unknown: {sorted(unknown)}. Was it written by us?")
        yield Document(**value)


def parse(line: bytes) -> Any:
    """Read JSON in UTF-8. Raises ValueError; what only Python calls JSON (NaN, half a surrogate pair) is read too."""
    try:
        return orjson.loads(line)
    except ValueError:
        return json.loads(line.decode())


def line(document: Document) -> bytes:
    """Say a document as one line of JSON in UTF-8."""
    record = {name: getattr(document, name) for name in NAMES}
    try:
        return orjson.dumps(record, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a number beyond 64 bits
        return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode()


def write(path: Path, documents: Iterable[Document]) -> int:
    """Write documents, one JSON object a line; return how many."""
    draft = path.with_name(path.name + ".part")
    count = 0
    with draft.open("wb") as out:
        for document in documents:
            out.write(line(document))
            count += 1
    os.replace(draft, path)
    return count


def batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    """Collect documents until there are many, or much text."""
    batch: list[Document] = []
    size = 0
    for document in found:
        batch.append(document)
        size += document.bytes
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
