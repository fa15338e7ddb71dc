"""Ask a model, save each answer, mark the answers, write the report.

    items -> prompts -> engine -> answers/TASK.jsonl (item by item) -> marks -> samples/TASK.jsonl, report.json

An answer is keyed by the digest of model, machine, settings and prompt and never thrown away (`journal`), so an
interrupted evaluation continues, and a finished one is marked again without asking again. Several processes split the
items (`ranks`). `samples` shows the items asked last. Items without labels get no score but a submission file. An engine
that raises stops the run: a failure is not a score.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alignment import chat, run
from alignment.errors import DataError, RunError
from alignment.verify import answers
from eval import journal, samples
from eval.journal import Advance, Keep
from eval.ranks import ALONE, Ranks
from eval.samples import Asked, Row
from eval.summary import summary
from eval.task import UNLABELLED, Form, Item, Mark, Task
from eval.tasks import multiple_choice

if TYPE_CHECKING:
    from alignment.generate.engine import Completion, Engine, Score

FORMAT = "plumbline-eval-1"
SAMPLED = (0.6, 0.95)  # temperature and top-p of several answers an item: those of the R1 paper's evaluation
One = TypeVar("One")


@dataclass(frozen=True)
class Judged:
    """A model as evaluation sees it: the engine that speaks for it, what it is, and how it is asked."""

    engine: Engine
    identity: str  # changes when the weights do
    form: Form
    shots: int | None = None  # worked examples; None: as many as the task has
    samples: int = 1  # answers an item
    temperature: float | None = None  # None: the task's for one answer, SAMPLED for several
    top_p: float | None = None

    def draw(self, task: Task) -> tuple[float, float]:
        """Temperature and top-p of this task's answers."""
        temperature, top_p = (task.temperature, 1.0) if self.samples == 1 else SAMPLED
        return temperature if self.temperature is None else self.temperature, top_p if self.top_p is None else self.top_p


