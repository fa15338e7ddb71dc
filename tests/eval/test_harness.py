from __future__ import annotations

import json
import os

import pytest

from alignment.errors import DataError, RunError
from eval import harness, journal, statistics, summary
from eval.harness import Judged
from eval.tasks import TASKS, named


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    def sum_row(a, b, **extra):
        answer = f"{a} + {b} = {a + b}.\n#### {a + b}"
        return {"question": f"What is {a} + {b}?", "answer": answer, "language": "en", **extra}

    def choice_row(i, **extra):
        row = {"subject": "s", "id": str(i), "question": f"pick {i}", "answer": "ABCD"[i % 4], "language": "en"}
        return row | dict(zip("ABCD", "wxyz", strict=True)) | extra

    jsonl(tmp_path / "data/mini-gsm8k/train.jsonl", [sum_row(i, 90) for i in range(8)])
    jsonl(tmp_path / "data/mini-gsm8k/test.jsonl", [sum_row(i, 1, unseen=i % 4 == 0, family="f") for i in range(100)])
    jsonl(tmp_path / "data/mini-ceval/dev.jsonl", [choice_row(i) for i in range(5)])
    jsonl(tmp_path / "data/mini-ceval/val.jsonl", [choice_row(i + 10, unseen=False) for i in range(8)])
    return tmp_path / "data"


def add(prompt):
    question = prompt.rsplit("What is ", 1)[1].split("?")[0]
    a, b = map(int, question.split(" + "))
    if a % 10 == 3:
        return "I do not know."
    return f"The answer is {a + b + (a % 10 == 7)}."


def judge(engine, identity="model"):
    return Judged(engine, identity, "completion")


def test_scores_count_right_wrong_and_unread_apart(scripted, root, tmp_path):
    engine = scripted(add)
    report = harness.evaluate(judge(engine), named(["mini-gsm8k"]), root, tmp_path / "out")
    found = report["tasks"]["mini-gsm8k"]
    assert (found["n"], found["score"], found["unread"]) == (100, 0.8, 10)
    assert found["interval"][0] < 0.8 < found["interval"][1]
    assert found["groups"]["unseen template"]["n"] == 25
    assert found["shots"] == {"least": 4, "most": 4}
    rows = journal.read_rows(tmp_path / "out/samples/mini-gsm8k.jsonl")
    assert {"id", "prompt", "answer", "read", "target", "correct"} <= rows[0].keys()
    assert [row["read"] for row in rows[:4]] == ["1", "2", "3", None]
    assert not list((tmp_path / "out/samples").glob("*.part"))


def test_an_interrupted_evaluation_continues_with_the_same_report(scripted, root, tmp_path):
    whole = harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path / "whole")
    broken = scripted(add, fail_after=70)
    with pytest.raises(RuntimeError, match="sampler broke"):
        harness.evaluate(judge(broken), named(["mini-gsm8k"]), root, tmp_path / "out")
    assert not (tmp_path / "out/report.json").exists()
    partial = tmp_path / "out/answers/mini-gsm8k.jsonl"
    partial.write_text(partial.read_text() + '{"key": "cut off in the mid')
    again = scripted(add)
    report = harness.evaluate(judge(again), named(["mini-gsm8k"]), root, tmp_path / "out")
    assert report == whole
    assert len(again.asked) == 100 - 70


def test_a_cut_inside_a_character_is_no_obstacle(scripted, root, tmp_path):
    whole = harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path)
    path = tmp_path / "answers/mini-gsm8k.jsonl"
    path.write_bytes(path.read_bytes() + '{"key": "答'.encode()[:-1])
    assert harness.evaluate(judge(scripted(add, fail_after=0)), named(["mini-gsm8k"]), root, tmp_path) == whole
    assert len(journal.read_rows(path)) == 100
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("damage", [b'{"key": 1', b'{"key": "\xe7"}'])
def test_a_damaged_row_is_named(tmp_path, damage):
    (tmp_path / "rows.jsonl").write_bytes(b'{"key": 0}\n' + damage + b'\n{"key": 2}\n')
    with pytest.raises(RunError, match=r"rows\.jsonl, row 2: unreadable"):
        journal.read_rows(tmp_path / "rows.jsonl")


def test_whole_answers_are_not_written_again(scripted, root, tmp_path):
    harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path)
    path = tmp_path / "answers/mini-gsm8k.jsonl"
    os.utime(path, (1, 1))
    harness.evaluate(judge(scripted(add, fail_after=0)), named(["mini-gsm8k"]), root, tmp_path)
    assert path.stat().st_mtime == 1


def test_options_that_a_later_task_refuses_are_said_before_anything_is_asked(scripted, root, tmp_path):
    engine = scripted(add)
    several = Judged(engine, "model", "completion", samples=2)
    with pytest.raises(DataError, match="mini-ceval: --samples 2"):
        harness.evaluate(several, named(["mini-gsm8k", "mini-ceval"]), root, tmp_path)
    assert engine.asked == []
    assert not (tmp_path / "answers").exists()


def test_a_task_without_items_is_named(scripted):
    with pytest.raises(DataError, match="mini-gsm8k: its files hold no item"):
        harness.ask(judge(scripted(add)), TASKS["mini-gsm8k"], [], 0)


