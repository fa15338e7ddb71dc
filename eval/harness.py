"""Ask a model, save each answer, mark the answers, write the report.

    items -> prompts -> engine -> samples/TASK.jsonl.part (item by item) -> marks -> samples/TASK.jsonl, report.json

An answer is keyed by the digest of model, settings and prompt, so an interrupted evaluation continues, and a finished
one is marked again without asking again. An engine that raises stops the run: a failure is not a score.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment import chat, run
from alignment.errors import DataError, RunError
from alignment.verify import answers
from eval import statistics
from eval.task import Form, Item, Mark, Task

if TYPE_CHECKING:
    from alignment.generate.engine import Engine

FORMAT = "plumbline-eval-1"
CHUNK = 64  # prompts given to the engine at a time: what an interruption can cost
Row = dict[str, Any]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Judged:
    """A model as evaluation sees it: the engine that speaks for it, what it is, and how it is asked."""

    engine: Engine
    identity: str  # changes when the weights do
    form: Form


@dataclass(frozen=True)
class Asked:
    """An item with the prompt that this model gets and the key of its answer."""

    item: Item
    text: str
    shots: int
    encoded: str | list[int]
    key: str


def evaluate(
    judged: Judged,
    tasks: Sequence[Task],
    root: Path,
    out: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    advance: Advance = lambda _: None,
) -> dict[str, Any]:
    """Evaluate a model on tasks and write `out`; return the report. Results of other tasks in `out` stay."""
    report = _begin(judged, out)
    for task in tasks:
        asked = _ask(judged, task, spread(task.items(root), limit), seed)
        found = _answers(judged, task, asked, out / "samples" / f"{task.name}.jsonl", seed, advance)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # marking code waits for processes
            marks = list(pool.map(task.mark, [a.item for a in asked], [found[a.key]["answer"] for a in asked]))
        rows = [_row(a, found[a.key], mark) for a, mark in zip(asked, marks, strict=True)]
        save(out / "samples" / f"{task.name}.jsonl", rows)
        report["tasks"][task.name] = summary(task, judged.form, asked, rows, seed)
        if layers := sorted({layer for mark in marks for layer in mark.layers}):
            report["tasks"][task.name]["sandbox"] = layers
        run.write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    return report


def spread(items: list[Item], limit: int | None) -> list[Item]:
    """Take `limit` items at even distances, so that a few C-Eval items are not all of one subject."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def summary(task: Task, form: Form, asked: Sequence[Asked], rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Say what the marks of a task amount to."""
    right = [float(row["correct"]) for row in rows]
    groups: dict[str, list[float]] = {}
    for row, correct in zip(rows, right, strict=True):
        groups.setdefault(row["group"], []).append(correct)
    micro = statistics.wilson(sum(right), len(right))
    score = statistics.macro(groups) if task.macro else micro
    written = [row for row in rows if row["finish"] != "scored"]
    shots = [a.shots for a in asked]
    found = {
        "name": task.name,
        "n": len(rows),
        "score": score.score,
        "interval": [score.low, score.high],
        "average": "mean of groups" if task.macro else "mean of items",
        "form": form,
        "shots": {"least": min(shots), "most": max(shots)},
        "unread": sum(row["read"] is None for row in rows),
        "stop_rate": share(row["finish"] == "stop" for row in written),
        "repetition": share(row["repetition"] for row in written),
        "groups": {name: _scored(values) for name, values in sorted(groups.items())},
        "max_new_tokens": task.max_new_tokens,
        "temperature": task.temperature,
        "seed": seed,
        "prompts": digest([a.text for a in asked]),
    }
    return found | ({"items": {"score": micro.score, "interval": [micro.low, micro.high]}} if task.macro else {})


def share(values: Iterable[float]) -> float | None:
    """Mean, or None where there is nothing to average."""
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else None


