import json

import pytest

from alignment.corpus import decontaminate
from alignment.corpus.decontaminate import Item
from alignment.corpus.documents import Document
from alignment.errors import DataError

QUESTION = "A farmer has 12 cows and buys 7 more at the market on Monday. How many cows has he now?"
CHINESE = "小明有十二个苹果，妈妈又给了他七个苹果，现在他一共有多少个苹果呢？"


def document(text, name="d"):
    return Document(name, text, "prose", "en", "here")


def found(text, item):
    return decontaminate.overlap([document("before " * 20), document(text)], [Item("i", item, "seen")])


@pytest.mark.parametrize("question", [QUESTION, CHINESE, "What is 4 + 2?"])
def test_a_whole_item_is_found_whatever_case_and_marks(question):
    result = found(f"Once more:\n\n{question.upper().replace('?', ' ...')} It is 19.", question)
    assert result.items[0].exact
    assert result.contains == {1: ["i"]}
    assert result.summary()["seen"]["exact"] == 1


def test_other_numbers_share_runs_but_are_not_the_item():
    result = found(QUESTION.replace("12", "31"), QUESTION)
    assert not result.contains
    assert not result.items[0].exact
    assert result.items[0].longest == result.items[0].tokens - 4
    assert result.runs == {1: result.items[0].longest - 12}
    assert result.samples[0]["run"].startswith("cows and buys 7 more")


def test_another_sign_is_another_item():
    assert not found("What is 4 * 2?", "What is 4 + 2?").items[0].exact


def test_a_run_across_two_documents_does_not_count():
    words = QUESTION.split()
    halves = [document(" ".join(words[:10])), document(" ".join(words[10:]))]
    result = decontaminate.overlap(halves, [Item("i", QUESTION, "unseen")])
    assert not result.runs
    assert result.summary() == {"unseen": {"items": 1, "exact": 0, "sharing_runs": 0, "longest_run": 0}}


def test_more_documents_than_a_batch_are_all_looked_at():
    many = [document("nothing to see here", str(i)) for i in range(2500)]
    many[2222] = document(QUESTION)
    assert decontaminate.overlap(many, [Item("i", QUESTION, "seen")]).contains == {2222: ["i"]}


def test_benchmarks_are_read_in_their_own_formats_without_their_shots(tmp_path):
    rows = {
        "mini-gsm8k/test.jsonl": {"question": QUESTION, "answer": "19", "unseen": True},
        "mini-gsm8k/train.jsonl": {"question": "a shot", "answer": "1"},
        "mini-humaneval/HumanEval.jsonl": {"prompt": "def f(x):\n", "unseen": False},
        "mini-ceval/val.jsonl": {"question": "哪个？", "A": "一", "B": "二", "C": "三", "D": "四"},
    }
    for name, row in rows.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    items = {item.id: item for item in decontaminate.heldout(tmp_path)}
    assert len(items) == 3
    assert items["mini-gsm8k/test.jsonl:1"].group == "unseen"
    assert items["mini-ceval/val.jsonl:1"].text == "哪个？\nA. 一\nB. 二\nC. 三\nD. 四"
    with pytest.raises(DataError, match="no held-out items"):
        decontaminate.heldout(tmp_path / "none")
