"""The rows of a benchmark, wherever they lie: below the data root, or on the hub at the revision its data card pins.

A benchmark names the files that it can read by patterns, in order of preference: this project's JSON Lines, the files of
the hub (Parquet), the official archive (CSV, unpacked or as .zip). What is wrong is named with file and row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from alignment import data_card
from alignment.errors import DataError
from alignment.recipe import UNPINNED

Values = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A row, its place for complaints, and its file as the pattern found it ("law/val-00000-of-00001.parquet")."""

    values: Values
    where: str
    file: str


def read(
    root: Path | None, name: str, patterns: Sequence[str], fields: Iterable[str] = (), columns: Sequence[str] = ()
) -> list[Record]:
    """Read the rows of a benchmark's split: of the first pattern that names files, all files; each row has `fields`.

    `columns` names those of CSV files without a head. Raises DataError naming file and row.
    """
    folder = place(root, name)
    for pattern in patterns:
        if files := _files(folder, pattern):
            return [record for file in files for record in _checked(*file, fields, columns)]
    wanted = f"{folder / patterns[0]}: no such file"
    others = f", nor {', '.join(patterns[1:])}" if patterns[1:] else ""
    raise DataError(f"{wanted}{others} (.gz is read too). Name the folder that holds {name}/{patterns[0]} with --data-root.")


def rows(root: Path, name: str, fields: Iterable[str]) -> list[Values]:
    """Read a JSONL file below a folder, plain or gzipped, whose rows must have these fields."""
    path = Path(name)
    return [record.values for record in read(root, str(path.parent), (path.name,), fields)]


def place(root: Path | None, name: str) -> Path:
    """Say in which folder a benchmark's files lie; without a data root they are fetched from the hub."""
    if root is not None:
        return root / name
    card = data_card.load(name, data_card.CARDS)
    if card.hub is None or card.revision in (None, UNPINNED):
        pin = f", or run `python -m alignment pin {data_card.CARDS / name}.md` once to fetch {card.hub} from the hub"
        raise DataError(f"--data-root: missing. Name the folder that holds {name}/{pin if card.hub else ''}.")
    from huggingface_hub import snapshot_download

    files = [file for split in card.splits.values() for file in split.hub_files or split.files]
    with data_card.asking_hub(f"card {name}: {card.hub}@{card.revision}"):
        endpoint = os.environ.get("HF_ENDPOINT")
        fetched = snapshot_download(
            card.hub, repo_type="dataset", revision=card.revision, allow_patterns=files, endpoint=endpoint
        )
    return Path(fetched)


def _files(folder: Path, pattern: str) -> list[tuple[Path, str]]:
    """Files that a pattern names, as (file on disk, name within the folder or archive). `x.zip!a/*.csv` looks inside."""
    archive, _, member = pattern.partition("!")
    if member:
        return [(path, name) for path in sorted(folder.glob(archive)) for name in _members(path, member)]
    paths = sorted(folder.glob(pattern)) or sorted(folder.glob(f"{pattern}.gz"))
    return [(path, str(path.relative_to(folder))) for path in paths]


def _members(path: Path, pattern: str) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = (name for name in archive.namelist() if not name.startswith("__MACOSX"))
            return sorted(name for name in names if Path(name).match(pattern))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}). Fetch the file again.") from None


def _checked(path: Path, name: str, fields: Iterable[str], columns: Sequence[str]) -> Iterator[Record]:
    where = str(path) if str(path).endswith(name) else f"{path}!{name}"
    number = 0
    try:
        for number, row in enumerate(_values(path, name, columns), start=1):
            if not isinstance(row, dict):
                raise DataError(f"{where}, row {number}: not an object but {type(row).__name__}. Fetch the file again.")
            missing = [field for field in fields if field not in row]
            if missing:
                raise DataError(f"{where}, row {number}: no field {missing[0]!r}. It has {', '.join(map(str, row))}.")
            yield Record(row, f"{where}, row {number}", name)
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, csv.Error) as error:
        raise DataError(f"{where}, row {number + 1}: unreadable ({error}). Fetch the file again.") from None
    if number == 0:
        raise DataError(f"{where}: empty. A score needs items; fetch the file again.")


def _values(path: Path, name: str, columns: Sequence[str]) -> Iterator[Any]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            yield from _table(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), columns)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _table(file, columns)
    elif path.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    else:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _table(file: TextIO, columns: Sequence[str]) -> Iterator[Values]:
    """Rows of a CSV file; one with more or fewer cells than the head is no row."""
    lines = csv.reader(file, strict=True)
    head = list(columns) or next(lines, [])
    for cells in lines:
        if len(cells) != len(head):
            raise ValueError(f"{len(cells)} cells, where {len(head)} are expected")
        yield dict(zip(head, cells, strict=True))