def digest(value: Any) -> str:
    """Hash anything that JSON can write."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def read_rows(path: Path) -> list[Row]:
    """Read saved rows; a last line cut off by a crash is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def save(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows whole or not at all, and forget the half-finished file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    draft = path.with_name(path.name + ".draft")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    draft.replace(path)
    partial.unlink(missing_ok=True)


# -- asking -----------------------------------------------------------------------------------------------------------


def encode(judged: Judged, text: str) -> str | list[int]:
    """Plain text for a base model; a user's turn, rendered as in training, for a chat model."""
    if judged.form == "completion":
        return text
    return chat.encode(judged.engine.tokenizer, [{"role": "user", "content": text}], answer=False).input_ids


def _ask(judged: Judged, task: Task, items: Sequence[Item], seed: int) -> list[Asked]:
    settings = [judged.identity, judged.form, task.stop(judged.form), task.max_new_tokens, task.temperature, seed]
    asked = []
    for item in items:
        shots = len(item.shots) if judged.form == "completion" else 0
        while not _fits(judged, encode(judged, text := task.prompt(item, judged.form, shots)), task):
            if shots == 0:
                raise DataError(
                    f"{task.name}, item {item.id}: does not fit the model's context of {judged.engine.context} tokens "
                    f"with {task.max_new_tokens} left for the answer. Leave this task out for this model."
                )
            shots -= 1
        options = task.options(item, judged.form)
        asked.append(Asked(item, text, shots, encode(judged, text), digest([settings, item.id, text, options])))
    return asked


def _fits(judged: Judged, encoded: str | list[int], task: Task) -> bool:
    return len(judged.engine.encode(encoded)) + task.max_new_tokens <= judged.engine.context


def _answers(judged: Judged, task: Task, asked: Sequence[Asked], path: Path, seed: int, advance: Advance) -> dict[str, Row]:
    """Answer by key: those saved before, and the others asked now, each saved as it comes."""
    partial = path.with_name(path.name + ".part")
    partial.parent.mkdir(parents=True, exist_ok=True)
    found = {row["key"]: row for row in [*read_rows(path), *read_rows(partial)]}
    _mend(partial)
    waiting = [a for a in asked if a.key not in found]
    advance(len(asked) - len(waiting))
    with partial.open("a", encoding="utf-8") as file:
        for start in range(0, len(waiting), CHUNK):
            chunk = waiting[start : start + CHUNK]
            for a, answer in zip(chunk, _engine(judged, task, chunk, seed, advance), strict=True):
                found[a.key] = {"key": a.key, **answer}
                file.write(json.dumps(found[a.key], ensure_ascii=False) + "\n")
                file.flush()
    return found


def _mend(partial: Path) -> None:
    """Cut the line that a crash left unfinished, so that the next one starts clean."""
    if partial.exists():
        whole = partial.read_bytes()
        partial.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _engine(judged: Judged, task: Task, chunk: Sequence[Asked], seed: int, advance: Advance) -> list[Row]:
    from alignment.generate.engine import Settings

    prompts = [a.encoded for a in chunk]
    options = [task.options(a.item, judged.form) for a in chunk]
    if any(options):
        scores = judged.engine.score(prompts, options, advance)
        return [
            {"answer": {name.strip(): s.logprob for name, s in zip(names, found, strict=True)}}
            | {"finish": "scored", "tokens": 0, "repetition": 0.0}
            for names, found in zip(options, scores, strict=True)
        ]
    settings = Settings(
        max_new_tokens=task.max_new_tokens, temperature=task.temperature, seed=seed, stop=task.stop(judged.form)
    )
    return [
        {
            "answer": said.text,
            "finish": said.finish,
            "tokens": len(said.token_ids),
            "repetition": round(answers.repetition(said.text), 4),
        }
        for (said,) in judged.engine.generate(prompts, settings, advance)
    ]


# -- writing ----------------------------------------------------------------------------------------------------------


def _begin(judged: Judged, out: Path) -> dict[str, Any]:
    report = {
        "format": FORMAT,
        "model": judged.identity,
        "form": judged.form,
        "engine": judged.engine.name,
        "versions": run.versions(),
        "tasks": {},
    }
    old = read_report(out)
    if old and old["model"] != judged.identity:
        raise RunError(f"{out}: holds the results of another model ({old['model']}). Choose another --out.")
    return report | {"tasks": dict(old["tasks"]) if old else {}}


def read_report(out: Path) -> dict[str, Any] | None:
    """Read what an earlier evaluation wrote there, if there was one."""
    path = out / "report.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RunError(f"{path}: not written by this evaluation (format {FORMAT} expected). Choose another --out.")
    return found


def _row(asked: Asked, answer: Row, mark: Mark) -> Row:
    item = asked.item
    return {
        "id": item.id,
        "prompt": asked.text,
        "answer": answer["answer"],
        "read": mark.read,
        "target": item.problem.target,
        "correct": mark.correct,
        "why": mark.why,
        "finish": answer["finish"],
        "tokens": answer["tokens"],
        "repetition": answer["repetition"],
        "group": item.group,
        "language": item.language,
        "shots": asked.shots,
        "key": asked.key,
    }


def _scored(values: Sequence[float]) -> dict[str, Any]:
    found = asdict(statistics.wilson(sum(values), len(values)))
    return {"n": len(values), "score": found["score"], "interval": [found["low"], found["high"]]}
