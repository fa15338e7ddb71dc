"""report.md: the tables and examples in plain Markdown, for a terminal, a repository or a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.report import tables
from eval.report.cells import Cell, Table


def render(found: Mapping[str, Any]) -> str:
    """Write the report as Markdown."""
    parts = [f"# {found['name']}: evaluation"]
    for section in tables.sections(found):
        parts.append(f"## {section.title}")
        parts.extend(table(one) for one in section.tables)
    parts += ["## Sample answers", *_examples(found), "## Environment", _environment(found)]
    return "\n\n".join(parts) + "\n"


def table(found: Table) -> str:
    """Write a table with its title and its note."""
    lines = ["| " + " | ".join(found.head) + " |", "|" + " --- |" * len(found.head)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in found.rows]
    return "\n\n".join(filter(None, [found.title and f"### {found.title}", found.note, "\n".join(lines)]))


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    return f"{cell.text} ({cell.range})"


def _examples(found: Mapping[str, Any]) -> list[str]:
    parts = []
    for model, tasks in found["samples"].items():
        for task, kinds in tasks.items():
            for kind, row in kinds.items():
                head = f"**{model}, {task}, {kind}** (target {row['target'] or 'tests'}, read {_inline(row['read'])})"
                parts.append(f"{head}\n\n{_quoted(row['prompt'])}\n\n{_quoted(row['answer'])}")
    return parts


def _inline(read: str | None) -> str:
    return "nothing" if read is None else "code" if "\n" in read else read


def _quoted(text: str) -> str:
    fence = "~" * max(3, 1 + max((len(run) for run in text.split() if set(run) == {"~"}), default=0))
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def _environment(found: Mapping[str, Any]) -> str:
    around = found["environment"]
    known = {**around["versions"], **around["hardware"], **around["git"]}
    return "\n".join(f"- {name}: {value}" for name, value in known.items() if value not in (None, "absent"))
