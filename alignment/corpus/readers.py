"""Corpora as they come: JSON Lines (plain or gzip) and text files -> documents.

A row needs `text`; `id`, `lang` or `language`, `domain` are taken where present, everything else goes to `meta`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alignment.corpus import documents
from alignment.corpus.documents import Document
from alignment.errors import DataError

UNKNOWN = "und"  # ISO 639: undetermined


def read(path: Path, domain: str, dump: str) -> Iterator[Document]:
    """Read one corpus file; `domain` is for rows that name none. A text file is one document."""
    if path.name.endswith(".txt"):
        yield Document(path.name, _text(path), domain, UNKNOWN, dump)
    elif path.name.endswith(".jsonl"):
        yield from (_document(row, domain, dump, number) for number, (_, row) in enumerate(documents.rows(path), 1))
    elif path.name.endswith(".jsonl.gz"):
        yield from (_document(row, domain, dump, number) for number, row in enumerate(_unpacked(path), 1))
    else:
        raise DataError(f"{path}: no reader for this kind of file. Readable: .jsonl, .jsonl.gz, .txt.")


def first(found: Iterable[Document], limit_bytes: int | None) -> Iterator[Document]:
    """Pass documents on until the next one would exceed the limit."""
    left = limit_bytes
    for document in found:
        if left is not None:
            left -= document.bytes
            if left < 0:
                return
        yield document


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from None


def _unpacked(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                yield documents.row(line, f"{path}, line {number}")[1]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}). Is the file whole?") from None


def _document(row: dict[str, Any], domain: str, dump: str, number: int) -> Document:
    rest = dict(row)
    text = rest.pop("text")
    language = rest.pop("language", None) or rest.pop("lang", None) or UNKNOWN
    name = rest.pop("id", None)
    return Document(
        id=str(number if name is None else name),
        text=text,
        domain=rest.pop("domain", None) or domain,
        language=language,
        dump=dump,
        meta=rest,
    )
