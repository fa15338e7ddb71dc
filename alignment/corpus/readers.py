"""Corpora as they come -> documents: JSON Lines, Parquet, WARC, WET and text, plain or packed (.gz, .zst).

A row needs `text`; `id`, `lang` or `language`, `domain` are taken where present, everything else goes to `meta`. What
cannot be used is put aside with its place, a reason and an excerpt, and reading goes on behind it. A row is never held
in memory beyond the size that is allowed.
"""

from __future__ import annotations

import io
import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from alignment import rows
from alignment.corpus import documents, web
from alignment.corpus.documents import Document
from alignment.errors import DataError

UNKNOWN = "und"  # ISO 639: undetermined
EXCERPT = 160  # bytes of what is put aside
KINDS = (".jsonl", ".parquet", ".warc", ".wet", ".txt")  # each also with .gz or .zst behind it, but for Parquet
CUT_OFF, EMPTY = "file cut off", "empty"
MOST = 1 << 30  # bytes of a row in a file that a person names
BUFFER = 1 << 16  # bytes; what stands in it when a file breaks off is lost with the rest
BATCH_ROWS = 64  # of Parquet, decoded at a time
BROKEN: tuple[type[Exception], ...] = (*rows.BROKEN, zlib.error)  # of a file not whole


@dataclass(frozen=True)
class File:
    """A file of a corpus, here or on the hub; `name` is what ids and complaints call it."""

    name: str
    path: str  # on this machine, or ORG/NAME@REVISION/PATH of a data set on the hub
    on_hub: bool = False


@dataclass(frozen=True)
class Aside:
    """What was put aside: where it stood, why, and how it begins."""

    file: str
    row: int
    reason: str
    excerpt: str


def kind(name: str) -> str:
    """Tell how a file is read by its name. Raises DataError where nothing reads it."""
    stem = name.removesuffix(".gz").removesuffix(".zst")
    found = next((suffix for suffix in KINDS if stem.endswith(suffix)), None)
    if found is None or (found == ".parquet" and stem != name):
        raise DataError(f"{name}: no reader for this kind of file. Readable: {', '.join(KINDS)}, and those in .gz or .zst.")
    return found


def read(file: File, *, domain: str, language: str, dump: str, most: int, text: str = "text") -> Iterator[Document | Aside]:
    """Read one file. `domain` and `language` are for rows that name none, `most` is the size of a row in bytes."""
    parse = {".jsonl": _lines, ".parquet": _table, ".warc": _web, ".wet": _web, ".txt": _whole}[kind(file.name)]
    number = 0
    try:
        with _opened(file) as stream:
            for number, row in enumerate(parse(stream, file.name, most), 1):
                found = _document(row, text, most) if isinstance(row, dict) else row
                if isinstance(found, str):
                    found = Aside(file.name, number, found, _excerpt(row))
                if isinstance(found, Aside):
                    yield Aside(file.name, number, found.reason, found.excerpt)
                    continue
                yield Document(
                    id=f"{file.name}:{found['id'] or number}",
                    text=found["text"],
                    domain=found["domain"] or domain,
                    language=found["language"] or language,
                    dump=dump,
                    meta=found["meta"],
                )
    except FileNotFoundError:
        raise DataError(f"{file.path}: is not there any more. Restore it, or take it out of the card.") from None
    except BROKEN as error:
        yield Aside(file.name, number + 1, CUT_OFF, str(error)[:EXCERPT])


def whole(path: Path) -> Iterator[Document]:
    """Read a file that must be sound. Raises DataError with the place of what is not; empty texts are left out."""
    for found in read(File(path.name, str(path)), domain="", language=UNKNOWN, dump=path.name, most=MOST):
        if isinstance(found, Document):
            yield found
        elif found.reason != EMPTY:
            raise DataError(f"{path}, row {found.row}: {found.reason} ({found.excerpt!r}). Mend or remove it.")


def first(found: Iterable[Document], limit_bytes: int | None) -> Iterator[Document]:
    """Pass documents on until the next one would exceed the limit."""
    left = limit_bytes
    for document in found:
        if left is not None:
            left -= document.bytes
            if left < 0:
                return
        yield document


# -- a row ------------------------------------------------------------------------------------------------------------