def test_a_damaged_report_is_named_with_a_way_out(tmp_path):
    (tmp_path / "report.json").write_text('{"format": "plumb')
    with pytest.raises(RunError, match=r"report\.json: unreadable.*Delete it and evaluate again"):
        harness.read_report(tmp_path)


def test_a_score_does_not_outlive_its_labels(scripted, tmp_path):
    row = {"subject": "law", "question": "Q?", "answer": "A"} | dict(zip("ABCD", "wxyz", strict=True))
    jsonl(tmp_path / "data/ceval/dev.jsonl", [row])
    for answer, scored, submitted in (("A", ["ceval-test"], []), ("", [], ["ceval-test"]), ("A", ["ceval-test"], [])):
        jsonl(tmp_path / "data/ceval/test.jsonl", [row | {"answer": answer}])
        engine = scripted(lambda _: "A")
        report = harness.evaluate(judge(engine), named(["ceval-test"]), tmp_path / "data", tmp_path / "out")
        assert (list(report["tasks"]), list(report["submissions"])) == (scored, submitted)


def test_finished_answers_are_marked_again_without_asking(scripted, root, tmp_path):
    first = harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path)
    silent = scripted(add, fail_after=0)
    assert harness.evaluate(judge(silent), named(["mini-gsm8k"]), root, tmp_path) == first


def test_a_small_limit_forgets_no_answer(scripted, root, tmp_path):
    first = harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path)
    silent = scripted(add, fail_after=0)
    few = harness.evaluate(judge(silent), named(["mini-gsm8k"]), root, tmp_path, limit=5)
    assert few["tasks"]["mini-gsm8k"]["n"] == len(journal.read_rows(tmp_path / "samples/mini-gsm8k.jsonl")) == 5
    assert harness.evaluate(judge(silent), named(["mini-gsm8k"]), root, tmp_path) == first


def test_a_stop_text_is_not_the_models_own_end(scripted, root, tmp_path):
    engine = scripted(add)
    engine.ends = ()
    found = harness.evaluate(judge(engine), named(["mini-gsm8k"]), root, tmp_path)["tasks"]["mini-gsm8k"]
    assert (found["stop_rate"], found["stop_string_rate"]) == (0.0, 1.0)
    assert found["repetition"] is None, "nothing can be said of answers this short"
    assert found["engine"]["kind"] == "scripted"
    assert found["strict"]["score"] == 0.8


def test_a_mean_of_groups_too_small_is_a_mean_of_items():
    found = summary.averaged({"law": [1.0] * 3, "logic": [0.0, 1.0] * 4}, macro=True)
    assert found["score"] == 7 / 11
    assert found["interval_kind"] == "Wilson"
    assert summary.averaged({"law": [1.0] * 5}, macro=True)["average"] == "mean of groups"


def test_the_interval_is_called_what_it_is():
    few, more = [0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 0.5, 0.5]
    for values, kind in ((few, "Wilson"), (more, "bootstrap of items"), ([0.0, 1.0] * 4, "Wilson")):
        found = summary.averaged({"all": values}, macro=False)
        wilson = statistics.wilson(sum(values), len(values))
        assert found["interval_kind"] == kind
        assert (found["interval"] == [wilson.low, wilson.high]) is (kind == "Wilson")


def test_results_of_two_models_do_not_mix(scripted, root, tmp_path):
    harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path, limit=3)
    with pytest.raises(RunError, match="another model"):
        harness.evaluate(judge(scripted(add), "other"), named(["mini-gsm8k"]), root, tmp_path, limit=3)


def test_tasks_asked_one_after_the_other_share_a_report(scripted, root, tmp_path):
    harness.evaluate(judge(scripted(add)), named(["mini-gsm8k"]), root, tmp_path, limit=3)
    choose = scripted(lambda _: "B")
    report = harness.evaluate(judge(choose), named(["mini-ceval"]), root, tmp_path)
    assert list(report["tasks"]) == ["mini-gsm8k", "mini-ceval"]
    assert report["tasks"]["mini-ceval"]["score"] == 0.25
    assert report["tasks"]["mini-ceval"]["stop_rate"] is None
    answer = journal.read_rows(tmp_path / "samples/mini-ceval.jsonl")[0]["answer"]
    assert answer == {"A": -5.0, "B": 0.0, "C": -5.0, "D": -5.0}


def test_shots_that_do_not_fit_are_left_out_and_said(scripted, root, tmp_path):
    engine = scripted(add, context=260)
    report = harness.evaluate(judge(engine), named(["mini-gsm8k"]), root, tmp_path)
    assert 0 < report["tasks"]["mini-gsm8k"]["shots"]["most"] < 4
    with pytest.raises(DataError, match="does not fit"):
        harness.evaluate(judge(scripted(add, context=80)), named(["mini-gsm8k"]), root, tmp_path / "small")


def test_a_limit_takes_items_from_all_over_the_set():
    items = TASKS["mini-gsm8k"]  # any object will do: only the order counts
    assert harness.spread([items] * 3, 5) == [items] * 3
    assert harness.spread(list(range(100)), 4) == [0, 25, 50, 75]


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(DataError, match="Did you mean 'mini-gsm8k'"):
        named(["mini-gms8k"])
    with pytest.raises(DataError, match="names no task"):
        named([])
