"""Trainers of tiny runs, forked from a program that has loaded the libraries once; killed and resumed at no great cost.

The tests start such programs with `program`, because a test runner's own threads do not survive a fork.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 240.0


def program(file: str, *words: object) -> None:
    """Run a test's file as a program, one thread a process."""
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run([sys.executable, file, *map(str, words)], check=True, env={**os.environ, **settings}, timeout=900)


def start(processes: int, child: Callable[[int], object]) -> list[int]:
    """Fork so many processes that find each other as torchrun's do, and call `child(rank)` in each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        found = os.fork()
        if found == 0:
            if processes > 1:
                about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
                os.environ.update({name: str(value) for name, value in about.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            child(rank)
            os._exit(0)
        children.append(found)
    return children


def until(condition: Callable[[], object], children: list[int]) -> None:
    """Wait for a moment in the life of the trainers. Stops with an error when one of them has ended by itself."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        ended, status = os.waitpid(-1, os.WNOHANG)
        assert not ended, f"a trainer of {children} ended by itself: {status}"
        assert time.monotonic() < end, "the trainers hang"
        time.sleep(0.001)


def reap(children: list[int], code: int = 0) -> None:
    """Wait until all have ended, and see that it was with this exit code (negative: by that signal)."""
    for child in children:
        found = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert found == code, f"a trainer ended with {found}, not {code}"


def logged(path: Path) -> int:
    """Rows that a run has written so far."""
    file = path / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def drafts(path: Path) -> set[tuple[str, int]]:
    """The half-written checkpoints, each with its inode: a killed trainer leaves its own behind."""
    found = set()
    for draft in (path / "checkpoints").glob("*.part"):
        with suppress(FileNotFoundError):  # it has got its name in the meantime
            found.add((draft.name, draft.stat().st_ino))
    return found
