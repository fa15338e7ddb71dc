"""Does an answer depend on what else was in the batch? Ask some items again, each alone, and compare.

A greedy text may differ where two tokens were a near tie; what counts is a flip: another reading, or another verdict.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment import run
from eval import harness, journal, samples
from eval.harness import Judged
from eval.samples import Asked, Row
from eval.task import Task

SHARE, LEAST = 0.05, 8  # of a task's items that are asked again


def verify(
    judged: Judged,
    tasks: Sequence[Task],
    root: Path | None,
    out: Path,
    report: dict[str, Any],
    *,
    limit: int | None = None,
    seed: int = 0,
) -> None:
    """Ask a sample of the items of an evaluation again at batch 1; add what flipped to report.json."""
    for task in tasks:
        if task.name in report["tasks"]:
            asked = chosen(harness.ask(judged, task, harness.spread(task.items(root), limit), seed))
            saved = {row["key"]: row for row in journal.read_rows(out / "answers" / f"{task.name}.jsonl")}
            alone = [_alone(judged, task, a, seed) for a in asked]
            report["tasks"][task.name]["invariance"] = compared(task, asked, [saved[a.key] for a in asked], alone)
    run.write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False))


def chosen(asked: Sequence[Asked]) -> list[Asked]:
    """Take 5 % of the items at even distances, at least 8. The draws for a prompt asked twice depend on both."""
    times = Counter(tuple(a.ids) for a in asked)
    return harness.spread([a for a in asked if times[tuple(a.ids)] == 1], max(LEAST, round(SHARE * len(asked))))


def compared(task: Task, asked: Sequence[Asked], saved: Sequence[Row], alone: Sequence[Row]) -> dict[str, Any]:
    """Count answers that differ and name the items that flip."""
    before, after = (samples.marked(task, asked, answers) for answers in (saved, alone))
    flips = [
        {"id": a.item.id, "read": [mark.read for mark in old], "alone": [mark.read for mark in new]}
        for a, old, new in zip(asked, before, after, strict=True)
        if [(mark.read, mark.correct) for mark in old] != [(mark.read, mark.correct) for mark in new]
    ]
    said = [(_answers(old), _answers(new)) for old, new in zip(saved, alone, strict=True)]
    gaps = [abs(one[name] - other[name]) for old, new in said for one, other in zip(old, new, strict=True)
            if isinstance(one, dict) for name in one]  # fmt: skip
    differ = sum(old != new for old, new in said)
    return {"asked_again": len(asked), "texts_differ": None if gaps else differ, "flips": flips} | (
        {"largest_gap": max(gaps)} if gaps else {}
    )


def line(name: str, found: dict[str, Any]) -> str:
    """Say it on the terminal."""
    said = f"{name}: {found['asked_again']} items asked again alone, {len(found['flips'])} flipped"
    if found["flips"]:
        said += f" ({', '.join(flip['id'] for flip in found['flips'])})"
    if "largest_gap" in found:
        return f"{said}, log-probabilities differ by at most {found['largest_gap']:.1e}"
    return f"{said}, {found['texts_differ']} differ in their text"


def _alone(judged: Judged, task: Task, asked: Asked, seed: int) -> Row:
    found: list[Row] = []
    harness.answer(judged, task, seed, [asked], lambda _, answer: found.append(answer))
    return found[0]


def _answers(answer: Row) -> list[Any]:
    return [one["answer"] for one in answer.get("samples", [answer])]
