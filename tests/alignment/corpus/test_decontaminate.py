import json
from dataclasses import replace

import pytest

from alignment.corpus import decontaminate, spans
from alignment.corpus.decontaminate import Item, Sought
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
    assert result.report()["samples"][0]["run"].startswith("cows and buys 7 more")


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


@pytest.mark.parametrize(
    ("question", "written"),
    [(QUESTION, QUESTION.replace(" market", " mar ket").replace(" buys", "buys")), (CHINESE, " ".join(CHINESE[:-1]))],
)
def test_characters_find_an_item_that_is_cut_into_other_words(question, written):
    result = found(f"Once more: {written} It is 19.", question)
    assert result.contains == {1: ["i"]}
    assert result.report()["groups_by_characters"]["seen"]["exact"] == 1
    assert not found("Once more: What is 42? It is 19.", "What is 4 2?").searches[1].exact.any()  # too short to tell


def test_a_run_takes_a_document_only_where_the_recipe_says_so():
    shared = document("We read: " + " ".join(QUESTION.split()[:16]) + ". And so on.")
    assert Sought([Item("i", QUESTION, "seen")]).look([shared]) == {}
    assert Sought([Item("i", QUESTION, "seen")], "run").look([shared]) == {0: ["i"]}


def test_shards_add_up_to_the_report_of_the_whole():
    items = [Item("a", QUESTION, "seen"), Item("b", CHINESE, "unseen"), Item("c", "What is 4 + 2?", "seen")]
    texts = [f"x {QUESTION} y", "nothing", f"他说：{CHINESE}", QUESTION[20:], "So what is 4 + 2? Six."]
    whole = [document(text, str(number)) for number, text in enumerate(texts)]
    parts = []
    for shard in (whole[:2], whole[2:3], whole[3:]):
        sought = Sought(items)
        for one in shard:
            sought.look([one])
        parts.append(json.loads(json.dumps(sought.plain())))
    assert decontaminate.report(items, parts) == decontaminate.overlap(whole, items).report()
    assert decontaminate.report(items, parts)["documents_containing_items"] == 3


def test_matches_are_shown_in_place_and_their_labels_give_the_precision(tmp_path):
    before = "Many words stand here before it. "
    sought = decontaminate.overlap([document(before + QUESTION + " And after.")], [Item("i", QUESTION, "seen")])
    rows = decontaminate.sample([sought.plain()])
    assert {(row["kind"], row["whole"]) for row in rows} == {(k, w) for k in ("word", "character") for w in (True, False)}
    for row in rows:
        assert (before + QUESTION)[row["begin"] : row["end"]] == row["match"]
        assert row["whole"] is (row["match"] == QUESTION[:-1])  # a question mark is no word
        assert (row["before"] + row["match"]).endswith(row["match"])
    whole = next(row for row in rows if row["whole"])
    spans.write(tmp_path / "sample.jsonl", [whole | {"label": label} for label in ("yes", "yes", "yes", "no", "")])
    lines = (tmp_path / "sample.jsonl").read_text(encoding="utf-8").splitlines()
    (entry,) = spans.precision([json.loads(line) for line in lines])
    assert (entry["rows"], entry["labelled"], entry["precision"]) == (5, 4, 0.75)
    assert entry["low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson (1927) for 3 of 4
    assert entry["high"] == pytest.approx(0.9544, abs=1e-4)
    with pytest.raises(DataError, match="label 'maybe'"):
        spans.precision([whole | {"label": "maybe"}])


def test_many_items_that_begin_alike_are_told_apart():
    items = [Item(str(n), f"{QUESTION} And {n} more, so how many are there now?", "seen") for n in range(50)]
    found_ = decontaminate.overlap([document(items[33].text), replace(document(items[7].text), id="e")], items)
    assert found_.contains == {0: ["33"], 1: ["7"]}
