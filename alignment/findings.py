"""What the cells of an experiment show: means and paired differences with 95 % intervals over seeds, as table and picture.

The intervals are Student's t over the seeds. A difference is taken seed by seed against the first value of the first
field, everything else equal: what a seed does to both sides cancels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignment import run


@dataclass(frozen=True)
class Cell:
    """One combination of values and one seed, with its score once it is run."""

    values: Mapping[str, Any]  # by dotted field
    seed: int
    score: float = math.nan

    def scored(self, score: float) -> Cell:
        """The same cell with its score."""
        return replace(self, score=score)

    @property
    def label(self) -> str:
        """The values in words."""
        return ", ".join(f"{short(field)} {value}" for field, value in self.values.items())


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and the half-width of its 95 % interval; one seed has none."""

    mean: float
    half: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One combination of values: its score, and its paired difference from the first value of the first field."""

    values: tuple[Any, ...]
    score: Mean
    difference: Mean | None


def interval(scores: Sequence[float]) -> Mean:
    """Student's 95 % interval of a mean."""
    from scipy import stats

    n = len(scores)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(scores, ddof=1) / math.sqrt(n)) if n > 1 else None
    return Mean(float(np.mean(scores)), half, n)


def rows(cells: Sequence[Cell]) -> list[Row]:
    """Sum up the cells, one row a combination, in the order in which they come."""
    groups: dict[tuple[Any, ...], dict[int, float]] = {}
    for cell in cells:
        values = tuple(tuple(value) if isinstance(value, list) else value for value in cell.values.values())
        groups.setdefault(values, {})[cell.seed] = cell.score
    first = next(iter(groups))[0]
    found = []
    for values, scores in groups.items():
        base = groups[(first, *values[1:])]
        paired = None if values[0] == first else interval([scores[seed] - base[seed] for seed in scores])
        found.append(Row(values, interval(list(scores.values())), paired))
    return found


def write(folder: Path, measure: str, fields: Sequence[str], cells: Sequence[Cell]) -> dict[str, float | int | str]:
    """Write cells.jsonl, table.md and picture.svg; return the means by combination."""
    lines = [json.dumps({**cell.values, "seed": cell.seed, measure: cell.score}) for cell in cells]
    run.write_text(folder / "cells.jsonl", "\n".join(lines) + "\n")
    found = rows(cells)
    run.write_text(folder / "table.md", table(measure, fields, found))
    run.write_text(folder / "picture.svg", picture(measure, fields, found))
    return {" ".join(map(str, row.values)): row.score.mean for row in found}


def table(measure: str, fields: Sequence[str], found: Sequence[Row]) -> str:
    """The rows in Markdown."""
    against = f"difference from {found[0].values[0]}"
    head = [*map(short, fields), "seeds", f"{measure}, mean [95 %]", f"{against}, paired [95 %]"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in found:
        difference = _spoken(row.difference, "+") if row.difference else ""
        cells = [*map(str, row.values), str(row.score.n), _spoken(row.score), difference]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spoken(found: Mean, sign: str = "") -> str:
    if found.half is None:
        return f"{found.mean:{sign}.4f}"
    return f"{found.mean:{sign}.4f} [{found.mean - found.half:{sign}.4f}, {found.mean + found.half:{sign}.4f}]"


def picture(measure: str, fields: Sequence[str], found: Sequence[Row]) -> str:
    """Draw the scores, and beside them the paired differences: a line a value of the first field (SVG)."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    lines: dict[Any, list[Row]] = {}
    for row in found:
        lines.setdefault(row.values[0], []).append(row)
    with matplotlib.rc_context({"svg.hashsalt": measure, "font.size": 9}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        scores, differences = figure.subplots(1, 2)
        for number, (value, members) in enumerate(lines.items()):
            look = {"label": str(value), "color": f"C{number}"}  # the same in both
            _line(scores, [row.values[1:] for row in members], [row.score for row in members], look)
            paired = [(row.values[1:], row.difference) for row in members if row.difference]
            if paired:
                _line(differences, [place for place, _ in paired], [mean for _, mean in paired], look)
        differences.axhline(0, color="black", linewidth=0.8)
        scores.set_title(measure, loc="left")
        differences.set_title(f"difference from {found[0].values[0]}, paired by seed", loc="left")
        for axes in (scores, differences):
            axes.set_xlabel(", ".join(map(short, fields[1:])))
            axes.legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return text.getvalue()


def _line(axes: Any, places: Sequence[tuple[Any, ...]], means: Sequence[Mean], look: dict[str, str]) -> None:
    numbers = [place[0] for place in places if len(place) == 1 and isinstance(place[0], int | float)]
    numeric = len(numbers) == len(places)
    at: Sequence[Any] = numbers if numeric else [", ".join(map(str, place)) or look["label"] for place in places]
    halves = [mean.half or 0 for mean in means]
    axes.errorbar(at, [mean.mean for mean in means], halves, marker="o", markersize=3, capsize=3, **look)
    if numeric and min(numbers) > 0 and max(numbers) >= 8 * min(numbers):
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{number:,}" for number in numbers], minor=False)
        axes.set_xticks([], minor=True)


def short(field: str) -> str:
    """The last part of a dotted field."""
    return field.rpartition(".")[2]
