"""Small Python functions with tests, in HumanEval's format.

Each family states its body once, as source. The expected values of the asserts come from running that source on
inputs chosen so that a stub (nothing, a constant, the argument itself) and the usual slips (>= for >, the wrong
end of a list) fail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from alignment.corpus.curriculum.exercise import Exercise, Language, pick

NUMBERS = "x n number value"
LISTS = "xs numbers values items"
TEXTS = "text word line name"


@dataclass(frozen=True)
class Function:
    names: str
    argument: str
    promise: str
    body: str
    inputs: Sequence[object]


def add(random: Random) -> Function:
    x, k = pick(random, NUMBERS), random.randint(11, 99)
    return Function("add plus increase", x, f"Return {x} plus {k}.", f"{x} + {k}", (0, 7, -4))


def multiply(random: Random) -> Function:
    x, k = pick(random, NUMBERS), random.randint(11, 99)
    return Function("multiply times scale", x, f"Return {x} times {k}.", f"{x} * {k}", (1, 7, -4))


def repeat(random: Random) -> Function:
    text, k = pick(random, TEXTS), random.randint(11, 99)
    return Function("repeat copies", text, f"Repeat {text} {k} times.", f"{text} * {k}", ("a", "no", "xyz"))


def total(random: Random) -> Function:
    xs, k = pick(random, LISTS), random.randint(11, 99)
    return Function("total add_up", xs, f"Return the sum of {xs} plus {k}.", f"sum({xs}) + {k}", ([], [4], [1, 2, 6]))


def plus_times(random: Random) -> Function:
    x, a, b = pick(random, NUMBERS), random.randint(11, 40), random.randint(11, 20)
    promise = f"Add {a} to {x}, then multiply the result by {b}."
    return Function("two_steps", x, promise, f"({x} + {a}) * {b}", (0, 7, -3))


def sum_above(random: Random) -> Function:
    xs, k = pick(random, LISTS), random.randint(11, 99)
    promise = f"Add up only those {xs} which exceed {k}."
    body = f"sum(x for x in {xs} if x > {k})"
    return Function("sum_above", xs, promise, body, ([k, k + 1], [0, 1], [k + 1, 0, k + 2]))


SEEN: dict[str, Callable[[Random], Function]] = {"add": add, "multiply": multiply, "repeat": repeat, "total": total}
UNSEEN: dict[str, Callable[[Random], Function]] = {"plus_times": plus_times, "sum_above": sum_above}


@cache
def asserts(argument: str, body: str, inputs: str) -> str:
    """The `check` function: what our own source, stated above, returns on each input."""
    results = eval(f"[({body}, {argument}) for {argument} in {inputs}]")
    lines = [f"    assert candidate({value!r}) == {result!r}" for result, value in results]
    return "\n".join(["def check(candidate):", *lines]) + "\n"


def function(random: Random, family: str, language: Language = "en") -> Exercise:
    """Draw a function of a family, with the asserts that its own body passes."""
    made = (SEEN | UNSEEN)[family](random)
    name = pick(random, made.names)
    signature = f'def {name}({made.argument}):\n    """{made.promise}"""\n'
    tests = asserts(made.argument, made.body, repr(made.inputs))
    body = f"    return {made.body}\n"
    return Exercise("code", family, language, signature, body, tests=tests, entry_point=name, unseen=family in UNSEEN)
