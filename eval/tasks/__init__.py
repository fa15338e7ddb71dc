"""The benchmarks by name, one file per shape. Three rows make a dict, not a registry."""

from __future__ import annotations

from difflib import get_close_matches

from alignment.errors import DataError
from eval.task import Task
from eval.tasks import gsm8k, humaneval, multiple_choice

TASKS: dict[str, Task] = {**gsm8k.TASKS, **humaneval.TASKS, **multiple_choice.TASKS}


def named(names: list[str]) -> list[Task]:
    """Look tasks up by name. Raises DataError with the nearest known name."""
    for name in names:
        if name not in TASKS:
            near = get_close_matches(name, TASKS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"--tasks {name}: no such task.{hint} Tasks: {', '.join(TASKS)}.")
    if not names:
        raise DataError(f"--tasks: names no task. Tasks: {', '.join(TASKS)}.")
    return [TASKS[name] for name in dict.fromkeys(names)]
