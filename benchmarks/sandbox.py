"""How many programs a second does the sandbox judge, under which layers, and what does a program cost?

Run from the project's root: `python benchmarks/sandbox.py [--programs N] [--data-root DIR]`. Programs: the smallest that
can pass, the same with `typing` (which most answers import), and, with --data-root, HumanEval's own solutions. Each
must pass, or nothing is printed for it. CPU is that of all processes, this one's included.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console

from alignment.verify import sandbox
from alignment.verify.problem import Problem

DOUBLE = Problem("double", "", "code", tests="assert double(2) == 4", entry_point="double")
TRIVIAL = "def double(a):\n    return a * 2\n"
Job = tuple[str, Problem]


def measure(jobs: list[Job], workers: int) -> tuple[float, float]:
    """Programs a second, and CPU milliseconds a program."""
    sandbox.run(*jobs[0])  # writes the bytecode of a fresh checkout
    begun, spent = time.perf_counter(), cpu_seconds()
    verdicts = sandbox.run_many(jobs, workers)
    seconds = time.perf_counter() - begun
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise SystemExit(f"{len(failed)} of {len(jobs)} right programs did not pass: {failed[0]}")
    return len(jobs) / seconds, (cpu_seconds() - spent) / len(jobs) * 1000


def cpu_seconds() -> float:
    """CPU of this process and of all it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def humaneval(root: Path) -> list[Job]:
    """HumanEval's problems with their own solutions."""
    lines = gzip.decompress((root / "humaneval" / "HumanEval.jsonl.gz").read_bytes()).splitlines()
    return [
        (r["prompt"] + r["canonical_solution"], Problem(r["task_id"], r["prompt"], "code", "", r["test"], r["entry_point"]))
        for r in map(json.loads, lines)
    ]


def main() -> None:
    """Measure each set once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    sets = {
        "smallest": [(TRIVIAL, DOUBLE)] * given.programs,
        "with typing": [("from typing import List\n" + TRIVIAL, DOUBLE)] * given.programs,
    }
    if given.data_root:
        sets["HumanEval's solutions"] = humaneval(given.data_root)
    say = Console().print
    say(f"layers: {', '.join(sandbox.run(TRIVIAL, DOUBLE).layers)}")
    for name, jobs in sets.items():
        rate, cpu = measure(jobs, given.workers)
        say(f"{name}: {rate:.1f} programs a second, {cpu:.0f} ms of CPU each, n = {len(jobs)}, {given.workers} workers")
    say(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    say(f"load of the last minute: {os.getloadavg()[0]:.1f} (the rate is for this load, CPU hardly depends on it)")


if __name__ == "__main__":
    main()
