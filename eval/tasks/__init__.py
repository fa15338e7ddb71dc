"""The benchmarks by name, one file per shape. Three rows make a dict, not a registry."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

from alignment.errors import DataError
from eval.task import Task
from eval.tasks import gsm8k, humaneval, lm_eval, math, multiple_choice, preference, sums
from eval.tasks.multiple_choice import Choices

TASKS: dict[str, Task] = {
    **{**gsm8k.TASKS, **math.TASKS, **humaneval.TASKS, **multiple_choice.TASKS, **sums.TASKS},
    **preference.TASKS,
}

Protocol = Literal["paper", "lm-eval"]
PROTOCOLS: dict[Protocol, dict[str, Task]] = {"paper": TASKS, "lm-eval": lm_eval.TASKS}


def named(names: Sequence[str], protocol: Protocol = "paper", subjects: Sequence[str] = ()) -> list[Task]:
    """Look tasks up by name. Raises DataError with the nearest known name.

    `subjects` limits those tasks that have subjects; where none has, it is refused.
    """
    known = PROTOCOLS[protocol]
    listed = f"Tasks: {', '.join(known)}." if protocol == "paper" else f"Protocol {protocol} has {', '.join(known)}."
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"--tasks {name}: no such task.{hint} {listed}")
    if not names:
        raise DataError(f"--tasks: names no task. {listed}")
    found = [known[name] for name in dict.fromkeys(names)]
    if subjects and not any(isinstance(task, Choices) for task in found):
        raise DataError(f"--subjects: {', '.join(names)} have none. ceval, mmlu and cmmlu do.")
    return [task.within(subjects) if subjects and isinstance(task, Choices) else task for task in found]
