from __future__ import annotations

import gzip
import json

import pytest

from alignment.errors import DataError
from alignment.verify.problem import Problem
from eval.data import rows
from eval.task import Item, Mark
from eval.tasks import TASKS, gsm8k, subjects
from eval.tasks.preference import Sampled, summary


def jsonl(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")


@pytest.fixture
def gsm(tmp_path):
    train = [{"question": f"{start} More?", "answer": "1+1=<<1+1=2>>2\nDone.\n#### 1,002"} for start in gsm8k.PAPER_SHOTS]
    jsonl(tmp_path / "gsm8k/train.jsonl", [{"question": "Another?", "answer": "#### 5"}, *reversed(train)])
    jsonl(tmp_path / "gsm8k/test.jsonl", [{"question": "How many?", "answer": "#### 12"}])
    return tmp_path


def test_the_gsm8k_prompt_is_the_papers(gsm):
    task = TASKS["gsm8k"]
    (item,) = task.items(gsm)
    prompt = task.prompt(item, "completion", 8)
    assert prompt.startswith(
        "Q: Max can mow the lawn in 40 minutes. More?\nA: Let's think step by step. 1+1=2 Done. The answer is 1002.\n\nQ: "
    )
    assert prompt.endswith("The answer is 1002.\n\nQ: How many?\nA: Let's think step by step.")
    assert prompt.count("Q: ") == 9
    assert task.prompt(item, "completion", 2).count("Q: ") == 3
    assert task.prompt(item, "chat", 0).startswith("How many?\nPlease reason step by step")


def test_a_train_file_without_the_papers_shots_is_refused(gsm):
    jsonl(gsm / "gsm8k/train.jsonl", [{"question": "Another?", "answer": "#### 5"}])
    with pytest.raises(DataError, match="Max can mow"):
        TASKS["gsm8k"].items(gsm)


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        (" 3 * 4 = 12. The answer is 12.", ("12", True)),
        ("12 - 1 is 11", ("11", False)),
        ("so $12.00", ("12", True)),
        ("It is \\boxed{12}.", ("12", True)),
        ("I cannot say.", (None, False)),
    ],
)
def test_a_number_is_read_out_of_an_answer(gsm, answer, mark):
    (item,) = TASKS["gsm8k"].items(gsm)
    found = TASKS["gsm8k"].mark([item], [answer])[0]
    assert (found.read, found.correct) == mark


def test_strict_and_flexible_reading_stand_side_by_side(gsm):
    (item,) = TASKS["gsm8k"].items(gsm)
    guessed, said = TASKS["gsm8k"].mark([item, item], ["9 + 3 makes 12", "9 + 3 = 13. The answer is 12. 1 more is 13"])
    assert (guessed.correct, guessed.strict) == (True, Mark(None, False))
    assert (said.correct, said.strict) == (True, Mark("12", True))


@pytest.fixture
def exam(tmp_path):
    def row(i, subject, answer):
        return {"id": str(i), "subject": subject, "question": f"问{i}", "answer": answer} | dict(
            zip("ABCD", "甲乙丙丁", strict=True)
        )

    jsonl(tmp_path / "ceval/dev.jsonl", [row(i, s, "B") for s in ("law", "logic") for i in range(5)])
    path = tmp_path / "ceval/val.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(row(9, "law", "C")) + "\n")
    return tmp_path


def test_the_ceval_prompt_is_the_papers(exam):
    task = TASKS["ceval"]
    (item,) = task.items(exam)
    prompt = task.prompt(item, "completion", 5)
    assert prompt.startswith(
        "以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n\n问0\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：B\n\n问1"
    )
    assert prompt.endswith("问9\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：")
    assert task.options(item, "completion") == ("A", "B", "C", "D")
    assert task.options(item, "chat") == ()
    assert item.group == "law"


def test_the_likeliest_or_the_written_letter_is_the_choice(exam):
    task = TASKS["ceval"]
    (item,) = task.items(exam)
    assert task.mark([item], [{"A": -2.0, "B": -3.0, "C": -0.5, "D": -9.0}])[0] == Mark("C", True)
    assert task.mark([item], [{"A": -0.1, "B": -3.0, "C": -0.5, "D": -9.0}])[0] == Mark("A", False)
    assert task.mark([item], ["答案：C"])[0].correct
    assert task.mark([item], ["我不知道"])[0].read is None


