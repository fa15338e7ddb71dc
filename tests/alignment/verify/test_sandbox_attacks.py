"""Red team: programs that try to pass without being right, to read, to reach, to leave a trace, or to exhaust.

Each is judged by its effect: what it says it got (a test raises it), what the servers of the arena heard, what lies
outside afterwards, which processes still run. The harmless ones are also run without a sandbox, where they succeed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.verify import sandbox
from alignment.verify.problem import Problem

TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n"
DOUBLE = Problem("double", "def double(a):\n", "code", tests=TESTS, entry_point="double")
TELL = Problem("tell", "", "code", tests="told = attempt()\nassert False, told", entry_point="attempt")
RIGHT = "def double(a):\n    return a * 2\n"
WRONG = "def double(a):\n    return 1\n"
FOLDER = Path(__file__).with_name("attacks")
DENIED = "(PermissionError|FileNotFoundError|NotADirectoryError|OSError)"
PRELUDE = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(act, *given, **named):
    try:
        return f"got {act(*given, **named)!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
def called(number, *given):
    return f"got {libc.syscall(number, *given)}, {os.strerror(ctypes.get_errno())}"
def each(acts):
    return " | ".join(acts)
"""


@pytest.fixture(scope="module")
def layers() -> set[str]:
    """The layers this machine grants."""
    return {layer.partition("-")[0] for layer in sandbox.run(RIGHT, DOUBLE).layers}


def attacks(name: str) -> dict[str, str]:
    """Read a file of attacks: each begins with `=== its name`."""
    parts = (FOLDER / f"{name}.txt").read_text().split("\n=== ")[1:]
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def says(program: str, word: str) -> str:
    """Return what an attack's comment says of it; empty where it says nothing."""
    found = re.search(rf"^# {word}: (.*)$", program, re.MULTILINE)
    return found[1].replace("DENIED", DENIED) if found else ""


FORGERIES, EXHAUSTIONS = attacks("forgeries"), attacks("exhaustions")
ATTEMPTS = attacks("thefts") | attacks("reaches") | attacks("traces")


@pytest.mark.parametrize("name", FORGERIES)
def test_no_pass_is_forged(name: str, arena: Any) -> None:
    verdict = arena.attack(FORGERIES[name], DOUBLE)
    assert verdict.reason in ("failed", "error", "timeout", "killed")
    assert verdict.detail or verdict.reason == "failed"


LENIENT = {
    "an iteration": "assert all(n == 4 for n in map(double, [2, 2]))",
    "a loop": "for n in map(double, [2, 2]):\n    print(n)\nassert True",
    "a caught exception": "try:\n    double(2)\nexcept Exception:\n    pass\nassert True",
    "whatever caught": "try:\n    double(2)\nexcept:\n    pass\nassert True",
}


@pytest.mark.parametrize("name", LENIENT)
def test_a_candidate_that_is_gone_cannot_slip_through_lenient_tests(name: str, arena: Any) -> None:
    problem = Problem("lenient", "", "code", tests=LENIENT[name], entry_point="double")
    arena.attack("import os\ndef double(a):\n    os._exit(0)", problem)


@pytest.mark.parametrize("name", ["an iteration", "a loop"])
def test_stop_iteration_does_not_end_the_tests(name: str, arena: Any) -> None:
    problem = Problem("lenient", "", "code", tests=LENIENT[name], entry_point="double")
    arena.attack("def double(a):\n    raise StopIteration", problem)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_is_stolen_reached_or_left(name: str, arena: Any, layers: set[str]) -> None:
    if not {"seccomp", "pid", "net"} <= layers or not {"landlock", "mount"} & layers:
        pytest.skip(f"not all layers here: {layers}")
    inside = says(ATTEMPTS[name], "inside")
    verdict = arena.attack(PRELUDE + ATTEMPTS[name], TELL)
    assert verdict.reason == "failed", "it was to tell what it got"
    told = verdict.detail.removeprefix("AssertionError: ")
    assert inside
    assert re.search(inside, told), told
    if inside == DENIED:
        assert "got " not in told


@pytest.mark.parametrize("name", [name for name in ATTEMPTS if says(ATTEMPTS[name], "outside")])
def test_without_a_sandbox_the_same_program_succeeds(name: str, arena: Any) -> None:
    outside = says(ATTEMPTS[name], "outside")
    script = arena.fill(PRELUDE + ATTEMPTS[name] + "\nprint(attempt())")
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30).stdout
    assert re.search(outside.replace("SECRET", arena.secret), told, re.IGNORECASE), told


@pytest.mark.slow
@pytest.mark.parametrize("name", EXHAUSTIONS)
def test_nothing_is_exhausted(name: str, arena: Any, layers: set[str]) -> None:
    if not {"seccomp", "mount", "rlimits"} <= layers:
        pytest.skip(f"not all layers here: {layers}")
    verdict = arena.attack(EXHAUSTIONS[name], DOUBLE)
    assert verdict.reason in {*says(EXHAUSTIONS[name], "ends").split(", "), "timeout"}, verdict  # busy machines time out
    assert sandbox.run(RIGHT, DOUBLE).passed, "the harness lives"
