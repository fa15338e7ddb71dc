"""Word problems with one number as the answer: GSM8K, CMATH, and the quickstart's mini-gsm8k.

Protocol for base models: DeepSeek LLM, appendix A.6. GSM8K is 8-shot with eight items of its train split (not the usual
eight of Wei et al.; those come with --protocol lm-eval), their solutions without the calculator notes. CMATH is 3-shot;
the paper's three examples are not at hand, so three of those that DeepSeek-Math's repository uses for CMATH are taken.
Chat models are asked 0-shot with DeepSeek-Math's instructions. What is read is the number after `####`, in the last
`\\boxed{}` or after the last "the answer is" (strict), or else the last number (flexible, the score); both are reported.

Files: gsm8k/train.jsonl and test.jsonl of openai/grade-school-math (question, answer), or the hub's Parquet files
(openai/gsm8k, main/); cmath/cmath_test.jsonl of the hub's weitianwen/cmath (question, golden, grade).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment.errors import DataError
from alignment.verify import answers as reader
from alignment.verify.problem import Problem
from eval import data
from eval.data import Record
from eval.task import Answer, Form, Item, Mark, Task, group, verified, written

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
CMATH_SHOTS = (
    (
        "张师傅上午修了18把椅子，下午修了29把椅子，一天共修了多少把椅子？",
        "一天共修的椅子数量=上午修的椅子数量+下午修的椅子数量，18+29=47。所以答案是：47。",
    ),
    (
        "小猴摘了84个桃子，平均分给6只猴子，每只猴子能吃到几个桃子？",
        "每只猴子能吃到的桃子数=总桃子数/猴子的数量，84/6=14。所以答案是：14。",
    ),
    (
        "一组学生植树，每人栽6棵还剩4棵；如果其中3人各栽5棵，其余每人各栽7棵，正好栽完。这一组学生有多少人？",
        "假设学生的数量是x，每人栽6棵还剩4棵，也就是说树苗的数量=6x+4，又知道如果其中3人各栽5棵，其余每人各栽7棵，"
        "正好栽完，即6x+4=3*5+(x-3)*7，化简方程得到：x=10。所以答案是：10。",
    ),
)
STEPS = {  # DeepSeek-Math's
    "en": "Please reason step by step, and put your final answer within \\boxed{}.",
    "zh": "请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。",
}
FILES = ("{split}.jsonl", "main/{split}-*.parquet")
CMATH_FILES = ("cmath_{split}.jsonl", "{split}.jsonl", "data/{split}-*.parquet", "{split}-*.parquet")
NOTE = re.compile(r"<<.*?>>")  # the calculator annotations inside GSM8K's solutions


@dataclass(frozen=True, kw_only=True)
class WordProblems(Task):
    """A set of questions with a number as the answer."""

    shot: str  # one worked example, {question} and {worked} filled in
    stem: str  # the question to be continued
    shots: int
    openings: tuple[str, ...] = ()  # how the worked examples begin; empty: spread over the train file
    given: tuple[tuple[str, str], ...] = ()  # the worked examples themselves, where no train file has them
    files: tuple[str, ...] = FILES
    target: str = "answer"  # the field that holds it
    instruction: str  # after the question, for chat models
    newline: str = " "  # what stands between two steps of a worked example
    language: str = "en"

    def items(self, root: Path | None) -> list[Item]:
        """Read train (for the worked examples, unless they are given) and test."""
        found = self._read(root, "test", ("question", self.target))
        pool = [] if self.given else self._read(root, "train", ("question", "answer"))
        languages = {self._language(record.values) for record in found}
        by_language = {language: self._shots(pool, language) for language in languages}
        return [
            Item(
                id=f"{self.name}/{number}",
                problem=Problem(f"{self.name}/{number}", self._question(record), "number", self._target(record)),
                group=self._group(record.values),
                language=self._language(record.values),
                shots=by_language[self._language(record.values)],
            )
            for number, record in enumerate(found)
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Worked examples and the question, or the question and the instruction."""
        question = item.problem.prompt
        if form == "chat":
            return f"{question}\n{self.instruction}" if self.instruction else question
        return "\n\n".join([*item.shots[:shots], self.stem.format(question=question)])

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read the numbers, flexibly and strictly, and compare."""
        found = zip(verified(items, answers), items, written(items, answers), strict=True)
        return [replace(mark, strict=_strict(text, item.problem.target)) for mark, item, text in found]

    def _read(self, root: Path | None, split: str, fields: tuple[str, ...]) -> list[Record]:
        return data.read(root, self.name, tuple(pattern.format(split=split) for pattern in self.files), fields)

    def _question(self, record: Record) -> str:
        return str(record.values["question"]).strip()

    def _target(self, record: Record) -> str:
        return _solution(record)[1] if self.target == "answer" else str(record.values[self.target]).strip()

    def _group(self, row: Mapping[str, Any]) -> str:
        return group(row, f"grade {row['grade']}" if "grade" in row else "all")

    def _language(self, row: Mapping[str, Any]) -> str:
        return str(row.get("language", self.language))

    def _shots(self, pool: list[Record], language: str) -> tuple[str, ...]:
        if self.given:
            return tuple(self.shot.format(question=question, worked=worked) for question, worked in self.given)
        if not self.openings:
            same = [record for record in pool if self._language(record.values) == language] or pool
            return tuple(self._worked(same[i * len(same) // self.shots]) for i in range(min(self.shots, len(same))))
        chosen = []
        for start in self.openings:
            record = next((r for r in pool if r.values["question"].startswith(start)), None)
            if record is None:
                raise DataError(f"{self.name}, split train: no question begins {start!r}, so the shots cannot be built.")
            chosen.append(self._worked(record))
        return tuple(chosen)

    def _worked(self, record: Record) -> str:
        steps, target = _solution(record)
        closing = "答案是{}。" if self._language(record.values) == "zh" else "The answer is {}."
        lines = [line.strip() for line in steps.splitlines() if line.strip()]
        worked = self.newline.join([*lines, closing.format(target)])
        return self.shot.format(question=self._question(record), worked=worked)


def _strict(text: str, target: str) -> Mark:
    read = reader.gsm8k(text)
    return Mark(read, reader.same_number(read, target))


def _solution(record: Record) -> tuple[str, str]:
    answer = str(record.values["answer"])
    steps, mark, target = answer.rpartition("####")
    if not mark:
        raise DataError(f"{record.where}: an answer without `#### N`: {answer[:60]!r}. Fetch the file again.")
    return NOTE.sub("", steps).strip(), target.strip().replace(",", "")


TASKS = {
    "gsm8k": WordProblems(
        name="gsm8k",
        shot="Q: {question}\nA: Let's think step by step. {worked}",
        stem="Q: {question}\nA: Let's think step by step.",
        openings=PAPER_SHOTS,
        shots=8,
        stops=("\nQ:", "\n\n"),
        instruction=STEPS["en"],
        max_new_tokens=512,
        published=1319,
        protocol="DeepSeek LLM, appendix A.6",
    ),
    "cmath": WordProblems(
        name="cmath",
        shot="Q: {question}\nA: {worked}",
        stem="Q: {question}\nA:",
        given=CMATH_SHOTS,
        shots=len(CMATH_SHOTS),
        files=CMATH_FILES,
        target="golden",
        stops=("\nQ:", "\n\n"),
        instruction=STEPS["zh"],
        language="zh",
        max_new_tokens=512,
        protocol="DeepSeek LLM, appendix A.6, with examples of DeepSeek-Math's",
    ),
    "mini-gsm8k": WordProblems(  # in the words of the quickstart's own textbook; its model is too small for others
        name="mini-gsm8k",
        shot="Question: {question}\nAnswer: {worked}",
        stem="Question: {question}\nAnswer:",
        shots=4,
        stops=("\n\n", "\nQuestion:"),
        instruction="",
        max_new_tokens=64,  # twice the longest worked answer of the textbook
        newline="\n",
    ),
}
