"""The sandbox: right programs pass, wrong ones fail for their own reason, and the verdict says under which layers."""

from __future__ import annotations

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


def asking(tests: str, entry_point: str = "double", prompt: str = "") -> Problem:
    return Problem("asked", prompt, "code", tests=tests, entry_point=entry_point)


def test_a_right_program_passes_and_the_layers_are_told():
    verdict = sandbox.run(RIGHT, DOUBLE)
    assert verdict.passed, verdict
    assert verdict.reason == "passed"
    assert verdict.layers[0] == "process"
    assert any(layer.startswith("rlimits") for layer in verdict.layers)


def test_plain_asserts_serve_as_tests():
    assert sandbox.run(RIGHT, asking("assert double(3) == 6")).passed
    assert sandbox.run(WRONG, asking("assert double(3) == 6")).reason == "failed"


@pytest.mark.parametrize(
    ("program", "reason", "detail"),
    [
        (WRONG, "failed", "two"),
        ("def double(a):\n    return 1 / 0", "error", "ZeroDivisionError"),
        ("def double(a:", "error", "SyntaxError"),
        ("def triple(a):\n    return 3 * a", "error", "double is not defined"),
        ("def double(a):\n    return double(a)", "error", "RecursionError"),
        ("import ctypes\nctypes.string_at(0)", "killed", "signal"),
        ("x = bytearray(1 << 31)", "error", "MemoryError"),
        ("def double(a):\n    yield a", "error", "a generator, which is no plain value"),
        ("def double(a):\n    return object()", "error", "no plain value"),
        ("x = '\ud800'", "error", "can't encode"),
        ("x = 1\0", "error", "null bytes"),
    ],
)
def test_a_wrong_program_fails_for_its_own_reason(program: str, reason: str, detail: str):
    verdict = sandbox.run(program, DOUBLE)
    assert (verdict.passed, verdict.reason) == (False, reason), verdict
    assert detail in verdict.detail


PLAIN = [
    "None", "True", "0", "-7", "10**5000", "0.1", "float('inf')", "-0.0", "1e-320", "2j", "''", "'a\\n\\0é答\\ud800'",
    "b'\\xff'", "[]", "()", "(1,)", "[(1, [2]), {'a': {1: (2.5, None)}}]", "set()", "{1, 'a', (2, 3)}", "frozenset({1})",
    "{(1, 2): [3]}",
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN)
def test_plain_values_cross_both_ways_unchanged(value: str):
    tests = f"given = {value}\ngot = same(given)\nassert got == given and type(got) is type(given), got\n"
    if value != "10**5000":  # so long a number has no repr
        tests += "assert repr(got) == repr(given)"
    assert sandbox.run("def same(a):\n    return a", asking(tests, "same")).passed


def test_what_equals_a_plain_value_by_inheritance_passes_as_one():
    program = "from collections import Counter, OrderedDict, namedtuple\nPair = namedtuple('Pair', 'a b')\n"
    program += "def double(a):\n    return [Counter('aab'), OrderedDict(a=1), Pair(1, 2)]"
    assert sandbox.run(program, asking("assert double(0) == [{'a': 2, 'b': 1}, {'a': 1}, (1, 2)]")).passed


def test_nan_crosses():
    assert sandbox.run("def double(a):\n    return a", asking("got = double(float('nan'))\nassert got != got")).passed


def test_named_arguments_and_state_between_calls_work():
    program = "calls = []\ndef double(a, times=2):\n    calls.append(a)\n    return a * times, len(calls)"
    assert sandbox.run(program, asking("assert double(1) == (2, 1)\nassert double(a=1, times=3) == (3, 2)")).passed


def test_a_program_does_not_see_what_it_changes_in_an_argument():
    program = "def double(a):\n    a.append(1)\n    return a"
    assert sandbox.run(program, asking("mine = [0]\nassert double(mine) == [0, 1]\nassert mine == [0]")).passed


def test_an_expected_exception_can_be_caught():
    tests = "text = ''\ntry:\n    double(-1)\nexcept ValueError as error:\n    text = str(error)\nassert text == 'negative'"
    program = "class Mine(ValueError):\n    pass\ndef double(a):\n    raise {}('negative')"
    assert sandbox.run(program.format("ValueError"), asking(tests)).passed
    assert sandbox.run(program.format("Mine"), asking(tests)).passed
    assert sandbox.run(program.format("KeyError"), asking(tests)).reason == "error"


def test_tests_may_call_what_the_prompt_defines_and_it_is_the_prompts_own():
    prompt = "import math\n\ndef shift(a):\n    return a + math.floor(1.5)\n\n\ndef double(a):\n    '''Double.'''\n"
    problem = asking("assert double(shift(1)) == 4\nassert shift(1) == 2", prompt=prompt)
    assert sandbox.run(prompt + "    return a * 2\n", problem).passed
    assert not sandbox.run("def shift(a):\n    return 5\n" + WRONG, problem).passed
    fenced = asking("assert double(shift(1)) == 4", prompt=f"Complete:\n\n```python\n{prompt}```")
    assert sandbox.run(RIGHT, fenced).passed


@pytest.mark.parametrize("trick", ["abs = lambda x: 4", "import builtins\nbuiltins.abs = lambda x: 4"])
def test_a_program_cannot_bend_the_builtins_of_its_tests(trick: str):
    problem = asking("def check(candidate):\n    assert abs(candidate(2)) == 4\n")
    assert not sandbox.run(f"{trick}\n{WRONG}", problem).passed
    assert sandbox.run(f"{trick}\n{RIGHT}", problem).passed


def test_a_function_may_bear_the_name_of_a_builtin():
    assert sandbox.run("def sum(a):\n    return len(a)", asking("assert sum([5, 5]) == 2", "sum")).passed


def test_printing_and_threads_and_files_in_scratch_are_no_offence():
    program = "import sys, threading\nprint('x' * 10**6)\nsys.stderr.write('x' * 10**6)\n"
    program += "thread = threading.Thread(target=print)\nthread.start()\nthread.join()\n"
    if "mount" in sandbox.run(RIGHT, DOUBLE).layers:
        program += "with open('inside', 'w') as file:\n    file.write('x')\nassert open('inside').read() == 'x'\n"
    assert sandbox.run(program + RIGHT, DOUBLE).passed


@pytest.mark.parametrize("program", ["while True:\n    pass", "import time\ntime.sleep(60)"])
def test_a_program_without_end_is_a_timeout(program: str):
    assert sandbox.run(program, DOUBLE, timeout_seconds=1, wall_seconds=3).reason == "timeout"


def test_tests_without_end_are_no_pass():
    verdict = sandbox.run(RIGHT, asking("assert True\nwhile True:\n    pass"), timeout_seconds=1, wall_seconds=6)
    assert verdict.reason in ("timeout", "killed")


def test_many_programs_keep_their_order():
    verdicts = sandbox.run_many([(RIGHT, DOUBLE), (WRONG, DOUBLE)] * 4, workers=2)
    assert [verdict.passed for verdict in verdicts] == [True, False] * 4
