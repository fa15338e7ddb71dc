"""What inputs share: every input is whole again along its path, and nothing is shared beyond its limit."""

from __future__ import annotations

import random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from alignment.generate import prefixes


def paths(inputs, limits, least_gain=0.0):
    """Per input, the ids on its path from the root; and how many tokens were read for all."""
    reader = SimpleNamespace(read=lambda ids, before: (before or []) + list(ids))
    found, node = {}, prefixes.tree(inputs, limits, least_gain)
    for prefix, depth, rows in prefixes.walk(reader, node):
        assert len(prefix or []) == depth
        for row in rows:
            assert row not in found
            found[row] = prefix or []
    return [found[i] for i in range(len(inputs))], _read(node)


def _read(node) -> int:
    return len(node.ids) + sum(map(_read, node.children))


def families(seed: int) -> list[list[int]]:
    """Random inputs with long common beginnings, some nested, some equal."""
    dice = random.Random(seed)
    stems = [[dice.randrange(4) for _ in range(dice.randrange(40))] for _ in range(3)]
    stems += [stems[0] + [dice.randrange(4) for _ in range(30)]]
    tails = [[dice.randrange(4) for _ in range(dice.randrange(1, 9))] for _ in range(4)]
    return [dice.choice(stems) + dice.choice(tails) for _ in range(dice.randrange(1, 14))]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.25]))
def test_every_path_is_the_beginning_of_its_input(seed, least_gain):
    inputs = families(seed)
    dice = random.Random(seed)
    limits = [dice.randrange(len(ids)) for ids in inputs]
    found, _ = paths(inputs, limits, least_gain)
    for ids, limit, path in zip(inputs, limits, found, strict=True):
        assert ids[: len(path)] == path
        assert len(path) <= limit


def test_examples_subjects_and_questions_are_read_once():
    header, subjects = [1] * 20, [[2] * 50, [3] * 50]
    questions = [[10 + q] * 30 for q in range(3)]
    options = [[90], [91, 92]]
    inputs = [header + s + q + o for s in subjects for q in questions for o in options]
    found, read = paths(inputs, [len(ids) - 1 for ids in inputs])
    assert read == 20 + 2 * 50 + 6 * 30
    assert [len(path) for path in found] == [100] * 12


def test_small_savings_do_not_split_a_batch():
    inputs = [[1] * 100 + [k] * (20 + k % 2) + [50 + k, *range(60 + k, 200)] for k in range(8) for _ in range(2)]
    limits = [len(ids) - 1 for ids in inputs]
    assert prefixes.tree(inputs, limits).children
    assert not prefixes.tree(inputs, limits, 10.0).children


def test_no_inputs_make_an_empty_tree():
    assert prefixes.tree([], []) == prefixes.Node([])
