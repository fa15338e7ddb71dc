"""Read a chain of runs and their evaluations into one plain dictionary: report.json.

Nothing is computed about models here but paired comparisons of saved marks; all else is what the stages wrote down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignment.corpus import decontaminate
from alignment.corpus.documents import Document
from alignment.run import Finished, Run, read, versions
from eval import journal, statistics
from eval.samples import Row

FORMAT = "plumbline-report-1"
CURVES = ("loss", "learning_rate", "tokens_per_second")
POINTS = 400  # a curve on a page needs no more
EXCERPT = 900  # characters of a sample that are shown


def collect(here: Run, reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Put together what a reader wants to know about an experiment whose evaluation is `here`."""
    chain = runs(here)
    ledgers = {finished.manifest["stage"]: found for finished in chain if (found := _json(finished.path / "ledger.json"))}
    rows = {name: samples(here.inputs[name].path, report) for name, report in reports.items()}
    return {
        "format": FORMAT,
        "name": here.path.parent.name,
        "models": [{"name": name, **_scores(report)} for name, report in reports.items()],
        "differences": differences(rows),
        "samples": {name: {task: _examples(found) for task, found in tasks.items()} for name, tasks in rows.items()},
        "runs": [_run(finished) for finished in chain],
        "curves": {finished.path.name: curve for finished in chain if (curve := _curve(finished.path))},
        "ledger": ledgers.get("corpus"),
        "mixture": ledgers.get("mixture"),
        "preferences": ledgers.get("preferences"),
        "exercises": next((exercises(run.path) for run in chain if run.manifest["stage"] == "curriculum"), None),
        "environment": {
            "versions": versions(),
            "hardware": here.manifest.get("hardware", {}),
            "git": here.manifest.get("git", {}),
            "seconds": sum(float(finished.manifest.get("seconds", 0)) for finished in chain),
        },
    }


def runs(here: Run) -> list[Finished]:
    """Every run that this evaluation rests on, inputs first, each once."""
    found: dict[str, Finished] = {}

    def visit(name: str) -> None:
        if name in found:
            return
        finished = read(here.path.parent / name, hash_limit=0)  # the inputs were hashed when the stage began
        for before in sorted(finished.parents):
            visit(before)
        found[name] = finished

    for name in here.inputs:
        visit(name)
    return list(found.values())


def exercises(curriculum: Path) -> dict[str, Any] | None:
    """Compare a curriculum's instructions and training problems with its held-out sets; its documents the corpus did."""
    texts = [
        "\n".join([row.get("prompt", ""), *(turn["content"] for turn in row.get("messages", []))])
        for name in ("instructions.jsonl", "problems.jsonl")
        for row in journal.read_rows(curriculum / name)
        if row.get("split") != "heldout"
    ]
    if not texts:
        return None
    documents = (Document(str(i), text, "exercises", "", "curriculum") for i, text in enumerate(texts))
    return decontaminate.overlap(documents, decontaminate.heldout(curriculum / "heldout")).report()


def samples(run: Path, report: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Read the marked answers of a model by task."""
    return {task: journal.read_rows(run / "eval" / "samples" / f"{task}.jsonl") for task in report["tasks"]}


def differences(rows: Mapping[str, Mapping[str, Sequence[Row]]]) -> list[dict[str, Any]]:
    """Compare each model with the one before it, task by task, on the items that both answered."""
    found = []
    for before, after in pairwise(rows):
        for task in rows[before].keys() & rows[after].keys():
            old = {row["id"]: float(row["correct"]) for row in rows[before][task]}
            new = {row["id"]: float(row["correct"]) for row in rows[after][task]}
            shared = [item for item in old if item in new]
            if shared:
                paired = statistics.paired([old[i] for i in shared], [new[i] for i in shared])
                found.append({"task": task, "before": before, "after": after, "n": len(shared), **asdict(paired)})
    order = [task for tasks in rows.values() for task in tasks]
    return sorted(found, key=lambda row: (list(rows).index(row["before"]), order.index(row["task"])))


def _scores(report: Mapping[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("form", "engine", "tasks", "preference") if key in report}


def _examples(rows: Sequence[Row]) -> dict[str, Row]:
    """One answer of each kind: the first that is right, that is wrong, that could not be read."""
    kinds: dict[str, Callable[[Row], bool]] = {
        "right": lambda row: bool(row["correct"]),
        "wrong": lambda row: not row["correct"] and row["read"] is not None,
        "unread": lambda row: row["read"] is None,
    }
    found = {kind: next((row for row in rows if test(row)), None) for kind, test in kinds.items()}
    return {kind: _excerpt(row) for kind, row in found.items() if row}


def _excerpt(row: Row) -> Row:
    answer = row["answer"] if isinstance(row["answer"], str) else _scored(row["answer"])
    prompt = row["prompt"] if len(row["prompt"]) <= EXCERPT else "… " + row["prompt"][-EXCERPT:]
    kept: Row = {key: row[key] for key in ("id", "target", "read", "why", "group", "finish") if key in row}
    return {**kept, "prompt": prompt, "answer": answer[:EXCERPT]}


def _scored(options: Mapping[str, float]) -> str:
    return "\n".join(f"{name}  {logprob:.2f}" for name, logprob in options.items())


def _run(finished: Finished) -> dict[str, Any]:
    manifest = finished.manifest
    return {
        "name": finished.path.name,
        "stage": manifest["stage"],
        "fingerprint": finished.fingerprint[:12],
        "inputs": sorted(manifest["inputs"]),
        "seconds": manifest.get("seconds", 0),
        "bytes": sum(output["bytes"] for output in manifest["outputs"].values()),
        "numbers": dict(manifest["numbers"]),
    }


def _curve(run: Path) -> dict[str, list[float]] | None:
    rows = journal.read_rows(run / "metrics.jsonl")
    rows = [row for row in rows if isinstance(row.get("loss"), int | float)]
    if not rows:
        return None
    kept = rows[:: max(1, len(rows) // POINTS)]
    columns = [name for name in CURVES if all(isinstance(row.get(name), int | float) for row in kept)]
    return {"step": [row["step"] for row in kept]} | {name: [row[name] for row in kept] for name in columns}


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if isinstance(found, dict) else {}
