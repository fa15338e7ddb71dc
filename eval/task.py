"""What a task is: items with a target, a prompt for each form of model, and a pure mark for an answer.

A task never sees a model: `evaluate` asks for prompts, saves answers, and has them marked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.errors import DataError
from alignment.verify import judge
from alignment.verify.judge import Judgement
from alignment.verify.problem import Problem

Form = Literal["completion", "chat"]  # a base model continues worked examples; a chat model is simply asked
Answer = str | dict[str, float]  # text, or the log-probability of each option
UNLABELLED = "unlabelled"  # the target of an item whose answer is not published


@dataclass(frozen=True)
class Item:
    """One question. `shots` are the worked examples it may be preceded by, already written out."""

    id: str
    problem: Problem
    group: str  # seen or unseen template, or the subject
    language: str
    header: str = ""
    shots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What was read out of an answer (None: nothing could be read) and whether it is right.

    `strict` is the same answer read by the stricter of two rules, where a task has two.
    """

    read: str | None
    correct: bool
    why: str = ""
    layers: tuple[str, ...] = ()  # of the sandbox that ran the code
    strict: Mark | None = None


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A benchmark: a row of the dict in one of the files in eval/tasks."""

    name: str  # as on the command line
    max_new_tokens: int
    temperature: float = 0.0  # 1 for an answer drawn as the model would speak
    macro: bool = False  # whether the score is the mean over groups instead of over items
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)  # groups that are averaged apart, too
    stops: tuple[str, ...] = ()  # texts that end a completion; a chat model ends by itself
    published: int | None = None  # items of the whole set, where its data card counts them
    votes: bool = True  # whether of several answers to an item the commonest can be taken
    protocol: str = "this project's own"
    cuts_text: bool = False  # a prompt too long loses its beginning, instead of its last worked examples

    @abstractmethod
    def items(self, root: Path | None) -> list[Item]:
        """Read the items below the data root, or from the hub. Raises DataError naming path and row."""

    @abstractmethod
    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Write what the model sees; in chat form, the user's turn."""

    def options(self, item: Item, form: Form) -> tuple[str, ...]:  # noqa: ARG002
        """Name the continuations to score; empty when the answer is generated."""
        return ()

    def stop(self, form: Form) -> tuple[str, ...]:
        """Name the texts that end a generated answer."""
        return self.stops if form == "completion" else ()

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read the answers and compare them with the targets. Pure, so that it can be repeated."""
        return verified(items, answers)

    def same(self, one: str, other: str) -> bool:
        """Whether two readings are one answer: then they vote together in maj@n."""
        return one == other


def group(row: Mapping[str, Any], otherwise: str) -> str:
    """Name the group of a row: the mini sets hold whole templates that were never trained."""
    if "unseen" not in row:
        return otherwise
    return "unseen template" if row["unseen"] else "seen template"


def verified(items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
    """Mark written answers by the verifier that preferences and rewards use too."""
    problems = [item.problem for item in items]
    return [marked(found) for found in judge.verify_many(list(zip(problems, written(items, answers), strict=True)))]


def written(items: Sequence[Item], answers: Sequence[Answer]) -> list[str]:
    """Answers as texts. Raises DataError where one is a choice among options."""
    texts = [answer for answer in answers if isinstance(answer, str)]
    if len(texts) < len(items):
        raise DataError(f"{items[0].id}: scores where texts were expected. The saved answers belong to another task.")
    return texts


def marked(found: Judgement) -> Mark:
    """A verifier's judgement as a mark."""
    return Mark(found.read, found.correct, found.why, found.layers)
