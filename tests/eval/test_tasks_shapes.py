"""The benchmarks that fall out of the shapes: MBPP, MATH, CMATH, and the programs that a chat answer stands for."""

from __future__ import annotations

import json

import pytest

from alignment.errors import DataError
from eval.task import Mark
from eval.tasks import TASKS
from eval.tasks import math as expressions


def jsonl(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")


def mbpp_row(number, **changes):
    code = "def helper(x):\r\n    return x\r\ndef double(x):\r\n    return helper(x) * 2"
    tests = [f"assert double({i}) == {2 * i}" for i in range(3)]
    row = {"task_id": number, "text": f"Write task {number}.", "code": code, "test_list": tests, "test_setup_code": ""}
    return row | changes


@pytest.fixture
def mbpp(tmp_path):
    jsonl(tmp_path / "mbpp/mbpp.jsonl", [mbpp_row(number) for number in (1, 2, 3, 4, 5, 10, 11, 12, 510, 511)])
    return tmp_path


def test_the_mbpp_prompt_is_the_papers(mbpp):
    task = TASKS["mbpp"]
    items = task.items(mbpp)
    assert [item.id for item in items] == ["mbpp/11", "mbpp/12", "mbpp/510"]
    tests = "assert double(0) == 0\nassert double(1) == 2\nassert double(2) == 4"
    asked = (
        "You are an expert Python programmer, and here is your task: Write task {}. Your code should pass these tests:\n\n"
    )
    prompt = task.prompt(items[0], "completion", 3)
    assert prompt.startswith(asked.format(2) + tests + "\n[BEGIN]\ndef helper(x):\n    return x\n")
    assert prompt.endswith("\n[DONE]\n\n" + asked.format(11) + tests + "\n[BEGIN]\n")
    assert prompt.count("[DONE]") == 3
    assert "```python\n" + tests in task.prompt(items[0], "chat", 0)
    assert items[0].problem.entry_point == "double"


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        ("def double(x):\n    return x + x\n", True),
        ("Here:\n```python\ndef double(x):\n    return x + x\n```\nDone.", True),
        ("def double(x):\n    return x\n", False),
        ("", False),
    ],
)
def test_an_mbpp_answer_is_run_against_its_asserts(mbpp, answer, correct):
    item = TASKS["mbpp"].items(mbpp)[0]
    assert TASKS["mbpp"].mark([item], [answer])[0].correct is correct


def test_a_description_whose_tests_call_nothing_of_its_code_is_named(tmp_path):
    rows = [mbpp_row(number) for number in (2, 3, 4, 11)]
    jsonl(tmp_path / "mbpp/mbpp.jsonl", [*rows, mbpp_row(12, test_list=["assert other(1) == 1"])])
    with pytest.raises(DataError, match=r"mbpp\.jsonl, row 5: no function of its code"):
        TASKS["mbpp"].items(tmp_path)
    jsonl(tmp_path / "mbpp/mbpp.jsonl", rows[1:])
    with pytest.raises(DataError, match="no task_id 2"):
        TASKS["mbpp"].items(tmp_path)
    jsonl(tmp_path / "mbpp/mbpp.jsonl", rows[:3])
    with pytest.raises(DataError, match=r"mbpp\.jsonl, row 3: no task_id from 11 to 510"):
        TASKS["mbpp"].items(tmp_path)


@pytest.fixture
def math(tmp_path):
    solution = "Half of one is $\\boxed{\\frac{1}{2}}$."
    row = {"problem": "What is half of 1?", "solution": solution, "level": "Level 1", "type": "Algebra"}
    jsonl(tmp_path / "math/test.jsonl", [row])
    return tmp_path


def test_the_math_prompt_is_minervas(math):
    task = TASKS["math"]
    (item,) = task.items(math)
    prompt = task.prompt(item, "completion", 4)
    assert prompt.startswith("Problem:\nFind the domain of the expression")
    assert prompt.count("Final Answer: The final answer is $") == prompt.count("$. I hope it is correct.\n\nProblem:\n") == 4
    assert prompt.endswith("Problem:\nWhat is half of 1?\n\nSolution:")
    assert (item.problem.target, item.group) == ("\\frac{1}{2}", "Algebra")
    assert all(
        expressions._strict(shot, target).correct for shot, (*_, target) in zip(item.shots, expressions.SHOTS, strict=True)
    )


@pytest.mark.parametrize(
    ("answer", "read", "correct", "strict"),
    [
        ("So.\nFinal Answer: The final answer is $\\frac12$. I hope it is correct.", "\\frac12", True, True),
        ("It is \\boxed{0.5}.", "0.5", True, True),
        ("which makes 0.5", "0.5", True, False),
        ("I do not know.", None, False, False),
    ],
)
def test_an_expression_is_read_strictly_and_flexibly(math, answer, read, correct, strict):
    (item,) = TASKS["math"].items(math)
    (mark,) = TASKS["math"].mark([item], [answer])
    assert (mark.read, mark.correct, mark.strict.correct) == (read, correct, strict)


def test_a_solution_without_a_box_is_named(tmp_path):
    jsonl(tmp_path / "math/test.jsonl", [{"problem": "p", "solution": "none"}])
    with pytest.raises(DataError, match=r"test\.jsonl, row 1: a solution without \\boxed"):
        TASKS["math"].items(tmp_path)


def test_the_cmath_prompt_is_the_papers(tmp_path):
    row = {"question": "3加4是多少？", "golden": "7", "grade": 2, "reasoning_step": 1, "num_digits": 1}
    jsonl(tmp_path / "cmath/cmath_test.jsonl", [row])
    task = TASKS["cmath"]
    (item,) = task.items(tmp_path)
    prompt = task.prompt(item, "completion", 3)
    assert prompt.startswith("Q: 张师傅")
    assert prompt.count("所以答案是：") == 3
    assert prompt.endswith("所以答案是：10。\n\nQ: 3加4是多少？\nA:")
    assert task.prompt(item, "chat", 0).endswith("放置于\\boxed{}中。")
    assert (item.group, item.language) == ("grade 2", "zh")
    (mark,) = task.mark([item], ["3+4=7。所以答案是：7。"])
    assert (mark.correct, mark.strict) == (True, Mark("7", True))


@pytest.mark.data
def test_the_real_sets_are_read_whole(data_root):
    sizes = {"gsm8k": 1319, "humaneval": 164, "mbpp": 500, "math": 4500, "ceval": 1346}
    for name, size in sizes.items():
        items = TASKS[name].items(data_root)
        assert len(items) == size
        assert len({item.id for item in items}) == size
    assert {item.group for item in TASKS["ceval"].items(data_root)} == set(TASKS["ceval"].subjects)


@pytest.mark.data
def test_every_reference_answer_of_math_and_gsm8k_is_right(data_root):
    rows = [json.loads(line) for line in (data_root / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()]
    marks = TASKS["gsm8k"].mark(TASKS["gsm8k"].items(data_root), [row["answer"] for row in rows])
    assert all(mark.correct and mark.strict.correct for mark in marks)
    items = TASKS["math"].items(data_root)
    boxed = [f"So the answer is \\boxed{{{item.problem.target}}}." for item in items]
    assert all(mark.correct and mark.strict.correct for mark in TASKS["math"].mark(items, boxed))
