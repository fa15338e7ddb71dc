"""Ask a model, save each answer, mark the answers, write the report.

    items -> prompts -> engine -> answers/TASK.jsonl (item by item) -> marks -> samples/TASK.jsonl, report.json

An answer is keyed by the digest of model, machine, settings and prompt and never thrown away, so an interrupted
evaluation continues, and a finished one is marked again without asking again. `samples` shows the items asked last.
An engine that raises stops the run: a failure is not a score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment import chat, run
from alignment.errors import DataError, RunError
from alignment.verify import answers
from eval import statistics
from eval.task import Form, Item, Mark, Task

if TYPE_CHECKING:
    from alignment.generate.engine import Completion, Engine, Score

FORMAT = "plumbline-eval-1"
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
    ids: list[int]  # as the model sees it
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
        found = _answers(judged, task, asked, out / "answers" / f"{task.name}.jsonl", seed, advance)
        marks = task.mark([a.item for a in asked], [found[a.key]["answer"] for a in asked])
        rows = [_row(a, found[a.key], mark) for a, mark in zip(asked, marks, strict=True)]
        save(out / "samples" / f"{task.name}.jsonl", rows)
        report["tasks"][task.name] = summary(task, judged, asked, rows, seed)
        if layers := sorted({layer for mark in marks for layer in mark.layers}):
            report["tasks"][task.name]["sandbox"] = layers
        run.write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    return report


def spread(items: list[Item], limit: int | None) -> list[Item]:
    """Take `limit` items at even distances, so that a few C-Eval items are not all of one subject."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def summary(task: Task, judged: Judged, asked: Sequence[Asked], rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Say what the marks of a task amount to."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(float(row["correct"]))
    written = [row for row in rows if row["finish"] != "scored"]
    shots = [a.shots for a in asked]
    found = {
        "name": task.name,
        "n": len(rows),
        **averaged(groups, macro=task.macro),
        "form": judged.form,
        "shots": {"least": min(shots), "most": max(shots)},
        "unread": sum(row["read"] is None for row in rows),
        "stop_rate": share(row["finish"] == "stop" for row in written),
        "stop_string_rate": share(row["finish"] == "stop string" for row in written),
        "repetition": share(row["repetition"] for row in written if row["repetition"] is not None),
        "groups": {name: _scored(values) for name, values in sorted(groups.items())},
        "max_new_tokens": task.max_new_tokens,
        "temperature": task.temperature,
        "seed": seed,
        "prompts": digest([a.ids for a in asked]),
        "engine": judged.engine.facts,
        "versions": run.versions(),
    }
    if all(a.item.problem.kind == "number" for a in asked):
        strict = [answers.same_number(answers.gsm8k(row["answer"]), row["target"]) for row in rows]
        found["strict"] = _scored([float(right) for right in strict])
    return found


def averaged(groups: Mapping[str, Sequence[float]], *, macro: bool) -> dict[str, Any]:
    """Score and interval over items, or over groups where each has enough items; and which it was."""
    items = _scored([value for values in groups.values() for value in values])
    over_items = {"score": items["score"], "interval": items["interval"]}
    if not macro:
        return over_items | {"average": "mean of items", "interval_kind": "Wilson"}
    if min(map(len, groups.values())) < statistics.SMALLEST_GROUP:
        return over_items | {"average": "mean of items: some groups are too small", "interval_kind": "Wilson"}
    score = statistics.macro(groups)
    found = {"score": score.score, "interval": [score.low, score.high], "average": "mean of groups"}
    return found | {"interval_kind": "bootstrap inside groups", "items": over_items}


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
    """Write rows whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# -- asking -----------------------------------------------------------------------------------------------------------


def encode(judged: Judged, text: str) -> str | list[int]:
    """Plain text for a base model; a user's turn, rendered as in training, for a chat model."""
    if judged.form == "completion":
        return text
    return chat.encode(judged.engine.tokenizer, [{"role": "user", "content": text}], answer=False).input_ids


def _ask(judged: Judged, task: Task, items: Sequence[Item], seed: int) -> list[Asked]:
    words = [judged.form, task.stop(judged.form), task.max_new_tokens, task.temperature, seed]
    settings = [judged.identity, judged.engine.facts, words]
    asked = []
    for item in items:
        shots = len(item.shots) if judged.form == "completion" else 0
        options = task.options(item, judged.form)
        room = judged.engine.context - max([len(judged.engine.encode(o)) for o in options] or [task.max_new_tokens])
        while len(ids := judged.engine.encode(encode(judged, text := task.prompt(item, judged.form, shots)))) > room:
            if shots == 0:
                raise DataError(
                    f"{task.name}, item {item.id}: does not fit the model's context of {judged.engine.context} tokens "
                    f"with {judged.engine.context - room} left for the answer. Leave this task out for this model."
                )
            shots -= 1
        asked.append(Asked(item, text, shots, encode(judged, text), ids, digest([settings, item.id, ids, options])))
    return asked


def _answers(judged: Judged, task: Task, asked: Sequence[Asked], path: Path, seed: int, advance: Advance) -> dict[str, Row]:
    """Answer by key: those saved before, and the others asked now, each saved as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {row["key"]: row for row in read_rows(path)}
    _mend(path)
    waiting = [a for a in asked if a.key not in found]
    advance(len(asked) - len(waiting))
    with path.open("a", encoding="utf-8") as file:

        def keep(i: int, answer: Row) -> None:
            found[waiting[i].key] = {"key": waiting[i].key, **answer}
            file.write(json.dumps(found[waiting[i].key], ensure_ascii=False) + "\n")
            file.flush()
            advance(1)

        if waiting:
            _engine(judged, task, waiting, seed, keep)
    return found


def _mend(path: Path) -> None:
    """Cut the line that a crash left unfinished, so that the next one starts clean."""
    if path.exists():
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _engine(judged: Judged, task: Task, asked: Sequence[Asked], seed: int, keep: Callable[[int, Row], None]) -> None:
    from alignment.generate.engine import Settings

    prompts = [a.encoded for a in asked]
    options = [task.options(a.item, judged.form) for a in asked]
    if any(options):

        def scored(i: int, found: Sequence[Score]) -> None:
            answer = {name.strip(): score.logprob for name, score in zip(options[i], found, strict=True)}
            keep(i, {"answer": answer, "finish": "scored", "tokens": 0, "repetition": None})

        judged.engine.score(prompts, options, scored)
        return
    settings = Settings(
        max_new_tokens=task.max_new_tokens, temperature=task.temperature, seed=seed, stop=task.stop(judged.form)
    )

    def written(i: int, found: Sequence[Completion]) -> None:
        (said,) = found
        by_itself = said.finish == "length" or said.token_ids[-1] in judged.engine.ends
        repeated = answers.repetition(said.text)
        keep(i, {
            "answer": said.text,
            "finish": said.finish if by_itself else "stop string",
            "tokens": len(said.token_ids),
            "repetition": None if repeated is None else round(repeated, 4),
        })  # fmt: skip

    judged.engine.generate(prompts, settings, written)


# -- writing ----------------------------------------------------------------------------------------------------------


def _begin(judged: Judged, out: Path) -> dict[str, Any]:
    report = {
        "format": FORMAT,
        "model": judged.identity,
        "form": judged.form,
        "engine": judged.engine.facts,
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
