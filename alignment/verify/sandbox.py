"""Run model-written code against a problem's tests, in a process that can do little and is believed less.

Each program gets a fresh base interpreter (started by exec, never a fork of this process), an empty environment, a
scratch directory, and every layer the system grants (`locks`); a second process holds the tests and calls it (`cell`),
so only plain values cross (`wire`), and what the program prints or how it ends counts for nothing. The layers that were
in force come back with each verdict. A program is refused where not even its CPU time can be limited.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from alignment.errors import SandboxError
from alignment.verify import answers, wire
from alignment.verify.problem import Problem

TIMEOUT_SECONDS = 3.0  # HumanEval's own
MEMORY_BYTES = 1 << 30
SCRATCH_BYTES = 16 << 20
REPORT_BYTES = 1 << 16
PATIENCE = 10  # times the wall time, for a program that works but gets no core
GRACE_SECONDS = 1.0  # for a checker whose candidate was ended
LAYERS = ("bubblewrap", "user", "net", "ipc", "mount", "pid", "landlock", "seccomp", "rlimits")  # tried, in this order
ROOT = Path(__file__).parents[2]
START = "import sys; sys.path.append(sys.argv.pop()); from alignment.verify import cell; sys.path.pop(); cell.main()"

Reason = Literal["passed", "failed", "timeout", "error", "killed"]


@dataclass(frozen=True)
class Verdict:
    """How a program fared. failed: a test said no; error: anything else went wrong in it; killed: by a limit or us."""

    passed: bool
    reason: Reason
    detail: str
    layers: tuple[str, ...]


_accepted = False  # that this machine may be lost


def accept_unprotected() -> None:
    """Run model-written code even where no limit can be had: the person at the keyboard has said so."""
    global _accepted
    _accepted = True


def run(
    program: str,
    problem: Problem,
    timeout_seconds: float = TIMEOUT_SECONDS,
    wall_seconds: float | None = None,
) -> Verdict:
    """Run one whole program, then the problem's tests.

    The limit is CPU time (whole seconds, rounded up), so that a busy machine fails nobody. Wall time, by default four
    times that and two seconds, ends a program that only waits, and after ten times more any program. SandboxError where
    the processes do not start, or no limit can be had and `accept_unprotected` has not been called.
    """
    if os.name != "posix":
        raise SandboxError(f"model-written code cannot be contained on {sys.platform}. Run this on Linux or macOS.")
    cpu_seconds = max(1, int(-(-timeout_seconds // 1)))
    bounds = {
        "layers": LAYERS,
        "cpu_seconds": cpu_seconds,
        "memory_bytes": MEMORY_BYTES,
        "scratch_bytes": SCRATCH_BYTES,
        "unprotected": _accepted,
    }
    job = {
        "program": program,
        "entry_point": problem.entry_point,
        "helpers": _helpers(problem),
        "tests": problem.tests,
        "calls_check": re.search(r"^def check\(", problem.tests, re.MULTILINE) is not None,
    }
    with tempfile.TemporaryDirectory(prefix="cell-", ignore_cleanup_errors=True) as scratch:
        wrapper = _bubblewrap() if "bubblewrap" in LAYERS else ()
        process = subprocess.Popen(
            [*wrapper, _interpreter(), "-I", "-S", "-c", START, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd=scratch,
            start_new_session=True,
        )
        try:
            told = _converse(process, bounds, job, wall_seconds or 4 * cpu_seconds + 2)
        finally:
            _kill(process)
    return _verdict(told, process.returncode, bool(wrapper))


def run_many(
    pairs: Iterable[tuple[str, Problem]],
    workers: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[Verdict]:
    """Run programs side by side, as many as there are cores; verdicts in the order given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(workers or cores) as pool:  # threads only wait for processes
        return list(pool.map(lambda pair: run(pair[0], pair[1], timeout_seconds), pairs))


