"""report.html: one file with everything in it, no scripts and no links out; readable on a phone, and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment import templates
from eval.report import cells, curves, tables
from eval.report.cells import Value


def render(found: Mapping[str, Any]) -> str:
    """Write the report as HTML."""
    from markupsafe import Markup

    around = found["environment"]
    facts = {"profile" if name == "name" else name: fact for name, fact in around["hardware"].items()}
    facts |= around["versions"] | around["git"]
    return fill(
        "page.html.jinja",
        found=found,
        sections=tables.sections(found),
        drawings=[(run, [Markup(svg) for svg in svgs]) for run, svgs in curves.drawings(found)],
        time=cells.duration(around["seconds"]),
        facts={name.replace("_", " "): value for name, value in facts.items() if value not in (None, "absent")},
    )


def fill(template: str, **words: Any) -> str:
    """Fill one of the templates that lie here. All text of models and data is escaped."""
    environment = templates.environment(Path(__file__).parent, html=True)
    environment.tests["value"] = lambda cell: isinstance(cell, Value)
    environment.filters["strip"] = _strip
    environment.filters["share"] = lambda x: f"{100 * x:.2f}%"
    page: str = environment.get_template(template).render(**words)
    return page


def _strip(value: Value) -> dict[str, float]:
    """Where point and interval stand on a strip from 0 to 1; a difference runs from -1 to 1."""
    low, high, score = value.low, value.high, value.score
    if value.signed:
        low, high, score = ((end + 1) / 2 for end in (low, high, score))
    return {"low": low, "width": max(high - low, 0.004), "score": score}
