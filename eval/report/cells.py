"""What a report's tables are made of: texts and values with intervals, and how numbers are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any]  # report.json, or a part of it


@dataclass(frozen=True)
class Value:
    """A share with the ends of its interval; `signed` for a difference."""

    score: float
    low: float
    high: float
    signed: bool = False

    @property
    def text(self) -> str:
        """The score in per cent, or the difference in points."""
        return _points(self.score, self.signed)

    @property
    def range(self) -> str:
        """The interval in the same unit."""
        return f"{_points(self.low, self.signed)} to {_points(self.high, self.signed)}"


def _points(share: float, signed: bool) -> str:
    points = round(100 * share, 1) + 0.0  # no negative zero
    return (f"{points:+.1f}" if signed and points else f"{points:.1f}").replace("-", "\u2212")


Cell = str | Value


@dataclass(frozen=True)
class Table:
    """Rows below a head; `note` says how to read them."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


@dataclass(frozen=True)
class Section:
    """Tables that belong together."""

    title: str
    tables: list[Table]


def value(task: Found) -> Value:
    """A score with its interval as a cell."""
    return Value(task["score"], *task["interval"])


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def number(x: Any) -> str:
    """A closing number for people."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        return str(x)
    return f"{x:,}" if isinstance(x, int) else f"{x:,.4g}"