def _helpers(problem: Problem) -> str:
    """Return what the prompt defines before the function, which tests may call; a prompt in words defines nothing."""
    block = answers.fenced(problem.prompt)  # a chat turn shows the function in a block
    text = problem.prompt if block is None else block
    head = re.search(rf"^(?:async )?def {re.escape(problem.entry_point)}\b", text, re.MULTILINE)
    if head is None:
        return ""
    try:
        compile(text[: head.start()], "prompt.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return ""
    return text[: head.start()]


def _converse(process: subprocess.Popen[bytes], bounds: object, job: object, wall_seconds: float) -> dict[str, str]:
    """Hand over the job and hear how it went, word by word; "late" where the wall time ran out."""
    assert process.stdin is not None
    assert process.stdout is not None
    output, report = process.stdout.fileno(), b""
    told, started = dict[str, str](), list[int]()
    ends = time.monotonic() + wall_seconds
    try:
        for frame in (bounds, job):
            wire.send(process.stdin.fileno(), frame)
    except BrokenPipeError:
        return told
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)

        def part(ends: float, patience_seconds: float = 0.0) -> bytes | None:
            """Read what comes until then, longer while it starts or works; nothing at the end, None where nothing came."""
            last = ends + patience_seconds
            while not selector.select(max(0.0, ends - time.monotonic())):
                if time.monotonic() >= last or ("layers" in told and not _works(process.pid)):
                    return None
                ends = time.monotonic() + 0.2
            return os.read(output, REPORT_BYTES)

        while told.keys() <= {"layers"} and len(report) < REPORT_BYTES and (new := part(ends, PATIENCE * wall_seconds)):
            report += new
            lines = report.decode(errors="replace").split("\n")[:-1]
            told = {word: detail for word, _, detail in (line.partition(" ") for line in lines)}
            started = started or _offspring(process.pid)
        if new is None:
            told["late"] = "did not end"
        _end(_offspring(process.pid))  # the candidate, which may have no mind to; the checker reaps it, and ends
        while part(time.monotonic() + GRACE_SECONDS):
            continue
    ends = time.monotonic() + GRACE_SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < ends:
        time.sleep(0.005)  # where the checker was ended first, the kernel ends the candidate, but in its own time
    return told


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group; only then is its first process waited for, so that no number can have been reused."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _works(pid: int) -> bool:
    """Say whether a process or any it forked is at work or waits for a core, not for time to pass."""
    states = []
    for process in (pid, *_offspring(pid)):
        with suppress(OSError):
            states.append(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0])
    return "R" in states


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _offspring(pid: int) -> list[int]:
    """Return what a process forked, and what that forked, even where it has left the group."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended, or this system keeps no such list
        return []
    return [one for child in children for one in (child, *_offspring(child))]


def _verdict(told: dict[str, str], code: int, wrapped: bool) -> Verdict:
    if "layers" not in told:
        why = told.get("refused") or told.get("late") or f"the interpreter ended with {code}"
        raise SandboxError(
            f"model-written code cannot be contained here: {why}. Run this where the system limits processes "
            "(any Linux), or add --run-code-unprotected if this machine may be lost."
        )
    layers = ("process", *(["bubblewrap"] if wrapped else []), *filter(None, told["layers"].split(",")))
    for reason in get_args(Reason):
        if reason in told:
            return Verdict(reason == "passed", reason, told[reason], layers)
    if "late" in told:
        return Verdict(False, "timeout", told["late"], layers)
    return Verdict(False, "killed", f"the tests ended with {code}", layers)


def _interpreter() -> str:
    return getattr(sys, "_base_executable", None) or sys.executable


@cache
def _bubblewrap() -> tuple[str, ...]:
    """Return the command to put in front where bubblewrap is installed and works, else nothing."""
    found = shutil.which("bwrap")
    if found is None:
        return ()
    visible = (sys.base_prefix, "/usr", "/lib", "/lib64", "/etc/ld.so.cache", str(ROOT / "alignment"))
    command = (
        *(found, "--unshare-user", "--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-uts"),
        *("--die-with-parent", "--proc", "/proc", "--dev", "/dev"),
        *(word for path in visible for word in ("--ro-bind-try", path, path)),
        *("--tmpfs", "/scratch", "--chdir", "/scratch", "--"),
    )
    works = subprocess.run([*command, _interpreter(), "-I", "-S", "-c", ""], env={}, capture_output=True).returncode == 0
    return command if works else ()
