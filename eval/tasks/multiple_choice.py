"""Questions with lettered options: C-Eval, MMLU, CMMLU, and the quickstart's mini-ceval in the same format.

Protocol for base models: DeepSeek LLM, appendix A.6 (CMMLU: DeepSeek-V2, appendix): a header that names the subject, five
worked questions of the dev split, and the log-probabilities of the letters after the answer cue; the likeliest letter
counts. Chat models are asked 0-shot and write their answer; a letter that cannot be read is `unread`. C-Eval's score is
the mean over its 52 subjects, as in the paper, with the mean over items beside it. Its test split has no labels: the
answers go into the official submission file instead.

Files (`{split}` stands for dev, val or test), in order of preference: this project's JSON Lines (subject, id, question,
A to D, answer); the hub's Parquet files (ceval/ceval-exam, cais/mmlu with `choices` and a numbered answer, haonan-li/cmmlu);
the official CSV files, unpacked or in their archive (MMLU's have no head, CMMLU's say Question and Answer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from alignment.errors import DataError
from alignment.verify.problem import Problem
from eval import data
from eval.data import Record
from eval.task import UNLABELLED, Answer, Form, Item, Mark, Task, group, verified
from eval.tasks import subjects

LETTERS = "ABCD"
FILES = (
    "{split}.jsonl",
    "all/{split}-*.parquet",
    "*/{split}-*.parquet",
    "*/*-{split}.parquet",
    "{split}/*.csv",
    "*.zip!{split}/*.csv",
)
MMLU_COLUMNS = ("question", *LETTERS, "answer")


@dataclass(frozen=True)
class Question:
    """A row in one shape, whichever file it came from; `answer` is a letter, or None where it is not published."""

    subject: str
    id: str
    text: str
    options: tuple[str, ...]
    answer: str | None
    language: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Choices(Task):
    """A set of questions with the options A to D."""

    folder: str
    split: str = "val"
    columns: tuple[str, ...] = ()  # of CSV files without a head
    header: str  # {subject} filled in
    subjects: Mapping[str, str] = field(default_factory=dict)  # how the header names them; empty: any
    stem: str = "{question}"
    cues: Mapping[str, tuple[str, str]]  # by language: what stands before the letter, and before it the space
    instruction: str  # after the options, for chat models
    shots: int = 5
    only: tuple[str, ...] = ()  # of these subjects; empty: of all
    labelled: bool = True  # whether the answers to the split that is asked are published

    def items(self, root: Path | None) -> list[Item]:
        """Read dev (for the worked questions) and the split that is asked."""
        dev = self._questions(root, "dev")
        asked = [q for q in self._questions(root, self.split) if not self.only or q.subject in self.only]
        self._complete(asked)
        return [
            Item(
                id=f"{self.name}/{question.subject}/{question.id}",
                problem=Problem(f"{self.name}/{number}", self._written(question), "choice", question.answer or UNLABELLED),
                group=question.group,
                language=question.language,
                header=self.header.format(subject=self.subjects.get(question.subject, question.subject)),
                shots=tuple(self._written(shot) + self._answer(shot) for shot in _nearest(dev, question, self.shots)),
            )
            for number, question in enumerate(asked)
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Header, worked questions, the question and the cue; or header, question and instruction."""
        question = item.problem.prompt
        if form == "chat":
            return "\n\n".join(filter(None, [item.header, question])) + self.instruction
        cue = "\n" + self.cues[item.language][0]
        return "\n\n".join(filter(None, [item.header, *item.shots[:shots], question + cue]))

    def options(self, item: Item, form: Form) -> tuple[str, ...]:
        """The letters, for a base model."""
        return tuple(self.cues[item.language][1] + letter for letter in LETTERS) if form == "completion" else ()

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Take the likeliest letters, or read those that were written."""
        scored = [answer for answer in answers if not isinstance(answer, str)]
        if not scored:
            return verified(items, answers)
        read = [max(LETTERS, key=lambda letter: answer[letter]) for answer in scored]
        return [Mark(letter, letter == item.problem.target) for item, letter in zip(items, read, strict=True)]

    def within(self, names: Sequence[str]) -> Choices:
        """The same task on some of its subjects. Raises DataError naming the nearest known subject."""
        for name in names:
            if self.subjects and name not in self.subjects:
                near = get_close_matches(name, self.subjects, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(self.subjects)}."
                raise DataError(f"--subjects {name}: no subject of {self.name}. {hint}")
        return replace(self, only=tuple(names), published=None)

    def _questions(self, root: Path | None, split: str) -> list[Question]:
        patterns = tuple(pattern.format(split=split) for pattern in FILES)
        records = data.read(root, self.folder, patterns, columns=self.columns)
        number = Counter[str]()
        found = []
        for record in records:
            published = self.labelled or split != self.split
            question = _question(record, split, next(iter(self.cues)), number, published=published)
            if self.subjects and question.subject not in self.subjects:
                raise DataError(f"{record.where}: subject {question.subject!r} is none of {self.folder}'s.")
            found.append(question)
        return found

    def _complete(self, asked: Sequence[Question]) -> None:
        """Refuse files that lack a subject asked for, hold a question twice, or label only some."""
        if missing := [name for name in self.only if name not in {question.subject for question in asked}]:
            raise DataError(f"{self.folder}, split {self.split}: no question on {', '.join(missing)}. Fetch it again.")
        twice = [pair for pair, n in Counter((q.subject, q.id) for q in asked).items() if n > 1]
        if twice:
            raise DataError(f"{self.folder}, split {self.split}: {'/'.join(twice[0])} stands there twice. Fetch it again.")
        unlabelled = [question for question in asked if question.answer is None]
        if unlabelled and len(unlabelled) < len(asked):
            first = f"{unlabelled[0].subject}/{unlabelled[0].id}"
            raise DataError(f"{self.folder}, split {self.split}: {first} has no answer, others have. Fetch it again.")

    def _written(self, question: Question) -> str:
        options = (f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=True))
        return "\n".join([self.stem.format(question=question.text.strip()), *options])

    def _answer(self, question: Question) -> str:
        cue, space = self.cues[question.language]
        return f"\n{cue}{space}{question.answer}"


def submission(items: Sequence[Item], marks: Sequence[Mark]) -> dict[str, dict[str, str]]:
    """The official submission file of C-Eval: subject -> id -> letter; an answer that could not be read is empty."""
    found: dict[str, dict[str, str]] = {}
    for item, mark in zip(items, marks, strict=True):
        _, subject, number = item.id.split("/", 2)
        found.setdefault(subject, {})[number] = mark.read or ""
    return found


def _question(record: Record, split: str, language: str, number: Counter[str], *, published: bool) -> Question:
    """Read a row of any of the known files; `number` counts the rows of a subject that carry no id."""
    row = {name.lower() if len(name) > 1 else name: value for name, value in record.values.items()}
    subject = str(row.get("subject") or _named_by(record.file, split))
    options = row.get("choices") or [row.get(letter) for letter in LETTERS]
    if "question" not in row or None in options or len(options) != len(LETTERS):
        have = ", ".join(record.values)
        raise DataError(f"{record.where}: no question with four options (question, A to D, or choices). It has {have}.")
    identity = str(row.get("id", row.get("", number[subject])))
    number[subject] += 1
    return Question(
        subject=subject,
        id=identity,
        text=str(row["question"]),
        options=tuple(str(option) for option in options),
        answer=_letter(row.get("answer"), record.where, published=published),
        language=str(row.get("language", language)),
        group=group(row, subject or "all"),
    )


def _named_by(file: str, split: str) -> str:
    """The subject a file is about: law_val.csv, law.csv, law/val-00000-of-00001.parquet."""
    path = PurePosixPath(file)
    return path.parent.name if path.suffix == ".parquet" else path.stem.removesuffix(f"_{split}")


def _letter(answer: object, where: str, *, published: bool) -> str | None:
    if isinstance(answer, int) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    letter = str(answer or "").strip()
    if not letter and not published:
        return None
    if len(letter) != 1 or letter not in LETTERS:
        raise DataError(f"{where}: the answer is {answer!r}; a letter from A to D is needed. Fetch the file again.")
    return letter


def _nearest(dev: Sequence[Question], asked: Question, wanted: int) -> list[Question]:
    """Worked questions of the same subject; where there are none (a template never trained), some of each other."""
    same = [shot for shot in dev if shot.subject == asked.subject]
    pool = same or [shot for shot in dev if shot.language == asked.language]
    return [pool[i * len(pool) // wanted] for i in range(min(wanted, len(pool)))]


CHINESE, ENGLISH = ("答案：", ""), ("Answer:", " ")
LETTER_ONLY = "\n请直接回答正确选项的字母。"
CEVAL = Choices(
    name="ceval",
    folder="ceval",
    header="以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。",
    subjects=subjects.CEVAL,
    categories=subjects.CEVAL_CATEGORIES,
    cues={"zh": CHINESE},
    instruction=LETTER_ONLY,
    macro=True,
    max_new_tokens=32,
    published=1346,
    protocol="DeepSeek LLM, appendix A.6",
)

TASKS = {
    "ceval": CEVAL,
    "ceval-test": replace(CEVAL, name="ceval-test", split="test", labelled=False, published=None),
    "mmlu": Choices(
        name="mmlu",
        folder="mmlu",
        split="test",
        columns=MMLU_COLUMNS,
        header="The following are multiple choice questions (with answers) about {subject}.",
        subjects=subjects.MMLU,
        categories=subjects.MMLU_CATEGORIES,
        cues={"en": ENGLISH},
        instruction="\nAnswer with the letter of the right option only.",
        max_new_tokens=32,
        protocol="DeepSeek LLM, appendix A.6; mean of items, as hendrycks/test",
    ),
    "cmmlu": Choices(
        name="cmmlu",
        folder="cmmlu",
        split="test",
        header="以下是关于{subject}的单项选择题，请直接给出正确答案的选项。",
        subjects=subjects.CMMLU,
        categories=subjects.CMMLU_CATEGORIES,
        stem="题目：{question}",
        cues={"zh": ("答案是：", "")},
        instruction=LETTER_ONLY,
        macro=True,
        max_new_tokens=32,
        protocol="DeepSeek-V2, appendix",
    ),
    "mini-ceval": Choices(
        name="mini-ceval",
        folder="mini-ceval",
        header="",
        cues={"zh": CHINESE, "en": ENGLISH},
        instruction="",
        max_new_tokens=16,
    ),
}
