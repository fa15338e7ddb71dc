"""Bare sums, `348 + 57 =`: what recipes/claims/digits measures. A base model continues worked ones, and one line is read.

Files: mini-sums/train.jsonl and test.jsonl of a curriculum run (question, answer, family).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.verify.problem import Problem
from eval import data
from eval.task import Answer, Form, Item, Mark, Task, written

FIELDS = ("question", "answer", "family")


@dataclass(frozen=True, kw_only=True)
class Sums(Task):
    """Additions and subtractions whose result is a whole number."""

    shots: int

    def items(self, root: Path | None) -> list[Item]:
        """Read train (for the worked examples) and test."""
        worked = [row.values for row in data.read(root, self.name, ("train.jsonl",), FIELDS)]
        shots = tuple(f"{row['question']} {row['answer']}" for row in worked[: self.shots])
        return [
            Item(
                id=f"{self.name}/{number}",
                problem=Problem(f"{self.name}/{number}", row.values["question"], "number", row.values["answer"]),
                group=row.values["family"],
                language="en",
                shots=shots,
            )
            for number, row in enumerate(data.read(root, self.name, ("test.jsonl",), FIELDS))
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Worked sums and the one to do, or that one alone."""
        asked = item.problem.prompt
        return asked if form == "chat" else "\n\n".join([*item.shots[:shots], asked])

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read the first word of the answer if it is a number; only equal digits are right."""
        return [_mark(text, item.problem.target) for item, text in zip(items, written(items, answers), strict=True)]


def _mark(text: str, target: str) -> Mark:
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    read = first if first.isascii() and first.isdigit() else None
    return Mark(read, read == target)


TASKS = {"mini-sums": Sums(name="mini-sums", shots=4, stops=("\n",), max_new_tokens=8)}
