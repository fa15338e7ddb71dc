from __future__ import annotations

import html.parser
import json

import pytest

from alignment import terminal
from alignment.errors import DataError, RunError
from eval import __main__ as command
from eval import compare, harness, journal, statistics, summary
from eval.report import comparison

HOSTILE = "<script>alert(1)</script>"


def row(i, correct, group="all", **changes):
    read = "7" if correct else "8"
    made = {"id": f"t/{i}", "prompt": f"What is {i}? {HOSTILE}", "answer": f"It is {read}. {HOSTILE}", "read": read}
    return made | {"correct": correct, "target": "7", "why": "", "group": group} | changes


@pytest.fixture
def evaluated(tmp_path):
    def write(name, tasks, model="m", **facts):
        report = {"format": harness.FORMAT, "model": model, "tasks": {}}
        for task, rows in tasks.items():
            groups: dict[str, list[float]] = {}
            for one in rows:
                groups.setdefault(one["group"], []).append(float(one["correct"]))
            about = {"name": task, "n": len(rows), "prompts": "p", "form": "chat", "engine": {"dtype": "float32"}, **facts}
            report["tasks"][task] = summary.averaged(groups, macro=len(groups) > 1) | about
            journal.save(tmp_path / name / "samples" / f"{task}.jsonl", rows)
        (tmp_path / name / "report.json").write_text(json.dumps(report))
        return compare.read(tmp_path / name)

    return write


def test_two_models_are_compared_on_the_same_items(evaluated):
    a = evaluated("a", {"t": [row(i, i % 2 == 0) for i in range(40)]})
    b = evaluated("b", {"t": [row(i, i % 2 == 0 or i < 20) for i in range(39, -1, -1)]}, model="other")
    found = compare.compare(a, b)
    (result,) = found["tasks"]["t"]["results"]
    paired = statistics.paired([float(i % 2 == 0) for i in range(40)], [float(i % 2 == 0 or i < 20) for i in range(40)])
    assert (result["gained"], result["lost"], result["p_value"]) == (10, 0, paired.p_value)
    assert result["difference"] == vars(paired.difference)
    assert result["a"]["score"] == 0.5
    assert {flip["id"] for flip in found["tasks"]["t"]["flips"]} == {f"t/{i}" for i in range(1, 20, 2)}
    assert comparison.prompts(found["tasks"]["t"]) == ""
    assert not found["same_model"]


def test_a_mean_over_subjects_is_compared_over_subjects_and_over_items(evaluated):
    def rows(better):
        return [row(f"law{i}", i < 5 + 5 * better, "law") for i in range(10)] + [
            row(f"logic{i}", i < 10, "logic") for i in range(20)
        ]

    found = compare.compare(evaluated("a", {"t": rows(False)}), evaluated("b", {"t": rows(True)}))
    subjects, items = found["tasks"]["t"]["results"]
    assert (subjects["average"], items["average"]) == ("mean of groups", "mean of items")
    assert subjects["difference"]["score"] == pytest.approx(0.25)
    assert items["difference"]["score"] == pytest.approx(5 / 30)
    assert subjects["gained"] == items["gained"] == 5


def test_scores_of_two_kinds_are_compared_over_items_and_that_is_said(evaluated):
    rows = [row(f"{subject}{i}", i < 6, subject) for subject in ("law", "logic") for i in range(10)]
    macro = evaluated("a", {"t": rows})
    micro = evaluated("b", {"t": rows}, **summary.averaged({"all": [float(one["correct"]) for one in rows]}, macro=False))
    for one, other in ((macro, micro), (micro, macro)):
        found = compare.compare(one, other)
        assert [result["average"] for result in found["tasks"]["t"]["results"]] == ["mean of items"]
        said = [one.report["tasks"]["t"]["average"], other.report["tasks"]["t"]["average"]]
        assert ["average", *said] in found["tasks"]["t"]["asked"]
        assert f"  the scores are not of one kind, so items are compared: {' and '.join(said)}" in comparison.lines(found)
    assert len(compare.compare(macro, macro)["tasks"]["t"]["results"]) == 2


