"""Python functions with tests: HumanEval, and the quickstart's mini-humaneval in the same format.

Protocol for base models: 0-shot, the raw signature and docstring, nothing else (DeepSeek-V2, appendix); the stops are
those of Chen et al. (2021). Chat models get the same text in a request to complete it, and answer with a code block.
The program runs in `alignment.verify.sandbox`; an answer without code is `unread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.verify.problem import Problem
from eval.task import Answer, Form, Item, Mark, group, rows, verified

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```")
REQUEST = "Complete this function:\n\n```python\n{prompt}```"


@dataclass(frozen=True)
class Functions:
    """A set of functions to complete."""

    name: str
    max_new_tokens: int
    temperature: float = 0.0
    shots: int = 0
    macro: bool = False

    def items(self, root: Path) -> list[Item]:
        """Read the problems."""
        fields = ("task_id", "prompt", "entry_point", "test")
        return [
            Item(
                id=row["task_id"],
                problem=Problem(row["task_id"], row["prompt"], "code", tests=row["test"], entry_point=row["entry_point"]),
                group=group(row, "all"),
                language=row.get("language", "en"),
            )
            for row in rows(root, f"{self.name}/HumanEval.jsonl", fields)
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:  # noqa: ARG002
        """The signature as it stands, or the request to complete it."""
        return item.problem.prompt if form == "completion" else REQUEST.format(prompt=item.problem.prompt)

    def options(self, item: Item, form: Form) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing to score: the code is written out."""
        return ()

    def stop(self, form: Form) -> tuple[str, ...]:
        """A base model would go on with the next function."""
        return STOPS if form == "completion" else ()

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Run the code against the tests."""
        return verified(items, answers)


TASKS = {
    "humaneval": Functions(name="humaneval", max_new_tokens=512),
    "mini-humaneval": Functions(name="mini-humaneval", max_new_tokens=96),
}
