"""The sandbox on real problems: right solutions pass, stubs do not, and most mutants of right solutions do not."""

from __future__ import annotations

import ast
import gzip
import json
import re
from pathlib import Path

import pytest

from alignment.verify import sandbox
from alignment.verify.problem import Problem


def humaneval(data_root: Path) -> list[tuple[dict[str, str], Problem]]:
    file = data_root / "humaneval" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert len(rows) == 164
    return [(row, Problem(row["task_id"], row["prompt"], "code", "", row["test"], row["entry_point"])) for row in rows]


@pytest.mark.slow
@pytest.mark.data
def test_canonical_humaneval_solutions_pass_and_stubs_fail(data_root: Path):
    pairs = humaneval(data_root)
    right = [(row["prompt"] + row["canonical_solution"], problem) for row, problem in pairs]
    stubs = [(row["prompt"] + "    pass\n", problem) for row, problem in pairs]
    assert not [verdict for verdict in sandbox.run_many(right) if not verdict.passed]
    assert not [verdict for verdict in sandbox.run_many(stubs) if verdict.passed]


@pytest.mark.slow
@pytest.mark.data
def test_canonical_mbpp_solutions_pass(data_root: Path):
    rows = [json.loads(line) for line in (data_root / "mbpp" / "mbpp_1-510.jsonl").read_text().splitlines()]
    pairs = []
    for row in rows:
        tests = "\n".join([row["test_setup_code"], *row["test_list"]])
        name = next(
            name for name in re.findall(r"\w+", row["test_list"][0]) if re.search(rf"^def {name}\b", row["code"], re.M)
        )
        pairs.append((row["code"], Problem(str(row["task_id"]), row["text"], "code", "", tests, name)))
    assert len(pairs) == 510
    failed = [
        pair[1].id
        for pair, verdict in zip(pairs, sandbox.run_many(pairs, timeout_seconds=10), strict=True)
        if not verdict.passed
    ]
    assert failed == ["367"]  # its tests build objects of a class that the solution defines: no plain values


SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


class Mutation(ast.NodeTransformer):
    """Change one place of a program: the n-th that can be changed."""

    def __init__(self, place: int) -> None:
        self.place, self.seen = place, 0

    def here(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.place

    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        for field in ("op", "ops"):
            operator = getattr(node, field, None)
            first = operator[0] if isinstance(operator, list) and operator else operator
            if type(first) in SWAPS and self.here():
                swapped = SWAPS[type(first)]()
                setattr(node, field, [swapped, *operator[1:]] if isinstance(operator, list) else swapped)
        if isinstance(node, ast.Constant) and type(node.value) is int and self.here():
            return ast.copy_location(ast.Constant(node.value + 1), node)
        if isinstance(node, ast.Constant) and type(node.value) is bool and self.here():
            return ast.copy_location(ast.Constant(not node.value), node)
        return node


def mutants(program: str, most: int) -> list[str]:
    """Up to `most` mutants of a program, at even distances over its places."""
    counted = Mutation(-1)
    counted.visit(ast.parse(program))
    places = {i * counted.seen // most for i in range(most)} if counted.seen > most else set(range(counted.seen))
    return [ast.unparse(ast.fix_missing_locations(Mutation(place).visit(ast.parse(program)))) for place in sorted(places)]


def test_a_mutant_differs_in_one_place():
    assert mutants("def f(a):\n    return a + 1 if a < 2 else a", most=9) == [
        "def f(a):\n    return a + 1 if a < 3 else a",
        "def f(a):\n    return a + 1 if a <= 2 else a",
        "def f(a):\n    return a + 2 if a < 2 else a",
        "def f(a):\n    return a - 1 if a < 2 else a",
    ]


@pytest.mark.slow
@pytest.mark.data
def test_most_mutants_of_humaneval_solutions_are_killed(data_root: Path, record_property):
    pairs = [
        (mutant, problem)
        for row, problem in humaneval(data_root)
        for mutant in mutants(row["prompt"] + row["canonical_solution"], most=3)
    ]
    assert len(pairs) > 400
    alive = [problem.id for (_, problem), verdict in zip(pairs, sandbox.run_many(pairs), strict=True) if verdict.passed]
    record_property("mutants", f"{len(alive)} of {len(pairs)} pass")
    assert len(alive) / len(pairs) < 0.2, f"{len(alive)} of {len(pairs)} mutants pass the tests"
