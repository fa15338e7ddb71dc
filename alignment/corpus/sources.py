"""What a recipe reads, as shards: each file of a card is one, each run and each installed origin is one.

A source with a limit is read from its beginning up to there, so all of it is one shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from alignment import recipe as words
from alignment.corpus import documents, installed, readers
from alignment.corpus.documents import Document
from alignment.corpus.readers import Aside, File
from alignment.errors import DataError
from alignment.run import Run
from alignment.sieve import Examples


@dataclass(frozen=True)
class Part:
    """One shard of a source; `number` is the source's place in the recipe."""

    number: int
    source: words.RawText
    files: tuple[File, ...] = ()
    domain: str = ""
    language: str = readers.UNKNOWN
    most: int = readers.MOST  # bytes of a document


def parts(recipe: words.Corpus, here: Run) -> list[Part]:
    """Divide all sources into shards, in the order of the recipe. Raises DataError for a file that nothing reads."""
    return [
        part for number, source in enumerate(recipe.data) for part in _parts(number, source, recipe.max_document_bytes, here)
    ]


def _parts(number: int, source: words.RawText, most: int, here: Run) -> list[Part]:
    part = Part(number, source, most=most)
    if source.run:
        path = here.inputs[source.run].path / "documents.jsonl"
        return [replace(part, files=(File(source.run, str(path)),))]
    if source.installed:
        return [part]
    opened = here.cards[str(source.card)]
    files = _chosen(source, opened.files())
    for file in files:
        readers.kind(file.name)
    part = replace(part, domain=opened.card.domain, language=opened.card.language)
    limited = source.rows or source.limit_bytes
    return [replace(part, files=group) for group in ([files] if limited else [(file,) for file in files])]


def name(source: words.RawText) -> str:
    """What a complaint calls a source."""
    return source.run or source.card or source.installed or "a source"


def read(part: Part) -> Iterator[Document | Aside]:
    """Read one shard: its documents, as the recipe wants them called, and what was put aside."""
    source = part.source
    left_rows, left_bytes = source.rows, source.limit_bytes
    for found in _found(part):
        if isinstance(found, Document):
            if source.ids and not any(fnmatchcase(found.id, pattern) for pattern in source.ids):
                continue
            if left_rows is not None and (left_rows := left_rows - 1) < 0:
                return
            if left_bytes is not None and (left_bytes := left_bytes - found.bytes) < 0:
                return
            if source.domain or source.dump:
                found = replace(found, domain=source.domain or found.domain, dump=source.dump or found.dump)
        yield found


def examples(named: Examples, here: Run) -> Iterator[Document]:
    """Read the documents that a section of the recipe names. Raises DataError at what cannot be used."""
    source = words.RawText(run=named.run, card=named.card, installed=named.installed)
    for part in _parts(0, source, readers.MOST, here):
        for found in read(part):
            if isinstance(found, Aside):
                raise DataError(f"{found.file}, row {found.row}: {found.reason} ({found.excerpt!r}). Mend or remove it.")
            yield found


def judge(source: words.RawText, number: int, files: int, rows: int, aside: Counter[str]) -> None:
    """Stop where a source gave nothing, or where more of it was put aside than may be (`aside` counts by reason)."""
    bad = aside.total()
    said = ", ".join(f"{reason}: {count}" for reason, count in aside.most_common())
    if bad > source.max_bad_share * (rows + bad) or aside[readers.CUT_OFF] > source.max_bad_share * files:
        raise DataError(
            f"data.{number}: {name(source)}: {bad} of {rows + bad} rows cannot be used ({said}), more than "
            f"max_bad_share {source.max_bad_share:g} of its rows or of its files. Mend it, or allow more."
        )
    if not rows:
        raise DataError(f"data.{number}: {name(source)} gave no document. Raise its limit, or check the source.")


def _found(part: Part) -> Iterator[Document | Aside]:
    source = part.source
    if source.run:
        yield from documents.read(Path(part.files[0].path))
    elif source.installed:
        yield from islice(installed.documents(source.installed), source.rows)
    else:
        for file in part.files:
            yield from readers.read(
                file, domain=part.domain, language=part.language, dump=file.name, most=part.most, text=source.text
            )


def _chosen(source: words.RawText, files: tuple[File, ...]) -> tuple[File, ...]:
    """The files whose name behind the card's matches a pattern; every pattern must find one."""
    if not source.files:
        return files
    tails = {file: file.name.partition("/")[2] for file in files}
    for pattern in source.files:
        if not any(fnmatchcase(tail, pattern) for tail in tails.values()):
            raise DataError(f"files: {pattern} matches none of the {len(files)} files of card {source.card}. Mend it.")
    return tuple(file for file, tail in tails.items() if any(fnmatchcase(tail, pattern) for pattern in source.files))