def evaluate(
    judged: Judged,
    tasks: Sequence[Task],
    root: Path | None,
    out: Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    advance: Advance = lambda _: None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Evaluate a model on tasks and write `out`; return the report. Results of other tasks in `out` stay.

    Of several processes only the first marks, writes, and returns the scores.
    """
    report = _begin(judged, out)
    read = [task.items(root) for task in tasks]
    # Every prompt is written before the first is asked: what does not fit is said now, not after an hour.
    prompts = [ask(judged, task, spread(items, limit), seed) for task, items in zip(tasks, read, strict=True)]
    for task, items, asked in zip(tasks, read, prompts, strict=True):
        for kept in ("tasks", "submissions"):
            report[kept].pop(task.name, None)
        path = out / "answers" / f"{task.name}.jsonl"
        found = journal.answers(path, asked, partial(answer, judged, task, seed), ranks, advance)
        if not ranks.first:
            continue
        marks = samples.marked(task, asked, [found[a.key] for a in asked])
        rows = [samples.row(task, a, found[a.key], item) for a, item in zip(asked, marks, strict=True)]
        journal.save(out / "samples" / f"{task.name}.jsonl", rows)
        if any(a.item.problem.target == UNLABELLED for a in asked):
            report["submissions"][task.name] = _submitted(task, asked, marks, out)
        else:
            report["tasks"][task.name] = summary(task, rows) | _asking(judged, task, asked, seed)
            if task.published:
                report["tasks"][task.name]["rows"] = {"found": len(items), "card": task.published}
            if layers := sorted({layer for item in marks for mark in item for layer in mark.layers}):
                report["tasks"][task.name]["sandbox"] = layers
        run.write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    return report


def spread(items: list[One], limit: int | None) -> list[One]:
    """Take `limit` items at even distances, so that a few C-Eval items are not all of one subject."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def digest(value: Any) -> str:
    """Hash anything that JSON can write."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


# -- asking -----------------------------------------------------------------------------------------------------------


def encode(judged: Judged, text: str) -> str | list[int]:
    """Plain text for a base model; a user's turn, rendered as in training, for a chat model."""
    if judged.form == "completion":
        return text
    return chat.encode(judged.engine.tokenizer, [{"role": "user", "content": text}], answer=False).input_ids


def ask(judged: Judged, task: Task, items: Sequence[Item], seed: int) -> list[Asked]:
    """Write the prompts of items as this model gets them."""
    if not items:
        raise DataError(f"{task.name}: its files hold no item that is asked. Fetch them again.")
    most = min(len(item.shots) for item in items)
    if judged.shots is not None and judged.shots > most:
        raise DataError(f"{task.name}: --shots {judged.shots}, but there are {most} worked examples.")
    _drawable(judged, task, any(task.options(item, judged.form) for item in items))
    draw = judged.draw(task)
    words: list[Any] = [judged.form, task.stop(judged.form), task.max_new_tokens, task.temperature, seed]
    if judged.samples > 1 or draw != (task.temperature, 1.0):
        words += [judged.samples, *draw]
    settings = [judged.identity, judged.engine.facts, words]
    before = Counter[tuple[int, ...]]()
    asked = []
    for item in items:
        options = task.options(item, judged.form)
        text, shots, encoded, ids = _fitted(judged, task, item, options)
        again = before[tuple(ids)]  # a prompt that comes again is drawn with other random numbers
        before[tuple(ids)] += 1
        known = [settings, item.id, ids, options, *([again] if again and draw[0] else [])]
        asked.append(Asked(item, text, shots, encoded, ids, digest(known)))
    return asked


def _drawable(judged: Judged, task: Task, weighed: bool) -> None:
    """Refuse ways of drawing that would be left unused."""
    given: dict[str, float | None] = {"--samples": judged.samples if judged.samples > 1 else None}
    given |= {"--temperature": judged.temperature, "--top-p": judged.top_p}
    said = ", ".join(f"{name} {value:g}" for name, value in given.items() if value is not None)
    if weighed and said:
        raise DataError(f"{task.name}: {said}, but its options are weighed and nothing is drawn.")
    if said and judged.draw(task)[0] == 0 and (judged.samples > 1 or judged.top_p is not None):
        raise DataError(f"{task.name}: {said}, but at temperature 0 nothing is drawn. Add --temperature above 0.")


def _fitted(judged: Judged, task: Task, item: Item, options: Sequence[str]) -> tuple[str, int, str | list[int], list[int]]:
    """A prompt that leaves room for the answer, with its worked examples, as the engine takes it and as ids."""
    room = judged.engine.context - max([len(judged.engine.encode(o)) for o in options] or [task.max_new_tokens])
    most = len(item.shots) if judged.shots is None else judged.shots
    for shots in range(most if judged.form == "completion" else 0, -1, -1):
        text = task.prompt(item, judged.form, shots)
        encoded = encode(judged, text)
        ids = judged.engine.encode(encoded)
        if len(ids) <= room:
            return text, shots, encoded, ids
        if task.cuts_text and room > 0:
            return text, shots, ids[-room:], ids[-room:]
    raise DataError(
        f"{task.name}, item {item.id}: does not fit the model's context of {judged.engine.context} tokens "
        f"with {judged.engine.context - room} left for the answer. Leave this task out for this model."
    )


def answer(judged: Judged, task: Task, seed: int, asked: Sequence[Asked], keep: Keep) -> None:
    """Ask the model; `keep(i, answer)` is called with the answer to item i as soon as there is one."""
    from alignment.generate.engine import Settings

    prompts = [a.encoded for a in asked]
    options = [task.options(a.item, judged.form) for a in asked]
    if any(options):

        def scored(i: int, found: Sequence[Score]) -> None:
            answer = {name.strip(): score.logprob for name, score in zip(options[i], found, strict=True)}
            keep(i, {"answer": answer, "finish": "scored", "tokens": 0, "repetition": None})

        judged.engine.score(prompts, options, scored)
        return
    temperature, top_p = judged.draw(task)
    settings = Settings(
        max_new_tokens=task.max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        samples=judged.samples,
        seed=seed,
        stop=task.stop(judged.form),
    )

    def written(i: int, found: Sequence[Completion]) -> None:
        said = [_said(judged, one) for one in found]
        keep(i, said[0] if len(said) == 1 else {"samples": said})

    judged.engine.generate(prompts, settings, written)


def _said(judged: Judged, said: Completion) -> Row:
    by_itself = said.finish == "length" or said.token_ids[-1] in judged.engine.ends
    repeated = answers.repetition(said.text)
    return {
        "answer": said.text,
        "finish": said.finish if by_itself else "stop string",
        "tokens": len(said.token_ids),
        "repetition": None if repeated is None else round(repeated, 4),
    }


# -- writing ----------------------------------------------------------------------------------------------------------


def _begin(judged: Judged, out: Path) -> dict[str, Any]:
    report = {
        "format": FORMAT,
        "model": judged.identity,
        "form": judged.form,
        "engine": judged.engine.facts,
        "versions": run.versions(),
        "tasks": {},
        "submissions": {},
    }
    old = read_report(out)
    if old and old["model"] != judged.identity:
        raise RunError(f"{out}: holds the results of another model ({old['model']}). Choose another --out.")
    return report | {kept: dict(old.get(kept, {})) if old else {} for kept in ("tasks", "submissions")}


def read_report(out: Path) -> dict[str, Any] | None:
    """Read what an earlier evaluation wrote there, if there was one."""
    path = out / "report.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        said = "Delete it and evaluate again: answers that were saved are not asked again."
        raise RunError(f"{path}: unreadable ({error}). {said}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RunError(f"{path}: not written by this evaluation (format {FORMAT} expected). Choose another --out.")
    return found


def _asking(judged: Judged, task: Task, asked: Sequence[Asked], seed: int) -> dict[str, Any]:
    """Say how the items of a task were asked."""
    shots = [a.shots for a in asked]
    temperature, top_p = judged.draw(task)
    return {
        "form": judged.form,
        "shots": {"least": min(shots), "most": max(shots)},
        "max_new_tokens": task.max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "prompts": digest([a.ids for a in asked]),
        "engine": judged.engine.facts,
        "versions": run.versions(),
    }


def _submitted(task: Task, asked: Sequence[Asked], marks: Sequence[Sequence[Mark]], out: Path) -> dict[str, Any]:
    """Write the answers to unlabelled items as the benchmark's authors take them."""
    path = out / f"submission-{task.name}.json"
    chosen = [samples.majority(item, task.same) for item in marks]
    letters = multiple_choice.submission([a.item for a in asked], chosen)
    run.write_text(path, json.dumps(letters, indent=1, ensure_ascii=False))
    unread = sum(mark.read is None for mark in chosen)
    return {"file": path.name, "n": len(asked), "unread": unread, "prompts": digest([a.ids for a in asked])}
