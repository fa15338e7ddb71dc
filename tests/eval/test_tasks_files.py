"""The files that benchmarks are published in, and what is said of those that are broken."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest

from alignment import data_card
from alignment.errors import DataError
from eval import data
from eval.task import UNLABELLED
from eval.tasks import TASKS, lm_eval, named

WXYZ = {"A": "w", "B": "x", "C": "y", "D": "z"}


def jsonl(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")


def table(rows, head=True):
    file = io.StringIO()
    lines = csv.writer(file)
    if head:
        lines.writerow(rows[0])
    lines.writerows(row.values() for row in rows)
    return file.getvalue()


def parquet(path, rows):
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)


def ceval_row(i, answer):
    return {"id": i, "question": f"问{i}", **WXYZ, "answer": answer}


def ceval_jsonl(root):
    for split, count in (("dev", 5), ("val", 2)):
        jsonl(root / f"ceval/{split}.jsonl", [{"subject": "law", **ceval_row(i, "B")} for i in range(count)])


def ceval_csv(root):
    for split, count in (("dev", 5), ("val", 2)):
        path = root / f"ceval/{split}/law_{split}.csv"
        path.parent.mkdir(parents=True)
        rows = [ceval_row(i, "B") | ({"explanation": "因为"} if split == "dev" else {}) for i in range(count)]
        path.write_text(table(rows), encoding="utf-8-sig")


def ceval_zip(root):
    (root / "ceval").mkdir(parents=True)
    with zipfile.ZipFile(root / "ceval/ceval-exam.zip", "w") as archive:
        for split, count in (("dev", 5), ("val", 2)):
            archive.writestr(f"{split}/law_{split}.csv", table([ceval_row(i, "B") for i in range(count)]))
            archive.writestr(f"__MACOSX/{split}/._law_{split}.csv", "junk")


def ceval_hub(root):
    for split, count in (("dev", 5), ("val", 2)):
        rows = [ceval_row(i, "B") for i in range(count)]
        parquet(root / f"ceval/law/{split}-00000-of-00001.parquet", rows)


@pytest.mark.parametrize("write", [ceval_jsonl, ceval_csv, ceval_zip, ceval_hub])
def test_ceval_reads_the_same_from_every_kind_of_file(tmp_path, write):
    write(tmp_path)
    items = TASKS["ceval"].items(tmp_path)
    assert [item.id for item in items] == ["ceval/law/0", "ceval/law/1"]
    prompt = TASKS["ceval"].prompt(items[1], "completion", 5)
    assert prompt.startswith("以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n\n问0\nA. w\n")
    assert prompt.count("答案：B") == 5
    assert prompt.endswith("问1\nA. w\nB. x\nC. y\nD. z\n答案：")
    assert {item.problem.target for item in items} == {"B"}


def mmlu_hub(root):
    for split in ("dev", "test"):
        row = {"question": "Who?", "subject": "world_religions", "choices": list("wxyz"), "answer": 2}
        parquet(root / f"mmlu/all/{split}-00000-of-00001.parquet", [row])


def mmlu_csv(root):
    for split in ("dev", "test"):
        path = root / f"mmlu/{split}/world_religions_{split}.csv"
        path.parent.mkdir(parents=True)
        path.write_text(table([{"question": "Who?", **WXYZ, "answer": "C"}], head=False), encoding="utf-8")


@pytest.mark.parametrize("write", [mmlu_hub, mmlu_csv])
def test_mmlu_reads_numbered_answers_and_files_without_a_head(tmp_path, write):
    write(tmp_path)
    task = TASKS["mmlu"]
    (item,) = task.items(tmp_path)
    asked = "The following are multiple choice questions (with answers) about world religions."
    shot = "Who?\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert task.prompt(item, "completion", 1) == f"{asked}\n\n{shot} C\n\n{shot}"
    assert task.options(item, "completion") == (" A", " B", " C", " D")
    assert (item.problem.target, item.group) == ("C", "world_religions")


def test_cmmlu_reads_its_own_column_names(tmp_path):
    row = {"": 0, "Question": "哪个？", **WXYZ, "Answer": "D"}
    for split in ("dev", "test"):
        path = tmp_path / f"cmmlu/{split}/agronomy.csv"
        path.parent.mkdir(parents=True)
        path.write_text(table([row]), encoding="utf-8")
    task = TASKS["cmmlu"]
    (item,) = task.items(tmp_path)
    shot = "题目：哪个？\nA. w\nB. x\nC. y\nD. z\n答案是："
    assert task.prompt(item, "completion", 5) == (
        f"以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n{shot}D\n\n{shot}"
    )


def test_subjects_limit_a_set_and_unknown_ones_are_named(tmp_path):
    rows = [{"subject": s, **ceval_row(i, "A")} for s in ("law", "logic") for i in range(5)]
    jsonl(tmp_path / "ceval/dev.jsonl", rows)
    jsonl(tmp_path / "ceval/val.jsonl", rows)
    (task,) = named(["ceval"], subjects=["logic"])
    assert {item.group for item in task.items(tmp_path)} == {"logic"}
    with pytest.raises(DataError, match=r"Did you mean 'logic'\?$"):
        named(["ceval"], subjects=["logik"])
    with pytest.raises(DataError, match=r"no subject of ceval\. It has computer_network, "):
        named(["ceval"], subjects=["zzz"])
    with pytest.raises(DataError, match="have none"):
        named(["gsm8k"], subjects=["logic"])
    (task,) = named(["ceval"], subjects=["physician"])
    with pytest.raises(DataError, match="no question on physician"):
        task.items(tmp_path)


def broken(**changes):
    return [{"subject": "law", **ceval_row(0, "A")}, {"subject": "law", **ceval_row(1, "A")} | changes]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (broken(answer="E"), r"val\.jsonl, row 2: the answer is 'E'"),
        (broken(answer=""), r"val\.jsonl, row 2: the answer is ''"),
        (broken(answer=7), r"val\.jsonl, row 2: the answer is 7"),
        (broken(D=None), r"val\.jsonl, row 2: no question with four options"),
        (broken(subject="lore"), r"val\.jsonl, row 2: subject 'lore'"),
        (broken(id=0), r"law/0 stands there twice"),
    ],
)
def test_a_wrong_question_is_named_with_its_row(tmp_path, rows, complaint):
    jsonl(tmp_path / "ceval/dev.jsonl", broken())
    jsonl(tmp_path / "ceval/val.jsonl", rows)
    with pytest.raises(DataError, match=complaint):
        TASKS["ceval"].items(tmp_path)


def test_a_cut_csv_file_is_named_with_its_row(tmp_path):
    ceval_csv(tmp_path)
    path = tmp_path / "ceval/val/law_val.csv"
    path.write_text(path.read_text(encoding="utf-8")[:-8], encoding="utf-8")
    with pytest.raises(DataError, match=r"law_val\.csv, row 2: unreadable \(\d cells, where 7 are expected"):
        TASKS["ceval"].items(tmp_path)


def test_a_cut_archive_or_parquet_file_is_named(tmp_path):
    ceval_zip(tmp_path / "zip")
    archive = tmp_path / "zip/ceval/ceval-exam.zip"
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"ceval-exam\.zip: cannot be unpacked"):
        TASKS["ceval"].items(tmp_path / "zip")
    ceval_hub(tmp_path / "hub")
    column = tmp_path / "hub/ceval/law/val-00000-of-00001.parquet"
    column.write_bytes(column.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"val-00000-of-00001\.parquet, row 1: unreadable"):
        TASKS["ceval"].items(tmp_path / "hub")


def test_an_empty_file_among_full_ones_is_named(tmp_path):
    ceval_csv(tmp_path)
    (tmp_path / "ceval/val/logic_val.csv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"logic_val\.csv: empty"):
        TASKS["ceval"].items(tmp_path)


def test_a_test_split_without_labels_is_read_as_such(tmp_path):
    jsonl(tmp_path / "ceval/dev.jsonl", [{"subject": "law", **ceval_row(i, "B")} for i in range(5)])
    rows = [{"subject": "law", **{k: v for k, v in ceval_row(i, "").items() if k != "answer"}} for i in range(3)]
    jsonl(tmp_path / "ceval/test.jsonl", rows)
    assert {item.problem.target for item in TASKS["ceval-test"].items(tmp_path)} == {UNLABELLED}
    jsonl(tmp_path / "ceval/test.jsonl", [*rows, {"subject": "law", **ceval_row(9, "C")}])
    with pytest.raises(DataError, match="law/0 has no answer, others have"):
        TASKS["ceval-test"].items(tmp_path)


@pytest.mark.parametrize(("name", "subject"), [("mmlu", "world_religions"), ("cmmlu", "agronomy")])
def test_a_published_test_split_without_labels_is_refused(tmp_path, name, subject):
    row = {"subject": subject, "question": "Q?", **WXYZ}
    jsonl(tmp_path / f"{name}/dev.jsonl", [row | {"answer": "B"}])
    jsonl(tmp_path / f"{name}/test.jsonl", [row])
    with pytest.raises(DataError, match=r"test\.jsonl, row 1: the answer is None"):
        TASKS[name].items(tmp_path)


def test_gsm8k_and_humaneval_read_the_hubs_files(tmp_path):
    train = [{"question": f"{start} More?", "answer": "#### 2"} for start in TASKS["gsm8k"].openings]
    parquet(tmp_path / "gsm8k/main/train-00000-of-00001.parquet", train)
    parquet(tmp_path / "gsm8k/main/test-00000-of-00001.parquet", [{"question": "How many?", "answer": "#### 12"}])
    assert [item.problem.target for item in TASKS["gsm8k"].items(tmp_path)] == ["12"]
    row = {"task_id": "H/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f):\n    assert f() == 1\n"}
    parquet(tmp_path / "humaneval/openai_humaneval/test-00000-of-00001.parquet", [row])
    assert [item.id for item in TASKS["humaneval"].items(tmp_path)] == ["H/0"]


def test_a_problem_that_stands_twice_is_named(tmp_path):
    row = {"task_id": "H/0", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f):\n    assert f() == 1\n"}
    jsonl(tmp_path / "humaneval/HumanEval.jsonl", [row, row])
    with pytest.raises(DataError, match=r"row 2: task_id 'H/0' stands there twice"):
        TASKS["humaneval"].items(tmp_path)


def card(folder, revision):
    text = (data_card.CARDS / "gsm8k.md").read_text(encoding="utf-8")
    folder.mkdir()
    (folder / "gsm8k.md").write_text(text.replace("revision: unpinned", f"revision: {revision}"), encoding="utf-8")


def test_whole_sets_are_as_large_as_their_cards_say():
    for name, split in {"gsm8k": "test", "humaneval": "test", "ceval": "val"}.items():
        rows = data_card.load(name, data_card.CARDS).splits[split].rows
        assert rows is not None
        assert {TASKS[name].published, lm_eval.TASKS[name].published} == {rows}
    assert TASKS["mbpp"].published == 500
    assert named(["ceval"], subjects=["law"])[0].published is None


def test_without_a_data_root_the_hub_is_asked_at_the_pinned_revision(tmp_path, monkeypatch):
    asked = {}

    def fetch(name, **words):
        asked[name] = words
        jsonl(tmp_path / "fetched/test.jsonl", [{"question": "Q?", "answer": "#### 1"}])
        return str(tmp_path / "fetched")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    card(tmp_path / "cards", "a" * 40)
    monkeypatch.setattr(data_card, "CARDS", tmp_path / "cards")
    (item,) = named(["gsm8k"], "lm-eval")[0].items(None)
    assert item.problem.target == "1"
    assert asked["openai/gsm8k"]["revision"] == "a" * 40
    assert "main/test-00000-of-00001.parquet" in asked["openai/gsm8k"]["allow_patterns"]


def test_an_unpinned_revision_is_refused_with_both_ways_out():
    with pytest.raises(DataError, match=r"--data-root: missing.*alignment pin data_cards/gsm8k\.md"):
        data.place(None, "gsm8k")
