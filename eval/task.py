"""What a task is: items with a target, a prompt for each form of model, and a pure mark for an answer.

Rows come from files below the data root, in the formats in which the benchmarks are published. A task never sees a
model: `evaluate` asks for prompts, saves answers, and has them marked.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from alignment.errors import DataError
from alignment.verify import judge
from alignment.verify.problem import Problem

Form = Literal["completion", "chat"]  # a base model continues worked examples; a chat model is simply asked
Answer = str | dict[str, float]  # text, or the log-probability of each option


@dataclass(frozen=True)
class Item:
    """One question. `shots` are the worked examples it may be preceded by, already written out."""

    id: str
    problem: Problem
    group: str  # seen or unseen template, or the subject
    language: str
    header: str = ""
    shots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What was read out of an answer (None: nothing could be read) and whether it is right."""

    read: str | None
    correct: bool
    why: str = ""
    layers: tuple[str, ...] = ()  # of the sandbox that ran the code


class Task(Protocol):
    """A benchmark: a row of the dict in one of the files in eval/tasks."""

    @property
    def name(self) -> str:
        """Name the task as on the command line."""

    @property
    def macro(self) -> bool:
        """Whether the score is the mean over groups instead of over items."""

    def items(self, root: Path) -> list[Item]:
        """Read the items below the data root. Raises DataError naming path and row."""

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Write what the model sees; in chat form, the user's turn."""

    def options(self, item: Item, form: Form) -> tuple[str, ...]:
        """Name the continuations to score; empty when the answer is generated."""

    def stop(self, form: Form) -> tuple[str, ...]:
        """Name the texts that end a generated answer."""

    @property
    def max_new_tokens(self) -> int:
        """Longest answer."""

    @property
    def temperature(self) -> float:
        """0 for the likeliest answer, 1 for one drawn as the model would speak."""

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read the answers and compare them with the targets. Pure, so that it can be repeated."""


def rows(root: Path, name: str, fields: Iterable[str]) -> list[dict[str, Any]]:
    """Read a JSONL file, plain or gzipped, whose rows must have these fields."""
    plain, packed = root / name, root / f"{name}.gz"
    path = plain if plain.exists() else packed
    if not path.exists():
        raise DataError(f"{plain}: no such file, nor with .gz. Name the folder that holds {name} with --data-root.")
    found = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path == packed else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path}, row {number}: not an object but {type(row).__name__}. Fetch the file again.")
                missing = [field for field in fields if field not in row]
                if missing:
                    raise DataError(f"{path}, row {number}: no field {missing[0]!r}. It has {', '.join(row)}.")
                found.append(row)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}, row {len(found) + 1}: unreadable ({error}). Fetch the file again.") from None
    if not found:
        raise DataError(f"{path}: empty. A score needs items; fetch the file again.")
    return found


def group(row: dict[str, Any], otherwise: str) -> str:
    """Name the group of a row: the mini sets hold whole templates that were never trained."""
    if "unseen" not in row:
        return otherwise
    return "unseen template" if row["unseen"] else "seen template"


def verified(items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
    """Mark written answers by the verifier that preferences and rewards use too."""
    said = [(item.problem, answer) for item, answer in zip(items, answers, strict=True) if isinstance(answer, str)]
    if len(said) < len(items):
        raise DataError(f"{items[0].id}: scores where texts were expected. The saved answers belong to another task.")
    return [Mark(found.read, found.correct, found.why, found.layers) for found in judge.verify_many(said)]
