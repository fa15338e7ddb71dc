"""Is this answer right? One verdict for every kind of problem, used by evaluation, preferences and rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignment.verify import answers, expression, sandbox
from alignment.verify.problem import Problem


@dataclass(frozen=True)
class Judgement:
    """What was read out of an answer (None: nothing could be), whether it is right, and why not."""

    read: str | None
    correct: bool
    why: str = ""
    layers: tuple[str, ...] = ()  # of the sandbox, for code


def verify(problem: Problem, answer: str) -> Judgement:
    """Judge one answer."""
    return verify_many([(problem, answer)])[0]


def verify_many(
    pairs: Sequence[tuple[Problem, str]],
    workers: int | None = None,
    program: Callable[[str, str, str], str | None] = answers.program,
) -> list[Judgement]:
    """Judge many answers; programs run side by side, equal programs once.

    `program` makes one of a prompt, an answer and the name of the function asked for; None where there is no code.
    """
    judged: list[Judgement | None] = [_read(problem, answer) for problem, answer in pairs]
    programs = {
        i: program(problem.prompt, answer, problem.entry_point)
        for i, (problem, answer) in enumerate(pairs)
        if judged[i] is None
    }
    jobs = list(dict.fromkeys((text, pairs[i][0]) for i, text in programs.items() if text is not None))
    verdicts = dict(zip(jobs, sandbox.run_many(jobs, workers), strict=True)) if jobs else {}
    for i, text in programs.items():
        if text is None:
            judged[i] = Judgement(None, False, "no code")
        else:
            verdict = verdicts[text, pairs[i][0]]
            why = "" if verdict.passed else f"{verdict.reason}: {verdict.detail}".rstrip(": ")
            judged[i] = Judgement(text, verdict.passed, why, verdict.layers)
    return [judgement for judgement in judged if judgement is not None]


def _read(problem: Problem, answer: str) -> Judgement | None:
    """Judge what needs no sandbox; None for code."""
    if problem.kind == "code":
        return None
    if problem.kind == "number":
        read = answers.gsm8k(answer) or answers.last_number(answer)
        return _compared(read, answers.same_number(read, problem.target), problem.target)
    if problem.kind == "expression":
        read = expression.read_or_last_number(answer)
        return _compared(read, expression.same(read, problem.target), problem.target)
    if problem.kind == "choice":
        read = answers.choice(answer)
        return _compared(read, read == problem.target, problem.target)
    said = None if not answer.strip() else "decline" if answers.declines(answer) else "answer"
    return _compared(said, said == problem.target, problem.target)


def _compared(read: str | None, correct: bool, target: str) -> Judgement:
    why = "" if correct else "unread" if read is None else f"{read}, not {target}"
    return Judgement(read, correct, why)
