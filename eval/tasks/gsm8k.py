"""Word problems with one number as the answer: GSM8K, and the quickstart's mini-gsm8k in the same format.

Protocol for base models: DeepSeek LLM, appendix A.6, 8-shot with eight items of the train split (not the usual eight
of Wei et al.), their solutions without the calculator notes. Chat models are asked 0-shot. What is read is the number
after `####`, in the last `\\boxed{}` or after the last "the answer is" (strict), or else the last number (flexible, the
score); the strict score stands beside it. An answer without a number is `unread`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import DataError
from alignment.verify.problem import Problem
from eval.task import Answer, Form, Item, Mark, group, rows, verified

PAPER_SHOTS = (
    "Max can mow the lawn in 40 minutes.",
    "The bagels cost $2.25 each",
    "Tim is 5 years old. His cousin, Rommel",
    "The school has 14 boys and 10 girls.",
    "Building one birdhouse requires 7 planks",
    "Danny brings 3 watermelons",
    "Angela is a bike messenger",
    "Cori is 3 years old today.",
)
NOTE = re.compile(r"<<.*?>>")  # the calculator annotations inside GSM8K's solutions


@dataclass(frozen=True)
class WordProblems:
    """A set of questions whose answers end in `#### N`."""

    name: str
    shot: str  # one worked example, {question} and {worked} filled in
    stem: str  # the question to be continued
    openings: tuple[str, ...]  # how the worked examples begin; empty: spread over the train file
    shots: int
    stops: tuple[str, ...]
    instruction: str  # after the question, for chat models
    max_new_tokens: int
    temperature: float = 0.0
    newline: str = " "  # what stands between two steps of a worked example
    macro: bool = False

    def items(self, root: Path) -> list[Item]:
        """Read train (for the worked examples) and test."""
        pool = rows(root, f"{self.name}/train.jsonl", ("question", "answer"))
        found = rows(root, f"{self.name}/test.jsonl", ("question", "answer"))
        by_language = {language: self._shots(pool, language) for language in {_language(row) for row in found}}
        return [
            Item(
                id=f"{self.name}/{number}",
                problem=Problem(f"{self.name}/{number}", row["question"].strip(), "number", _solution(row, self.name)[1]),
                group=group(row, "all"),
                language=_language(row),
                shots=by_language[_language(row)],
            )
            for number, row in enumerate(found)
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Worked examples and the question, or the question and the instruction."""
        question = item.problem.prompt
        if form == "chat":
            return f"{question}\n{self.instruction}" if self.instruction else question
        return "\n\n".join([*item.shots[:shots], self.stem.format(question=question)])

    def options(self, item: Item, form: Form) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing to score: the answer is written out."""
        return ()

    def stop(self, form: Form) -> tuple[str, ...]:
        """A base model would go on with the next question."""
        return self.stops if form == "completion" else ()

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read the numbers and compare."""
        return verified(items, answers)

    def _shots(self, pool: list[dict[str, Any]], language: str) -> tuple[str, ...]:
        if self.openings:
            chosen = [next((r for r in pool if r["question"].startswith(start)), None) for start in self.openings]
            for start, row in zip(self.openings, chosen, strict=True):
                if row is None:
                    raise DataError(f"{self.name}/train.jsonl: no question begins {start!r}, so the shots cannot be built.")
        else:
            same = [row for row in pool if _language(row) == language] or pool
            chosen = [same[i * len(same) // self.shots] for i in range(min(self.shots, len(same)))]
        return tuple(self._written(row) for row in chosen if row)

    def _written(self, row: dict[str, Any]) -> str:
        steps, target = _solution(row, self.name)
        closing = "答案是{}。" if _language(row) == "zh" else "The answer is {}."
        lines = [line.strip() for line in steps.splitlines() if line.strip()]
        worked = self.newline.join([*lines, closing.format(target)])
        return self.shot.format(question=row["question"].strip(), worked=worked)


def _solution(row: dict[str, Any], where: str) -> tuple[str, str]:
    steps, mark, target = str(row["answer"]).rpartition("####")
    if not mark:
        raise DataError(f"{where}: an answer without `#### N`: {row['answer'][:60]!r}. Fetch the file again.")
    return NOTE.sub("", steps).strip(), target.strip().replace(",", "")


def _language(row: dict[str, Any]) -> str:
    return str(row.get("language", "en"))


TASKS = {
    "gsm8k": WordProblems(
        name="gsm8k",
        shot="Q: {question}\nA: Let's think step by step. {worked}",
        stem="Q: {question}\nA: Let's think step by step.",
        openings=PAPER_SHOTS,
        shots=8,
        stops=("\nQ:", "\n\n"),
        instruction="Please reason step by step, and put your final answer within \\boxed{}.",  # DeepSeek-Math's
        max_new_tokens=512,
    ),
    "mini-gsm8k": WordProblems(  # in the words of the quickstart's own textbook; its model is too small for others
        name="mini-gsm8k",
        shot="Question: {question}\nAnswer: {worked}",
        stem="Question: {question}\nAnswer:",
        openings=(),
        shots=4,
        stops=("\n\n", "\nQuestion:"),
        instruction="",
        max_new_tokens=64,  # twice the longest worked answer of the textbook
        newline="\n",
    ),
}