def test_shares_of_several_answers_are_compared_too(evaluated):
    rows = [row(i, (i % 5) / 4) for i in range(50)]
    found = compare.compare(evaluated("a", {"t": rows}), evaluated("b", {"t": [r | {"correct": 1.0} for r in rows]}))
    (result,) = found["tasks"]["t"]["results"]
    assert result["difference"]["score"] == pytest.approx(0.5)
    assert 0 < result["difference"]["low"] < 0.5 < result["difference"]["high"] < 1


def test_what_is_not_the_same_is_said(evaluated):
    rows = [row(i, True) for i in range(9)]
    a = evaluated("a", {"t": rows, "only": rows})
    other = [row(3, True, prompt="And 3?"), *(one for one in rows if one["id"] not in ("t/3", "t/8"))]
    b = evaluated("b", {"t": other}, prompts="q", form="completion", engine={"dtype": "bfloat16"})
    found = compare.compare(a, b)
    task = found["tasks"]["t"]
    assert comparison.prompts(task) == (
        "1 items only in the first and 0 only in the second are left out; the prompts of 1 items differ (first: t/3)"
    )
    assert ["form", "chat", "completion"] in task["asked"]
    assert ["engine: dtype", "float32", "bfloat16"] in task["asked"]
    assert found["left_out"] == ["only"]
    tokens = evaluated("c", {"t": rows}, prompts="r")
    assert comparison.prompts(compare.compare(a, tokens)["tasks"]["t"]) == "the same texts, in other tokens"


def test_other_targets_items_or_tasks_are_refused(evaluated, tmp_path):
    a = evaluated("a", {"t": [row(1, True)]})
    with pytest.raises(DataError, match=r"item t/1: its target is '7'.*and '9'"):
        compare.compare(a, evaluated("b", {"t": [row(1, True, target="9")]}))
    with pytest.raises(DataError, match="no item in common"):
        compare.compare(a, evaluated("c", {"t": [row(2, True)]}))
    with pytest.raises(DataError, match="no task in common"):
        compare.compare(a, evaluated("d", {"u": [row(1, True)]}))
    with pytest.raises(RunError, match=r"no report\.json"):
        compare.read(tmp_path / "nowhere")
    journal.save(tmp_path / "a/samples/t.jsonl", [row(1, True), row(2, True)])
    with pytest.raises(RunError, match=r"holds 2 items, report\.json 1: an evaluation was interrupted"):
        compare.compare(a, a)
    (tmp_path / "a/samples/t.jsonl").unlink()
    with pytest.raises(RunError, match="missing, though"):
        compare.compare(a, a)


def test_the_command_writes_markdown_and_one_page_that_runs_nothing(evaluated, tmp_path, capsys):
    evaluated("a", {"t": [row(i, i < 20) for i in range(30)]})
    evaluated("b", {"t": [row(i, i > 4) for i in range(30)]})
    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 0
    assert "66.7 -> 83.3, difference +16.7" in capsys.readouterr().out
    text = (tmp_path / "out/comparison.md").read_text()
    assert "| t/25 | all | 7 | 8 | 7 | b |" in text
    assert "| t/2 | all | 7 | 7 | 8 | a |" in text
    page = (tmp_path / "out/comparison.html").read_text()
    tags: list[tuple[str, dict]] = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, pairs: tags.append((tag, dict(pairs)))
    parser.feed(page)
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe"}
    assert all(value.startswith("#") for _, pairs in tags for key, value in pairs.items() if key in ("href", "src"))
    assert sum(tag == "article" for tag, _ in tags) == 2 * 15
    assert "&lt;script&gt;" in page
    assert json.loads((tmp_path / "out/comparison.json").read_text())["tasks"]["t"]["n"] == 30


def test_a_model_compared_with_itself_shows_nothing(evaluated):
    a = evaluated("a", {"t": [row(i, i < 20) for i in range(30)]})
    found = compare.compare(a, a)
    (result,) = found["tasks"]["t"]["results"]
    assert found["same_model"]
    assert result["difference"]["low"] < 0 == result["difference"]["score"] < result["difference"]["high"]
    assert (result["p_value"], result["visible"]) == (1.0, None)
    assert "No item flipped." in comparison.markdown(found)
    (line,) = comparison.lines(found)
    assert line.endswith("p 1.000, too few flips to tell the smallest visible difference")