def flaw(text: str, most: int) -> str | None:
    """Say why a text is none, or nothing."""
    visible = text.strip()
    if not visible:
        return EMPTY
    if "\0" in text:
        return "binary"
    if len(visible) > 1 and not visible.strip(visible[0]):
        return "one repeated character"
    try:
        return f"larger than {most:,} bytes" if len(text.encode()) > most else None
    except UnicodeEncodeError:
        return "half a surrogate pair"


def _document(row: dict[str, Any], field: str, most: int) -> dict[str, Any] | str:
    """A row's text, id, language, domain and meta, or the reason why it has none."""
    rest = dict(row)
    text = rest.pop(field, None)
    if not isinstance(text, str):
        return f"no field {field}" if field not in row else f"{field} is no text"
    if reason := flaw(text, most):
        return reason
    name = rest.pop("id", None)
    said = {key: rest.pop(key) for key in ("language", "lang", "domain") if isinstance(rest.get(key), str)}
    return {
        "text": text,
        "id": None if name is None else str(name),
        "language": said.get("language") or said.get("lang"),
        "domain": said.get("domain"),
        "meta": rest,
    }


def _excerpt(row: Any) -> str:
    shown = row if isinstance(row, bytes) else json.dumps(row, default=str)[: 2 * EXCERPT].encode()
    return bytes(shown[:EXCERPT]).strip().decode(errors="backslashreplace")


# -- the rows of a file -----------------------------------------------------------------------------------------------


def _lines(stream: IO[bytes], _: str, most: int) -> Iterator[dict[str, Any] | Aside]:
    lines = io.BufferedReader(stream, BUFFER)  # type: ignore[type-var]  # has all that is asked of a raw stream
    try:
        for number, line in enumerate(iter(partial(lines.readline, most), b"")):
            head = line
            while not line.endswith(b"\n") and len(line) == most:
                line = lines.readline(most)
            if head is not line:
                yield Aside("", 0, f"larger than {most:,} bytes", _excerpt(head))
                continue
            yield _row(line.removeprefix(BOM_UTF8) if number == 0 else line)
    finally:
        lines.detach()  # whoever opened the stream closes it


def _row(line: bytes) -> dict[str, Any] | Aside:
    try:
        value = documents.parse(line)
        if b"\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return Aside("", 0, "not UTF-8", _excerpt(line))
    except UnicodeEncodeError:
        return Aside("", 0, "half a surrogate pair", _excerpt(line))
    except (ValueError, RecursionError):
        return Aside("", 0, "not JSON" if line.strip() else EMPTY, _excerpt(line))
    return value if isinstance(value, dict) else Aside("", 0, "not an object", _excerpt(line))


def _table(stream: IO[bytes], _: str, __: int) -> Iterator[dict[str, Any]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(stream, pre_buffer=False) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


def _whole(stream: IO[bytes], name: str, most: int) -> Iterator[dict[str, Any] | Aside]:
    content = stream.read(most + 1)
    if len(content) > most:
        yield Aside("", 0, f"larger than {most:,} bytes", _excerpt(content))
        return
    try:
        yield {"id": name, "text": content.removeprefix(BOM_UTF8).decode()}
    except UnicodeDecodeError:
        yield Aside("", 0, "not UTF-8", _excerpt(content))


def _web(stream: IO[bytes], _: str, most: int) -> Iterator[dict[str, Any] | Aside]:
    for found in web.records(stream, most):
        yield found if isinstance(found, dict) else Aside("", 0, found, "")


# -- streams ----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: File) -> Iterator[IO[bytes]]:
    """Open a file as the bytes that it holds, unpacked."""
    with _raw(file) as raw:
        if file.name.endswith(".gz"):
            from isal import igzip

            yield igzip.IGzipFile(fileobj=raw)  # type: ignore[misc, no-untyped-call]  # a reader of bytes like any other
        elif file.name.endswith(".zst"):
            from pyarrow import CompressedInputStream, PythonFile

            with CompressedInputStream(PythonFile(raw, "r"), "zstd") as unpacked:
                yield unpacked
        else:
            yield raw  # type: ignore[misc]


def _raw(file: File) -> io.RawIOBase:
    if file.on_hub:
        from alignment.corpus.remote import Remote

        return Remote(file.path, seeks=kind(file.name) == ".parquet")  # a table is read from its end
    return Path(file.path).open("rb", buffering=0)