@pytest.mark.parametrize(
    ("names", "categories", "count", "sizes"),
    [
        (subjects.CEVAL, subjects.CEVAL_CATEGORIES, 52, [20, 10, 11, 11, 8]),
        (subjects.MMLU, subjects.MMLU_CATEGORIES, 57, [18, 13, 12, 14]),
        (subjects.CMMLU, subjects.CMMLU_CATEGORIES, 67, [17, 13, 22, 15, 15]),
    ],
)
def test_every_subject_has_a_name_and_one_of_four_categories(names, categories, count, sizes):
    assert len(names) == len(set(names.values())) == count
    assert [len(found) for found in categories.values()] == sizes
    four = [subject for found in list(categories.values())[:4] for subject in found]
    assert sorted(four) == sorted(names)
    assert set(categories.get("Hard", ())) <= set(categories["STEM"])


def code_item():
    prompt = 'def plus(x):\n    """Add one."""\n'
    tests = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n"
    return Item("H/0", Problem("H/0", prompt, "code", tests=tests, entry_point="plus"), "all", "en")


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        ("    return x + 1\n", True),
        ('Sure:\n```python\ndef plus(x):\n    """Add one."""\n    return x + 1\n```', True),
        ("    return 2\n", False),
        ("    pass\n", False),
    ],
)
def test_code_is_run_in_completion_and_in_chat_form(answer, correct):
    assert TASKS["humaneval"].mark([code_item()], [answer])[0].correct is correct


def test_an_empty_answer_holds_no_code():
    assert TASKS["humaneval"].mark([code_item()], [""])[0].read is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ('{"question": "a", "answer": "#### 1"}\n{"question": "b"', "row 2: unreadable"),
        ('{"question": "a"}\n', "row 1: no field 'answer'"),
        ("[1]\n", "row 1: not an object"),
    ],
)
def test_bad_data_is_named_with_its_row(tmp_path, text, complaint):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=complaint):
        rows(tmp_path, "x.jsonl", ("question", "answer"))


def test_a_missing_file_names_the_path_and_the_option(tmp_path):
    with pytest.raises(DataError, match=r"gsm8k/test\.jsonl.*--data-root"):
        TASKS["gsm8k"].items(tmp_path)


def test_a_cut_gzip_file_is_named(tmp_path):
    whole = gzip.compress(b'{"question": "a", "answer": "#### 1"}\n' * 2000)
    (tmp_path / "x.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz, row"):
        rows(tmp_path, "x.jsonl", ())


def pair(name, chosen, rejected, lengths=(3, 3)):
    return {
        "id": name,
        "answer": {"chosen": chosen, "rejected": rejected},
        "lengths": dict(zip(("chosen", "rejected"), lengths, strict=True)),
    }


def test_preferences_are_ranked_three_ways_and_ties_count_half():
    before = [pair("a", -5.0, -4.0), pair("b", -5.0, -5.0), pair("c", -9.0, -2.0)]
    after = [pair("a", -4.0, -5.0, (2, 9)), pair("b", -6.0, -6.0), pair("c", -8.0, -3.0, (9, 2))]
    found = summary(after, before)
    assert found["n"] == 3
    assert found["log-probability"]["score"] == pytest.approx(1.5 / 3)
    assert found["implicit reward"]["score"] == pytest.approx(2.5 / 3)
    assert found["implicit reward"]["ties"] == 1
    assert found["length"]["score"] == pytest.approx(1.5 / 3)
    assert "implicit reward" not in summary(before, None)


def test_only_held_out_problems_are_sampled(tmp_path):
    row = {"prompt": "p", "kind": "number", "target": "1", "language": "en"}
    found = [row | {"id": "a", "split": "train"}, row | {"id": "b", "split": "heldout"}]
    jsonl(tmp_path / "problems.jsonl", found)
    assert [item.id for item in Sampled().items(tmp_path)] == ["b"]
