"""Look at tokenised rows one after the other: what is wrong with each, what they are made of, what comes twice.

Where a row still has its text, the tokens are compared with it by a way that shares nothing with how they were made: the
prompt must be what the library's own chat template asks, id by id, and the learnt tokens must spell the answer.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from alignment import chat
from alignment.errors import ModelError
from alignment.posttrain import supervision
from alignment.posttrain.diagnosis import Fault

BATCH = 512  # rows whose text is compared at a time
ASKED = "the trained prompt is not the prompt that is asked later"
SPELLED = "the learnt tokens do not spell the answer"
STRETCHES = "there are not as many learnt stretches as answers"
ELSEWHERE = "other engines ask with other tokens (apply_chat_template, tokenised as one text)"
MARK_IN_TEXT = "a turn spells a control token: it stays text here, other engines would read it as one"
REPEATED = "the row stands in the set before"
ANSWERED = "the question stands in the set before, with another answer"


@dataclass(frozen=True)
class Case:
    """A row as training sees it, and its text where that is known."""

    name: str
    ids: list[int]
    labels: list[int]
    messages: Sequence[chat.Message] | None = None

    @property
    def learnt(self) -> list[int]:
        """The tokens that are learnt."""
        return [label for label in self.labels if label != -100]

    @cached_property
    def parts(self) -> list[supervision.Stretch]:
        """What is learnt of it and what is not, in turn."""
        return supervision.stretches(self.labels)

    @property
    def question(self) -> list[int]:
        """The tokens before the first answer."""
        return self.ids[: next((part.start for part in self.parts if part.learnt), len(self.ids))]


@dataclass
class Examination:
    """Looks at one case after the other; holds counts, and of the cases only those that wait to be compared."""

    tokenizer: Any
    max_length: int
    wanted: supervision.Expected = field(init=False)
    violations: dict[str, Fault] = field(default_factory=dict)
    notes: dict[str, Fault] = field(default_factory=dict)
    roles: dict[str, list[int]] = field(default_factory=dict)  # role: tokens, learnt tokens
    lengths: array[int] = field(default_factory=lambda: array("i"))  # tokens of each case that is trained on
    learnt: array[int] = field(default_factory=lambda: array("i"))  # of them learnt
    counts: Counter[int] = field(default_factory=Counter)  # learnt tokens, how often each
    broken: dict[str, Case] = field(default_factory=dict)  # the first case of every kind of violation
    seen: set[bytes] = field(default_factory=set)
    asked: set[bytes] = field(default_factory=set)
    waiting: list[Case] = field(default_factory=list)
    compared: int = 0
    spoken: dict[str, list[int]] = field(default_factory=dict)  # what a system turn looks like in tokens

    def __post_init__(self) -> None:
        self.wanted = supervision.expected(self.tokenizer)

    def see(self, case: Case, *, held_out: bool = False) -> None:
        """Look at a case. Every kind of fault counts once a case; what is held out counts for no role."""
        found = set(supervision.faults(case.ids, case.labels, self.wanted))
        if len(case.ids) > self.max_length:
            found.add(f"longer than max_length {self.max_length}")
        for fault in sorted(found):
            self.blame(fault, case)
        if not held_out:
            learnt = case.learnt
            self.lengths.append(len(case.ids))
            self.learnt.append(len(learnt))
            self.counts.update(learnt)
            if len(case.ids) == len(case.labels):
                self._count(case)
        if case.messages is not None:
            self.waiting.append(case)
            if len(self.waiting) >= BATCH:
                self.compare()

    def unique(self, case: Case) -> None:
        """Note a case that stood there before, and a question that did."""
        whole, question = digest(case.ids), digest(case.question)
        if whole in self.seen:
            self.note(REPEATED, case.name)
        elif question in self.asked:
            self.note(ANSWERED, case.name)
        self.seen.add(whole)
        self.asked.add(question)

    def blame(self, fault: str, case: Case) -> None:
        """Count a violation."""
        if fault not in self.violations:
            self.violations[fault] = Fault(fault, case.name)
            self.broken.setdefault(case.name, case)
        self.violations[fault].count += 1

    def note(self, fault: str, name: str) -> None:
        """Count what may be meant."""
        self.notes.setdefault(fault, Fault(fault, name)).count += 1

    def compare(self) -> None:
        """Compare the waiting cases with their text, in a batch."""
        cases, self.waiting = self.waiting, []
        if not cases:
            return
        self.compared += len(cases)
        prompts = [_prompt(case.messages or ()) for case in cases]
        texts = self.tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
        library = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        for case, prompt, ids in zip(cases, prompts, library, strict=True):
            learnt = [part for part in case.parts if part.learnt]
            self._asked(case, prompt, ids, learnt)
            self._spelled(case, learnt)

    def _asked(self, case: Case, prompt: list[chat.Message], library: list[int], learnt: list[supervision.Stretch]) -> None:
        trained = case.ids[: learnt[-1].start] if learnt else case.ids
        if trained == library:
            return
        if trained != chat.encode(self.tokenizer, prompt, answer=False).input_ids:
            self.blame(ASKED, case)
            return
        marks = self.tokenizer.all_special_tokens
        spelled = any(mark in message["content"] for message in prompt for mark in marks)
        self.note(MARK_IN_TEXT if spelled else ELSEWHERE, case.name)

    def _spelled(self, case: Case, learnt: list[supervision.Stretch]) -> None:
        answers = [turn["content"] for turn in case.messages or () if turn["role"] == "assistant"]
        if len(answers) != len(learnt):
            self.blame(STRETCHES, case)
            return
        ends = self.wanted.ends
        said = [[i for i in case.ids[part.start : part.stop] if i >= 0 and i not in ends] for part in learnt]
        texts = self.tokenizer.backend_tokenizer.decode_batch(said, skip_special_tokens=False)
        if any(_letters(text) != _letters(answer) for text, answer in zip(texts, answers, strict=True)):
            self.blame(SPELLED, case)

    def _count(self, case: Case) -> None:
        """Count tokens by role: a turn's tokens are those since the turn before, the template's marks among them."""
        system = case.messages[0] if case.messages and case.messages[0]["role"] == "system" else None
        for part in case.parts:
            at = part.start
            if system is not None and not at and not part.learnt:
                at = min(part.stop, _shared(self._system(system), case.ids))
                self._add("system", at, 0)
            role = "assistant" if part.learnt else "user" if case.messages else "prompt"
            self._add(role, part.stop - at, part.stop - at if part.learnt else 0)

    def _add(self, role: str, tokens: int, learnt: int) -> None:
        count = self.roles.setdefault(role, [0, 0])
        count[0] += tokens
        count[1] += learnt

    def _system(self, turn: chat.Message) -> list[int]:
        """How a conversation with this system turn begins; nothing where the template cannot say it alone."""
        if turn["content"] not in self.spoken:
            try:
                ids = chat.encode(self.tokenizer, [turn], answer=False).input_ids
            except ModelError:
                ids = []
            self.spoken = {**dict(list(self.spoken.items())[-99:]), turn["content"]: ids}
        return self.spoken[turn["content"]]


def _prompt(messages: Sequence[chat.Message]) -> list[chat.Message]:
    """What is asked before the last answer."""
    return list(messages[: max(i for i, turn in enumerate(messages) if turn["role"] == "assistant")])


def digest(ids: Iterable[int]) -> bytes:
    """Name tokens by content."""
    return hashlib.blake2b(array("q", ids), digest_size=16).digest()


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _letters(text: str) -> str:
    """A text without its white space, in one Unicode form: templates trim, and some tokenizers normalise."""
    return "".join(unicodedata.normalize("NFKC", text).split())
