"""Bare sums: worked ones before the asked one, and only equal digits are right."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from alignment import recipe
from alignment.corpus.curriculum import arithmetic, exercise, write
from eval import tasks
from eval.task import Item


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    (tmp_path / "mini-sums").mkdir()
    for name in ("train", "test"):
        rows = [{"question": f"{a} + 7 =", "answer": str(a + 7), "family": "add"} for a in range(6)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "mini-sums" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tasks.TASKS["mini-sums"].items(tmp_path)


def test_the_prompt_is_worked_sums_and_the_asked_one(items: list[Item]) -> None:
    task = tasks.TASKS["mini-sums"]
    assert task.prompt(items[5], "completion", 2) == "0 + 7 = 7\n\n1 + 7 = 8\n\n5 + 7 ="
    assert task.prompt(items[5], "chat", 0) == "5 + 7 ="


@pytest.mark.parametrize(("text", "read", "right"), [
    (" 12", "12", True),
    ("12\n\n3 + 4", "12", True),
    (" 1 2", "1", False),
    (" 012", "012", False),
    (" 12.", None, False),
    (" １２", None, False),
    ("", None, False),
])  # fmt: skip
def test_only_the_digits_themselves_are_right(items: list[Item], text: str, read: str | None, right: bool) -> None:
    (mark,) = tasks.TASKS["mini-sums"].mark(items[5:], [text])
    assert (mark.read, mark.correct) == (read, right)


def test_the_curriculum_writes_sums_that_are_right_and_keeps_the_held_out_ones_apart() -> None:
    seen: dict[str, set[str]] = {}
    random = Random(0)
    for number in range(2000):
        item = arithmetic.bare_sum(random, ("add", "take")[number % 2], "en")
        left, sign, right, _ = item.question.split()
        assert int(item.target) == int(left) + int(right) * (1 if sign == "+" else -1) >= 0
        assert exercise.passage(item) == f"{item.question} {item.target}"
        seen.setdefault(exercise.pool(item), set()).add(item.question)
    assert not seen["train"] & seen["evaluation"]
    assert len(seen["evaluation"]) > 100


def test_held_out_sums_are_distinct_and_none_comes_from_the_training_pool() -> None:
    shots, found = write.heldout(0, "sum", 60)
    assert len(found) == 60
    assert len({item.question for item in (*shots, *found)}) == 60 + len(shots)
    assert {exercise.pool(item) for item in (*shots, *found)} == {"evaluation"}


def test_the_recipes_of_the_claim_differ_in_their_digits_alone() -> None:
    folder = Path(__file__).parents[2] / "recipes/claims/digits"
    split, merged = (recipe.load(folder / f"tokenizer-{way}.yaml").model_dump() for way in ("split", "merged"))
    assert {name for name in split if split[name] != merged[name]} == {"digits"}
