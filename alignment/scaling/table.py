"""Results that laws are fitted to: rows of our own sweeps, or of others as a table of (C, N, D, loss), read strictly."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.errors import DataError

ROWS = "rows.jsonl"
ALSO = {"C": "budget", "N": "parameters", "M": "scale", "D": "tokens"}  # how papers head such tables
AMOUNTS = ("budget", "scale", "parameters", "tokens")
MEASURES = {"scale": "M", "scale_6n1": "6 N1", "scale_6n2": "6 N2"}


@dataclass(frozen=True)
class Row:
    """One training. `scale` is M, or 6 N where the table has only parameters; `loss` in bits per byte or nats a token."""

    run: str
    data: str
    budget: float
    scale: float
    tokens: float
    loss: float
    seed: int = 0
    learning_rate: float | None = None
    batch_tokens: float | None = None
    scale_6n1: float | None = None
    scale_6n2: float | None = None
    sequence: int | None = None
    vocab: int | None = None
    diverged: bool = False
    unit: str = "loss"
    tokenizer: str | None = None


def read(paths: Iterable[Path]) -> list[Row]:
    """Read sweeps (their runs) and tables (.csv, .jsonl).

    Raises DataError for a table that lacks a column, and for losses per token of different tokenizers.
    """
    rows = [row for path in paths for row in _file(path / ROWS if path.is_dir() else path)]
    if not rows:
        raise DataError("no rows: name the run of a sweep, or a table with the columns C, N (or M), D, loss.")
    units = {row.unit for row in rows}
    tokenizers = {row.tokenizer for row in rows}
    if len(units) > 1:
        raise DataError("some rows have bits_per_byte, others loss: they cannot be compared. Give one of the two.")
    if units == {"loss"} and len(tokenizers) > 1:
        names = ", ".join(sorted(map(str, tokenizers)))
        raise DataError(
            f"losses per token of different tokenizers ({names}) cannot be compared. Give bits_per_byte, or one tokenizer."
        )
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSONL that `read` takes."""
    said = [{name: value for name, value in asdict(row).items() if value is not None and name != "unit"} for row in rows]
    for row, words in zip(rows, said, strict=True):
        words[row.unit] = words.pop("loss")
    path.write_text("".join(json.dumps(words) + "\n" for words in said), encoding="utf-8")


def learnt(rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """Part the runs that learnt from those that diverged; the latter by name."""
    kept, excluded = [], []
    for row in rows:
        if row.diverged or not math.isfinite(row.loss):
            excluded.append(row.run)
        else:
            kept.append(row)
    return kept, excluded


def _file(path: Path) -> list[Row]:
    if not path.exists():
        raise DataError(f"{path}: not there. Run the sweep to its end first, or name a table (.csv, .jsonl).")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            raw: list[Any] = [*csv.DictReader(text.splitlines())]
        else:
            raw = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: {error}. A table is .csv with a head line, or .jsonl.") from None
    return [_row(words, f"{path}, row {number}") for number, words in enumerate(raw, start=1)]


def _row(raw: Any, where: str) -> Row:
    if not isinstance(raw, dict):
        raise DataError(f"{where}: not an object but {type(raw).__name__}. Write one with C, N (or M), D, loss.")
    words = {ALSO.get(name, name): value for name, value in raw.items() if value not in (None, "")}
    unit = "bits_per_byte" if "bits_per_byte" in words else "loss"
    words["loss"] = words.pop(unit, None)
    numbers = {name: _amount(words[name], f"{where}: {name}") for name in AMOUNTS if name in words}
    if words["loss"] is not None:
        numbers["loss"] = _loss(words["loss"], f"{where}: loss")
    if "scale" not in numbers and "parameters" in numbers:
        numbers["scale"] = 6 * numbers["parameters"]
    if "tokens" not in numbers and {"budget", "scale"} <= numbers.keys():
        numbers["tokens"] = numbers["budget"] / numbers["scale"]
    if "budget" not in numbers and {"tokens", "scale"} <= numbers.keys():
        numbers["budget"] = numbers["tokens"] * numbers["scale"]
    for name in ("budget", "scale", "tokens", "loss"):
        if name not in numbers:
            raise DataError(f"{where}: no {name}. A row needs the loss and two of C (budget), N or M (scale), D (tokens).")
    optional = ("learning_rate", "batch_tokens", *(name for name in MEASURES if name != "scale"))
    found: dict[str, Any] = {name: _amount(words[name], f"{where}: {name}") for name in optional if name in words}
    found |= {name: _whole(words[name], f"{where}: {name}") for name in ("seed", "sequence", "vocab") if name in words}
    return Row(
        run=str(words.get("run", where)),
        data=str(words.get("data", "all")),
        budget=numbers["budget"],
        scale=numbers["scale"],
        tokens=numbers["tokens"],
        loss=numbers["loss"],
        diverged=str(words.get("diverged", False)).lower() == "true",
        unit=unit,
        tokenizer=words.get("tokenizer"),
        **found,
    )


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: {value!r} is not a number.") from None


def _amount(value: Any, where: str) -> float:
    number = _number(value, where)
    if not 0 < number < math.inf:
        raise DataError(f"{where} {number:g} is not above 0 and finite. Mend the row, or remove it.")
    return number


def _loss(value: Any, where: str) -> float:
    """A loss may be infinite or no number: that run diverged."""
    number = _number(value, where)
    if number <= 0:
        raise DataError(f"{where} {number:g} is not above 0. Mend the row, or remove it.")
    return number


def _whole(value: Any, where: str) -> int:
    number = _number(value, where)
    if not number.is_integer():
        raise DataError(f"{where}: {value!r} is not a whole number. Mend the row, or remove it.")
    return int(number)
