"""Run model-written code against a problem's tests, in a process that can do little and is believed less.

Each program gets a fresh base interpreter (started by exec, never a fork of this process), an empty environment, a
scratch directory, limits, and every namespace and filter the kernel grants (`cell`). A pass is a line that carries a
nonce and is written after the tests returned; exit codes and printed text count for nothing. The layers that were in
force come back with each verdict.
"""

from __future__ import annotations

import marshal
import os
import re
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignment.verify.problem import Problem

TIMEOUT_SECONDS = 3.0  # HumanEval's own
MEMORY_BYTES = 1 << 30
SCRATCH_BYTES = 16 << 20
REPORT_BYTES = 1 << 16  # a program that floods the result pipe is killed
CELL = Path(__file__).with_name("cell.py")

Reason = Literal["passed", "failed", "timeout", "error", "killed"]


@dataclass(frozen=True)
class Verdict:
    """How a program fared. failed: a test said no; error: anything else went wrong in it; killed: by a limit or us."""

    passed: bool
    reason: Reason
    detail: str
    layers: tuple[str, ...]


def run(program: str, problem: Problem, timeout_seconds: float = TIMEOUT_SECONDS) -> Verdict:
    """Run one whole program, then the problem's tests.

    The limit is CPU time (whole seconds, rounded up), so that a busy machine fails nobody. Wall time,
    four times that and two seconds, ends a program that only waits.
    """
    nonce = secrets.token_hex(16)
    cpu_seconds = max(1, int(-(-timeout_seconds // 1)))
    request = {
        "nonce": nonce,
        "program": program.encode(errors="replace").decode(),
        "tests": problem.tests,
        "entry_point": problem.entry_point,
        "calls_check": re.search(r"^def check\(", problem.tests, re.MULTILINE) is not None,
        "cpu_seconds": cpu_seconds,
        "memory_bytes": MEMORY_BYTES,
        "scratch_bytes": SCRATCH_BYTES,
        "namespaces": sys.platform == "linux",
    }
    with tempfile.TemporaryDirectory(prefix="cell-", ignore_cleanup_errors=True) as scratch:
        process = subprocess.Popen(
            [getattr(sys, "_base_executable", None) or sys.executable, "-I", "-S", "-B", str(CELL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd=scratch,
            start_new_session=True,
        )
        try:
            report, cut = _converse(process, marshal.dumps(request), 4 * cpu_seconds + 2)
        finally:
            _kill(process)
    return _verdict(report, nonce, cut, process.returncode)


def run_many(
    pairs: Iterable[tuple[str, Problem]], workers: int | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> list[Verdict]:
    """Run programs side by side, as many as there are cores; verdicts in the order given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers or cores) as pool:  # threads only wait for processes
        return list(pool.map(lambda pair: run(pair[0], pair[1], timeout_seconds), pairs))


def _converse(process: subprocess.Popen[bytes], request: bytes, wall_seconds: float) -> tuple[bytes, str | None]:
    """Hand over the request and read the report; also say why reading was cut short, if it was."""
    assert process.stdin is not None
    assert process.stdout is not None
    ends = time.monotonic() + wall_seconds
    report = b""
    try:
        process.stdin.write(request)  # the cell reads it all before it does anything else
        process.stdin.close()
    except BrokenPipeError:
        return report, None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := ends - time.monotonic()) > 0:
            if selector.select(left):
                part = os.read(process.stdout.fileno(), REPORT_BYTES)
                if not part:
                    try:
                        process.wait(max(0.1, ends - time.monotonic()))
                    except subprocess.TimeoutExpired:
                        return report, "timeout"
                    return report, None
                report += part
                if len(report) > REPORT_BYTES:
                    return report, "killed"
    return report, "timeout"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group, and the first process of its PID namespace: with that, all that the program ever started."""
    for child in _children(process.pid):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _children(pid: int) -> list[int]:
    """What the cell forked, even if it has left the group. Before the cell is waited for, no number can be reused."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # no such list on this system
        return []


def _verdict(report: bytes, nonce: str, cut: str | None, code: int) -> Verdict:
    told = [line.split(" ", 2)[1:] for line in report.decode(errors="replace").split("\n") if line.startswith(nonce)]
    found = {word: detail for word, detail in told if word}
    layers = ("process", *(name for name in found.pop("layers", "").split(",") if name))
    if cut == "timeout":
        return Verdict(False, "timeout", "did not end", layers)
    if cut == "killed":
        return Verdict(False, "killed", "flooded the result pipe", layers)
    died = code - 128 if code > 128 else -code if code < 0 else 0
    if died:
        if died == signal.SIGXCPU or (died == signal.SIGKILL and "pid" not in layers):
            return Verdict(False, "timeout", "used up its CPU time", layers)
        return Verdict(False, "killed", f"signal {died}", layers)
    for reason in ("passed", "failed", "error"):
        if reason in found:
            return Verdict(reason == "passed", reason, found[reason], layers)
    return Verdict(False, "error", "ended before its tests did", layers)
