"""A question whose answer can be checked by rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from alignment.errors import DataError

_TESTS = re.compile(r"^(?:assert\b|def check\()", re.MULTILINE)
Kind = Literal["number", "expression", "choice", "code", "refusal"]


@dataclass(frozen=True)
class Problem:
    """What is asked, and what makes an answer right.

    number: `target` is the number. expression: `target` is its TeX. choice: `target` is the letter. refusal: `target` is
    "decline" or "answer".
    code: `tests` define `check(candidate)` (as HumanEval does) or are plain asserts, `entry_point` names the function.
    """

    id: str
    prompt: str
    kind: Kind
    target: str = ""
    tests: str = ""
    entry_point: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(f"problem {self.id}: kind {self.kind!r}. Known: {', '.join(get_args(Kind))}.")
        if self.kind == "code" and not _TESTS.search(self.tests):
            raise DataError(f"problem {self.id}: code without `assert` or `def check(`. Nothing could fail it.")
        if self.kind == "code" and not self.entry_point.isidentifier():
            raise DataError(f"problem {self.id}: entry_point {self.entry_point!r} is no function name.")
        if self.kind == "refusal" and self.target not in ("decline", "answer"):
            raise DataError(f'problem {self.id}: target {self.target!r}. A refusal target is "decline" or "answer".')
        if self.kind in ("number", "expression", "choice") and not self.target.strip():
            raise DataError(f"problem {self.id}: {self.kind} without a target.")


def from_row(row: Mapping[str, Any], where: str) -> Problem:
    """Build a problem from a JSONL row; columns that are not ours (split, family, language) are left alone."""
    known = {field.name for field in fields(Problem)}
    missing = {"id", "prompt", "kind"} - row.keys()
    if missing:
        raise DataError(f"{where}: no {', '.join(sorted(missing))}. A problem needs id, prompt and kind.")
    given: dict[str, Any] = {name: "" if row[name] is None else row[name] for name in known & row.keys()}
    try:
        return Problem(**given)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
