"""Which items of an evaluation stand in the training data, and what the score is without them.

An item is marked when its question shares an n-gram with the index of `python -m alignment index`; the shared stretches
are kept with their source, since a phrase that everybody uses is no leak. Scores here are over items, also where the
task's score is a mean over subjects.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment import run
from alignment.corpus.index import Index, Matches
from eval import journal, statistics
from eval.samples import Row
from eval.summary import scored
from eval.task import Task


def mark(report: dict[str, Any], tasks: Sequence[Task], root: Path | None, out: Path, index: Index) -> None:
    """Look up the items of the tasks in a report; write contamination/TASK.jsonl and add to report.json."""
    for task in tasks:
        if task.name in report["tasks"]:
            questions = {item.id: item.problem.prompt for item in task.items(root)}
            rows = journal.read_rows(out / "samples" / f"{task.name}.jsonl")
            marked = [row | {"found": index.matches(questions[row["id"]])} for row in rows]
            journal.save(out / "contamination" / f"{task.name}.jsonl", [_shown(row, questions[row["id"]]) for row in marked])
            report["tasks"][task.name]["contamination"] = summary(marked) | {"sources": index.about["sources"]}
    run.write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False))


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Score of all items, of the clean and of the marked ones, and how much the marked ones add to the first.

    All minus clean is the marked share times (marked minus clean), and so are the ends of its interval.
    """
    values: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        values[bool(row["found"].spans)].append(float(row["correct"]))
    clean, marked = values[False], values[True]
    found = {
        "n": len(rows),
        "marked": len(marked),
        "too_short": sum(row["found"].share is None for row in rows),
        "all": scored(clean + marked),
        "clean": scored(clean) if clean else None,
        "contaminated": scored(marked) if marked else None,
        "difference": None,
    }
    if clean and marked:
        share, apart = len(marked) / len(rows), statistics.apart(clean, marked)
        found["difference"] = {end: share * getattr(apart, end) for end in ("score", "low", "high")}
    return found


def line(name: str, found: dict[str, Any]) -> str:
    """Say it on the terminal."""
    said = f"{name}: {found['marked']} of {found['n']} items share text with the index"
    if found["too_short"]:
        said += f" ({found['too_short']} have too few words to tell)"
    if not found["difference"]:
        return said
    low, high = (f"{100 * found['difference'][end]:+.1f}" for end in ("low", "high"))
    scores = f"{found['all']['score']:.1%} on all, {found['clean']['score']:.1%} on clean items"
    return f"{said}; {scores}, difference {100 * found['difference']['score']:+.1f} points ({low} to {high})"


def _shown(row: Row, question: str) -> Row:
    found: Matches = row["found"]
    text = question.lower()
    spans = [
        {"kind": span.kind, "text": text[span.begin : span.end], "begin": span.begin, "source": span.source}
        for span in found.spans
    ]
    share = None if found.share is None else round(found.share, 4)
    return {"id": row["id"], "correct": row["correct"], "share": share, "spans": spans}
