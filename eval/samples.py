"""An item as it was asked, its answers and their marks -> a row of `samples/TASK.jsonl`.

Where an item was answered several times, its row shows the first answer, `correct` is the share of answers that are
right, `majority` what most of them read, and `samples` holds them all. Without a label, `correct` is null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.task import UNLABELLED, Item, Mark, Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """An item with the prompt that this model gets and the key of its answer."""

    item: Item
    text: str
    shots: int
    encoded: str | list[int]
    ids: list[int]  # as the model sees it
    key: str


def marked(task: Task, asked: Sequence[Asked], answers: Sequence[Row]) -> list[list[Mark]]:
    """The marks of each item: one, or one a sample. All are marked at once, since programs run side by side."""
    said = [answer.get("samples", [answer]) for answer in answers]
    items = [a.item for a, several in zip(asked, said, strict=True) for _ in several]
    marks = iter(task.mark(items, [one["answer"] for several in said for one in several]))
    return [[next(marks) for _ in several] for several in said]


def row(task: Task, asked: Asked, answer: Row, marks: Sequence[Mark]) -> Row:
    """Put an item, its answers and their marks together."""
    item = asked.item
    said = [_answered(one, mark) for one, mark in zip(answer.get("samples", [answer]), marks, strict=True)]
    found = {
        "id": item.id,
        "prompt": asked.text,
        **said[0],
        "target": item.problem.target,
        "group": item.group,
        "language": item.language,
        "shots": asked.shots,
        "key": asked.key,
    }
    if len(said) > 1:
        vote = majority(marks, task.same)
        right = sum(mark.correct for mark in marks) / len(marks)
        found |= {"correct": right, "majority": {"read": vote.read, "correct": vote.correct}, "samples": said}
    return found | {"correct": None, "why": "no label"} if item.problem.target == UNLABELLED else found


def majority(marks: Sequence[Mark], same: Callable[[str, str], bool]) -> Mark:
    """The commonest reading of an item's answers, the first of equals; what could not be read does not vote.

    Readings that differ in spelling only (`same`) vote together.
    """
    votes: dict[str, list[Mark]] = {}
    for mark in marks:
        if mark.read is not None:
            spelt = mark.read if mark.read in votes else next((s for s in votes if same(s, mark.read)), mark.read)
            votes.setdefault(spelt, []).append(mark)
    return max(votes.values(), key=len)[0] if votes else Mark(None, False, "unread")


def _answered(answer: Row, mark: Mark) -> Row:
    return {
        "answer": answer["answer"],
        "read": mark.read,
        "correct": mark.correct,
        "why": mark.why,
        "strict": mark.strict and {"read": mark.strict.read, "correct": mark.strict.correct},
        "finish": answer["finish"],
        "tokens": answer["tokens"],
        "repetition": answer["repetition"],
    }
