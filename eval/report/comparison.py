"""comparison.md and comparison.html: two models on the same items, in the tables and the look of the report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eval.report import page as pages
from eval.report.cells import Cell, Found, Section, Table, Value, value
from eval.report.markdown import table as as_markdown

EXCERPT = 1200  # characters of a prompt or an answer on the page
FEW = "too few flips to tell the smallest visible difference"


def markdown(found: Found) -> str:
    """Write the comparison as Markdown."""
    parts = [f"# {found['a']} and {found['b']}, item by item"]
    for section in [*sections(found), Section("Flipped items", flips(found))]:
        parts += [f"## {section.title}", *map(as_markdown, section.tables)]
    return "\n\n".join(parts) + "\n"


def page(found: Found) -> str:
    """Write the comparison as HTML, with the answers to every flipped item."""
    shown = {name: [_shown(flip) for flip in task["flips"]] for name, task in found["tasks"].items()}
    return pages.fill("comparison.html.jinja", found=found, sections=sections(found), flips=shown)


def lines(found: Found) -> Iterator[str]:
    """Say the result on the terminal: a line a task, and what makes the comparison less than like with like."""
    for name, task in found["tasks"].items():
        for row in task["results"]:
            d = _difference(row)
            yield (
                f"{name}, {row['average']}, n {task['n']}: {value(row['a']).text} -> {value(row['b']).text}, difference "
                f"{d.text} ({d.range}) points; {row['gained']} gained, {row['lost']} lost, p {_p(row['p_value'])}, "
                + (f"smallest visible difference {seen}" if (seen := _visible(row)) else FEW)
            )
        for average in (said for said in task["asked"] if said[0] == "average"):
            yield f"  the scores are not of one kind, so items are compared: {' and '.join(average[1:])}"
        if said := prompts(task):
            yield f"  {said}"


def sections(found: Found) -> list[Section]:
    """The tables in reading order; empty ones are left out."""
    plan = {"Results": [results(found)], "How they were asked": [asked(found)]}
    kept = [Section(title, [table for table in tables if table.rows]) for title, tables in plan.items()]
    return [section for section in kept if section.tables]


def results(found: Found) -> Table:
    """Both scores and what lies between them."""
    rows: list[tuple[Cell, ...]] = []
    for name, task in found["tasks"].items():
        for row in task["results"]:
            scores = (value(row["a"]), value(row["b"]), _difference(row))
            flipped = (str(row["gained"]), str(row["lost"]), _p(row["p_value"]), _visible(row))
            rows.append((name, row["average"], str(task["n"]), *scores, *flipped))
    return Table(
        "",
        f"The difference is {found['b']} minus {found['a']} in percentage points with its 95 % interval: Tango's on single "
        "answers, a bootstrap of items inside their groups for means of groups. Gained and lost count items, p is that of "
        "McNemar's exact test on them. Visible from: the smallest true difference that such a set shows four times in "
        "five, if items flip as often as here; empty where these are too few to tell.",
        ("task", "score", "n", found["a"], found["b"], "difference", "gained", "lost", "p", "visible from"),
        rows,
    )


def asked(found: Found) -> Table:
    """What else changed between the two evaluations."""
    rows: list[tuple[Cell, ...]] = []
    for name, task in found["tasks"].items():
        rows.append((name, "prompts", prompts(task) or "the same, token by token", ""))
        rows += [(name, *row) for row in task["asked"]]
    return Table("", "Whether the prompts are the same, and what else differs.", ("task", "", found["a"], found["b"]), rows)


def flips(found: Found) -> list[Table]:
    """Every item that one model has right and the other has not."""
    tables = []
    for name, task in found["tasks"].items():
        rows: list[tuple[Cell, ...]] = [
            (flip["id"], flip["group"], _short(flip["target"]), *(_read(flip[side]) for side in "ab"), found[flip["better"]])
            for flip in task["flips"]
        ]
        head = ("item", "group", "target", f"{found['a']} read", f"{found['b']} read", "better")
        tables.append(Table(name, "" if rows else "No item flipped.", head, rows))
    return tables


def prompts(task: Mapping[str, Any]) -> str:
    """Say where the prompts, or the items, are not the same; nothing where they are."""
    said = []
    if task["only_a"] or task["only_b"]:
        said.append(f"{task['only_a']} items only in the first and {task['only_b']} only in the second are left out")
    if task["prompts"]["differ"]:
        said.append(f"the prompts of {task['prompts']['differ']} items differ (first: {task['prompts']['first'][0]})")
    elif not task["prompts"]["same_tokens"] and not said:
        said.append("the same texts, in other tokens")
    return "; ".join(said)


def _shown(flip: Mapping[str, Any]) -> dict[str, Any]:
    sides = {side: {**flip[side], "read": _read(flip[side]), "answer": _answer(flip[side]["answer"])} for side in "ab"}
    prompt = flip["prompt"]
    return {**flip, **sides, "prompt": prompt if len(prompt) <= EXCERPT else "… " + prompt[-EXCERPT:]}


def _answer(answer: str | Mapping[str, float]) -> str:
    return answer[:EXCERPT] if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _difference(row: Mapping[str, Any]) -> Value:
    d = row["difference"]
    return Value(d["score"], d["low"], d["high"], signed=True)


def _read(side: Mapping[str, Any]) -> str:
    return "nothing" if side["read"] is None else _short(side["read"])


def _short(text: str) -> str:
    first, _, rest = text.strip().partition("\n")
    return f"{first[:60]} …" if rest or len(first) > 60 else first


def _visible(row: Mapping[str, Any]) -> str:
    return "" if row["visible"] is None else f"{100 * row['visible']:.1f}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
