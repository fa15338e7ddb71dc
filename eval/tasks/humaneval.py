"""Python functions with tests: HumanEval, MBPP, and the quickstart's mini-humaneval in HumanEval's format.

Protocol for base models. HumanEval: 0-shot, the raw signature and docstring, nothing else (DeepSeek-V2, appendix); the
stops are those of Chen et al. (2021). MBPP: 3-shot (DeepSeek LLM, appendix A.6), worked examples 2, 3 and 4 and problems
11 to 510 as Austin et al. (2021). Chat models are asked 0-shot, and answer with a code block. The program runs in
`alignment.verify.sandbox`; an answer without code is `unread`.

Files: humaneval/HumanEval.jsonl of openai/human-eval or the hub's Parquet file (openai/openai_humaneval); mbpp/*.jsonl of
google-research, or the hub's Parquet files (google-research-datasets/mbpp, full/).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import DataError
from alignment.verify.problem import Problem
from eval import data
from eval.data import Record
from eval.task import Form, Item, Task, group

STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```")
REQUEST = "Complete this function:\n\n```python\n{prompt}```"
FILES = ("HumanEval.jsonl", "openai_humaneval/test-*.parquet")

MBPP_PROMPT = (
    "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n"
    "{tests}\n[BEGIN]\n"
)
MBPP_ANSWER = "{code}\n[DONE]"
MBPP_REQUEST = "{text} Your code should pass these tests:\n\n```python\n{tests}\n```\n\nAnswer with one Python code block."
MBPP_FILES = ("*.jsonl", "full/*.parquet")
MBPP_SHOTS, MBPP_TEST = (2, 3, 4), range(11, 511)


@dataclass(frozen=True, kw_only=True)
class Functions(Task):
    """A set of functions to complete."""

    votes: bool = False  # no two programs are alike

    def items(self, root: Path | None) -> list[Item]:
        """Read the problems."""
        fields = ("task_id", "prompt", "entry_point", "test")
        records = data.read(root, self.name, FILES, fields)
        _distinct(records)
        return [
            Item(
                id=row["task_id"],
                problem=Problem(row["task_id"], row["prompt"], "code", tests=row["test"], entry_point=row["entry_point"]),
                group=group(row, "all"),
                language=row.get("language", "en"),
            )
            for row in (record.values for record in records)
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:  # noqa: ARG002
        """The signature as it stands, or the request to complete it."""
        return item.problem.prompt if form == "completion" else REQUEST.format(prompt=item.problem.prompt)


@dataclass(frozen=True, kw_only=True)
class Descriptions(Task):
    """A set of functions that are described in a sentence and by three asserts."""

    votes: bool = False

    def items(self, root: Path | None) -> list[Item]:
        """Read the problems; the first few are the worked examples."""
        records = data.read(root, self.name, MBPP_FILES, ("task_id", "text", "code", "test_list"))
        _distinct(records)
        by_number = {int(record.values["task_id"]): record for record in records}
        if missing := [number for number in MBPP_SHOTS if number not in by_number]:
            raise DataError(f"{records[0].where}: no task_id {missing[0]} in these files; it is a worked example.")
        shots = tuple(_worked(by_number[number].values) for number in MBPP_SHOTS)
        asked = [number for number in sorted(by_number) if number in MBPP_TEST]
        if not asked:
            first, last = MBPP_TEST[0], MBPP_TEST[-1]
            raise DataError(f"{records[-1].where}: no task_id from {first} to {last} up to here. Fetch the files again.")
        return [self._item(by_number[number], shots) for number in asked]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Worked examples and the task, or the task and a request for code."""
        text, _, tests = item.problem.prompt.partition("\n")
        if form == "chat":
            return MBPP_REQUEST.format(text=text, tests=tests)
        return "\n\n".join([*item.shots[:shots], MBPP_PROMPT.format(text=text, tests=tests)])

    def _item(self, record: Record, shots: tuple[str, ...]) -> Item:
        row = record.values
        asserts = "\n".join(row["test_list"])
        setup = str(row.get("test_setup_code") or "")
        problem = Problem(
            id=f"{self.name}/{row['task_id']}",
            prompt=f"{_sentence(row)}\n{asserts}",
            kind="code",
            tests=f"{setup}\n{asserts}".strip(),
            entry_point=_tested(row, record.where),
        )
        return Item(id=problem.id, problem=problem, group="all", language="en", shots=shots)


def _distinct(records: Sequence[Record]) -> None:
    twice = [number for number, n in Counter(record.values["task_id"] for record in records).items() if n > 1]
    if twice:
        where = [record.where for record in records if record.values["task_id"] == twice[0]][1]
        raise DataError(f"{where}: task_id {twice[0]!r} stands there twice. Fetch the files again.")


def _worked(row: dict[str, Any]) -> str:
    asked = MBPP_PROMPT.format(text=_sentence(row), tests="\n".join(row["test_list"]))
    return asked + MBPP_ANSWER.format(code=row["code"].replace("\r\n", "\n"))


def _sentence(row: dict[str, Any]) -> str:
    return " ".join(str(row["text"]).split())


def _tested(row: dict[str, Any], where: str) -> str:
    """Name the function that the asserts call: one that the reference solution defines and all of them name."""
    defined = re.findall(r"^(?:def|class)\s+(\w+)", row["code"], re.MULTILINE)
    found = [name for name in defined if all(re.search(rf"\b{name}\b", test) for test in row["test_list"])]
    if not found or not row["test_list"]:
        raise DataError(f"{where}: no function of its code stands in all of its tests, so nothing can be judged.")
    return str(found[-1])


TASKS: dict[str, Task] = {
    "humaneval": Functions(
        name="humaneval",
        stops=STOPS,
        max_new_tokens=512,
        published=164,
        protocol="DeepSeek-V2, appendix; stops of Chen et al. (2021)",
    ),
    "mbpp": Descriptions(
        name="mbpp",
        stops=("[DONE]",),
        max_new_tokens=512,
        published=len(MBPP_TEST),
        protocol="DeepSeek LLM, appendix A.6; split of Austin et al.",
    ),
    "mini-humaneval": Functions(name="mini-humaneval", stops=STOPS, max_new_tokens=96),
}
