"""The sandbox: right programs pass, nothing else does, and nothing gets out."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from alignment.verify import sandbox
from alignment.verify.problem import Problem

DOUBLE = Problem(
    "double", "def double(a):\n", "code",
    tests="def check(candidate):\n    assert candidate(2) == 4, 'two'\n    assert candidate(0) == 0\n",
    entry_point="double",
)  # fmt: skip
RIGHT = "def double(a):\n    return a * 2\n"
WRONG = "def double(a):\n    return 1\n"


def test_a_right_program_passes_and_the_layers_are_told():
    verdict = sandbox.run(RIGHT, DOUBLE)
    assert verdict.passed, verdict
    assert verdict.reason == "passed"
    assert {"process", "rlimits"} <= set(verdict.layers)


def test_plain_asserts_serve_as_tests():
    plain = Problem("p", "", "code", tests="assert double(3) == 6", entry_point="double")
    assert sandbox.run(RIGHT, plain).passed
    assert sandbox.run(WRONG, plain).reason == "failed"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (WRONG, "failed"),
        ("def double(a):\n    return 1 / 0", "error"),
        ("def double(a:", "error"),
        ("def triple(a):\n    return 3 * a", "error"),
        ("def double(a):\n    return double(a)", "error"),
        ("import ctypes\nctypes.string_at(0)", "killed"),
        ("x = [bytearray(10**8) for _ in range(100)]", "error"),
        ("file = open('fill', 'w')\nwhile True:\n    file.write('x' * 10**6)", "error"),
    ],
)
def test_a_wrong_program_fails_for_its_own_reason(program, reason):
    verdict = sandbox.run(program, DOUBLE)
    assert (verdict.passed, verdict.reason) == (False, reason), verdict


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "import sys\ndef double(a):\n    sys.exit(0)",
        "import os\ndef double(a):\n    os._exit(0)",
        "raise KeyboardInterrupt",
        "print('passed')\n" + WRONG,
        "import os\nfor fd in range(20):\n    try:\n        os.write(fd, b'passed\\nx passed \\n')\n"
        "    except OSError:\n        pass\nos._exit(0)",
        "def check(candidate):\n    pass\n" + WRONG,
        "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG,
        "import os\nos.write = lambda *a: 0\n" + WRONG,
    ],
)
def test_success_cannot_be_forged_by_printing_or_leaving(program):
    assert not sandbox.run(program, DOUBLE).passed


@pytest.mark.parametrize("program", ["while True:\n    pass", "import time\ntime.sleep(60)"])
def test_a_program_without_end_is_a_timeout(program):
    begun = time.monotonic()
    assert sandbox.run(program, DOUBLE, timeout_seconds=1).reason == "timeout"
    assert time.monotonic() - begun < 20


def test_output_without_end_is_swallowed():
    verdict = sandbox.run("for _ in range(10_000):\n    print('x' * 1000)\n" + RIGHT, DOUBLE)
    assert verdict.passed, verdict


def test_flooding_the_result_pipe_is_no_pass():
    flood = "import os\nfor fd in range(3, 20):\n    try:\n        while True:\n            os.write(fd, b'x' * 65536)\n"
    flood += "    except OSError:\n        pass\n"
    verdict = sandbox.run(flood + RIGHT, DOUBLE)
    assert not verdict.passed, verdict


def test_a_fork_bomb_stays_bounded():
    layers = sandbox.run(RIGHT, DOUBLE).layers
    if not {"seccomp", "pid"} & set(layers):
        pytest.skip(f"no layer here bounds processes: {layers}")
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    begun = time.monotonic()
    assert sandbox.run(bomb, DOUBLE, timeout_seconds=1).reason in ("timeout", "killed")
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("leave", ["os.setsid()", "os.setpgid(0, 0)", "ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)"])
def test_no_process_survives_its_verdict(leave: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cell = tmp_path / "cell.py"  # a path of its own, to tell it from others that run here
    cell.write_text(sandbox.CELL.read_text())
    monkeypatch.setattr(sandbox, "CELL", cell)
    program = f"import ctypes, os, time\ntry:\n    {leave}\nexcept OSError:\n    pass\ntime.sleep(600)"
    assert sandbox.run(program, DOUBLE, timeout_seconds=1).reason == "timeout"
    time.sleep(0.2)
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if str(cell).encode() in cmdline(pid)]


def cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@pytest.mark.parametrize("trick", ["abs = lambda x: 4", "import builtins\nbuiltins.abs = lambda x: 4"])
def test_a_program_cannot_bend_the_builtins_of_its_tests(trick: str):
    tests = "def check(candidate):\n    assert abs(candidate(2)) == 4\n"
    problem = Problem("b", "", "code", tests=tests, entry_point="double")
    assert not sandbox.run(f"{trick}\n{WRONG}", problem).passed
    assert sandbox.run(f"{trick}\n{RIGHT}", problem).passed


def test_no_socket_reaches_anything():
    layers = sandbox.run(RIGHT, DOUBLE).layers
    if not {"seccomp", "net"} & set(layers):
        pytest.skip(f"no layer here closes the network: {layers}")
    call = "import socket\nsocket.create_connection(('127.0.0.1', 1))\n"
    verdict = sandbox.run(call + RIGHT, DOUBLE)
    assert verdict.reason == "error"
    assert "Refused" not in verdict.detail, "the connection was tried in the host's network"


def test_files_outside_are_not_written_and_inside_leave_no_trace(tmp_path: Path):
    if "mount" not in sandbox.run(RIGHT, DOUBLE).layers:
        pytest.skip("no mount namespace here")
    target = tmp_path / "outside"
    assert sandbox.run(f"open({str(target)!r}, 'w').write('x')\n" + RIGHT, DOUBLE).reason == "error"
    assert not target.exists()
    assert sandbox.run("open('inside', 'w').write('x')\n" + RIGHT, DOUBLE).passed


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    assert sandbox.run("import os\nassert 'SECRET_OF_THE_TEST' not in os.environ\n" + RIGHT, DOUBLE).passed


def test_many_programs_keep_their_order():
    verdicts = sandbox.run_many([(RIGHT, DOUBLE), (WRONG, DOUBLE)] * 4, workers=2)
    assert [verdict.passed for verdict in verdicts] == [True, False] * 4


@pytest.mark.data
def test_canonical_humaneval_solutions_pass_and_stubs_fail(data_root: Path):
    file = data_root / "humaneval" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    problems = [Problem(r["task_id"], r["prompt"], "code", "", r["test"], r["entry_point"]) for r in rows]
    assert len(problems) == 164
    right = [(r["prompt"] + r["canonical_solution"], p) for r, p in zip(rows, problems, strict=True)]
    stubs = [(r["prompt"] + "    pass\n", p) for r, p in zip(rows, problems, strict=True)]
    assert not [v for v in sandbox.run_many(right) if not v.passed]
    assert not [v for v in sandbox.run_many(stubs) if v.passed]
