"""What the marks of a task amount to: scores with intervals, by group and category, of one answer an item or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from eval import statistics
from eval.samples import Row
from eval.task import Task

TRIES = (1, 2, 5, 10, 20, 50, 100, 200)  # k of pass@k, as far as there are samples


def summary(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    """Say what the rows of a task amount to."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(float(row["correct"]))
    said = answers(rows)
    written = [answer for answer in said if answer["finish"] != "scored"]
    return {
        "name": task.name,
        "protocol": task.protocol,
        "n": len(rows),
        **averaged(groups, macro=task.macro),
        **_averages(task, groups),
        **_several(task, rows),
        **_strict(rows),
        "unread": sum(answer["read"] is None for answer in said),
        "stop_rate": share(answer["finish"] == "stop" for answer in written),
        "stop_string_rate": share(answer["finish"] == "stop string" for answer in written),
        "repetition": share(answer["repetition"] for answer in written if answer["repetition"] is not None),
        "groups": {name: scored(values) for name, values in sorted(groups.items())},
    }


def answers(rows: Iterable[Row]) -> list[Row]:
    """Every answer: the rows themselves, or the samples of each."""
    return [answer for row in rows for answer in row.get("samples", [row])]


def averaged(groups: Mapping[str, Sequence[float]], *, macro: bool) -> dict[str, Any]:
    """Score and interval over items, or over groups where each has enough items; and which it was."""
    values = [value for group in groups.values() for value in group]
    items = scored(values)
    over_items = {"score": items["score"], "interval": items["interval"]}
    kind = {"interval_kind": statistics.interval_kind(values)}
    if not macro:
        return over_items | {"average": "mean of items"} | kind
    if min(map(len, groups.values())) < statistics.SMALLEST_GROUP:
        return over_items | {"average": "mean of items: some groups are too small"} | kind
    score = statistics.macro(groups)
    found = {"score": score.score, "interval": [score.low, score.high], "average": "mean of groups"}
    return found | {"interval_kind": "bootstrap inside groups", "items": over_items}


def scored(values: Sequence[float]) -> dict[str, Any]:
    """Mean over items with its interval."""
    found = asdict(statistics.mean(values))
    return {"n": len(values), "score": found["score"], "interval": [found["low"], found["high"]]}


def share(values: Iterable[float]) -> float | None:
    """Mean, or None where there is nothing to average."""
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else None


def _averages(task: Task, groups: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Means over subjects and over each category's subjects, where a task has categories."""
    if not task.categories:
        return {}
    known = {subject for subjects in task.categories.values() for subject in subjects}
    within = {
        name: {subject: groups[subject] for subject in subjects if subject in groups}
        for name, subjects in task.categories.items()
    }
    return {
        "subjects": {"scored": len(groups), "of": len(known)},
        "macro": averaged(groups, macro=True),
        "micro": averaged(groups, macro=False),
        "categories": {name: averaged(found, macro=True) for name, found in within.items() if found},
    }


def _several(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    """pass@k and majority vote, where items were answered several times."""
    samples = [[bool(answer["correct"]) for answer in row["samples"]] for row in rows if "samples" in row]
    if not samples:
        return {}
    n = len(samples[0])
    tries = [k for k in dict.fromkeys([*TRIES, n]) if k <= n]
    found: dict[str, Any] = {
        "samples": n,
        "pass_at_k": {str(k): scored([statistics.pass_at_k(n, sum(right), k) for right in samples]) for k in sorted(tries)},
    }
    if task.votes:
        found["majority"] = scored([float(row["majority"]["correct"]) for row in rows])
    return found


def _strict(rows: Sequence[Row]) -> dict[str, Any]:
    """The score by the stricter reading, beside the score."""
    if not all(answer["strict"] for answer in answers(rows)):
        return {}
    items = [answers([row]) for row in rows]
    values = [sum(answer["strict"]["correct"] for answer in item) / len(item) for item in items]
    unread = sum(answer["strict"]["read"] is None for item in items for answer in item)
    return {"strict": scored(values) | {"unread": unread}}
