"""How items are asked: worked examples, several answers an item, submissions, and lm-eval's protocol item by item."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from alignment import terminal
from alignment.errors import DataError
from eval import __main__ as command
from eval import harness, journal
from eval.harness import Judged
from eval.tasks import TASKS, lm_eval, multiple_choice, named

STORED = Path(__file__).parent / "lm_eval"


def jsonl(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(12)]
    jsonl(tmp_path / "data/mini-gsm8k/train.jsonl", rows[:8])
    jsonl(tmp_path / "data/mini-gsm8k/test.jsonl", rows)
    jsonl(tmp_path / "data/gsm8k/test.jsonl", rows)
    for split, count in (("dev", 5), ("val", 6), ("test", 6)):
        asked = [
            {"subject": subject, "id": str(i), "question": f"问{i}", **dict(zip("ABCD", "甲乙丙丁", strict=True))}
            | ({} if split == "test" else {"answer": "ABCD"[i % 4]})
            for subject in ("law", "logic", "college_physics", "accountant")
            for i in range(count)
        ]
        jsonl(tmp_path / f"data/ceval/{split}.jsonl", asked)
    problem = {"prompt": "def two():\n", "entry_point": "two", "test": "def check(two):\n    assert two() == 2\n"}
    jsonl(tmp_path / "data/humaneval/HumanEval.jsonl", [{"task_id": f"H/{i}", **problem} for i in range(6)])
    return tmp_path / "data"


def several(scripted, say):
    """An engine that draws: `say(prompt, n)` is the n-th answer."""

    class Drawing(scripted):
        def generate(self, prompts, settings, done):
            self.settings = settings
            for i, prompt in enumerate(prompts):
                self.say = lambda text, n=0: say(text, n)
                drawn = []
                for n in range(settings.samples):
                    self.say = lambda text, n=n: say(text, n)
                    drawn.append(self._completion(prompt, settings))
                done(i, drawn)

    return Drawing(None)


# -- worked examples --------------------------------------------------------------------------------------------------


def test_fewer_worked_examples_are_the_first_ones(scripted, root, tmp_path):
    engine = scripted(lambda _: "The answer is 1.")
    harness.evaluate(Judged(engine, "m", "completion", shots=2), named(["mini-gsm8k"]), root, tmp_path / "out", limit=3)
    assert {prompt.count("Question:") for prompt in engine.asked} == {3}
    full = TASKS["mini-gsm8k"].items(root)[0].shots
    assert engine.asked[0].startswith("\n\n".join(full[:2]) + "\n\n")


def test_more_worked_examples_than_there_are_are_refused(scripted, root, tmp_path):
    with pytest.raises(DataError, match="--shots 6, but there are 5 worked examples"):
        harness.evaluate(Judged(scripted(str), "m", "completion", shots=6), named(["ceval"]), root, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("chat", "paper", 3), "a chat model is asked 0-shot"),
        (("chat", "lm-eval", None), "lm-eval's protocol is a completion"),
    ],
)
def test_options_that_would_be_left_unused_are_refused(words, complaint):
    with pytest.raises(DataError, match=complaint):
        command._fits(*words)
    command._fits("completion", words[1], words[2])


def test_in_lm_evals_protocol_every_model_completes():
    assert command.form("some/model", True) == "chat"
    assert command.form("some/model", True, "lm-eval") == "completion"


def test_the_protocol_has_its_own_tasks(capsys):
    with pytest.raises(DataError, match="Protocol lm-eval has gsm8k, humaneval, ceval"):
        named(["mmlu"], "lm-eval")
    words = ["nowhere", "--tasks", "ceval,gsm8k", "--protocol", "lm_eval"]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 2
    assert "lm_eval" in capsys.readouterr().err


# -- several answers an item ------------------------------------------------------------------------------------------


def sums(prompt, n):
    """Right two times of three; item 3 never, item 4 unread."""
    i = int(prompt.rsplit("What is ", 1)[1].split(" ")[0])
    if i == 4:
        return "who knows"
    return f"The answer is {i + (1 if n != 1 and i != 3 else 0)}."


def test_several_answers_give_pass_at_k_and_a_majority(scripted, root, tmp_path):
    engine = several(scripted, sums)
    judged = Judged(engine, "m", "completion", samples=3)
    found = harness.evaluate(judged, named(["mini-gsm8k"]), root, tmp_path / "out")["tasks"]["mini-gsm8k"]
    assert (engine.settings.samples, engine.settings.temperature, engine.settings.top_p) == (3, *harness.SAMPLED)
    assert found["n"] == 12
    assert found["samples"] == 3
    assert found["score"] == pytest.approx(10 / 12 * 2 / 3)
    assert found["pass_at_k"]["1"]["score"] == pytest.approx(found["score"])
    assert found["pass_at_k"]["2"]["score"] == found["pass_at_k"]["3"]["score"] == pytest.approx(10 / 12)
    assert found["majority"]["score"] == pytest.approx(10 / 12)
    assert found["unread"] == 3
    assert found["strict"]["unread"] == 3
    assert found["interval"][0] < found["score"] < found["interval"][1]
    assert found["interval_kind"] == "bootstrap of items"
    rows = journal.read_rows(tmp_path / "out/samples/mini-gsm8k.jsonl")
    assert [len(row["samples"]) for row in rows] == [3] * 12
    assert rows[0]["correct"] == pytest.approx(2 / 3)
    assert rows[0]["majority"] == {"read": "1", "correct": True}
    assert rows[4]["majority"] == {"read": None, "correct": False}
    assert list(command.beside(found))[1] == "mini-gsm8k: pass@1 55.6%, pass@2 83.3%, pass@3 83.3%, maj@3 83.3%"


def test_constant_answers_score_the_same_however_many_there_are(scripted, root, tmp_path):
    scores = set()
    for samples in (1, 2, 5):
        judged = Judged(several(scripted, lambda p, _: sums(p, 0)), "m", "completion", samples=samples)
        report = harness.evaluate(judged, named(["mini-gsm8k"]), root, tmp_path / f"out{samples}")
        scores.add(report["tasks"]["mini-gsm8k"]["score"])
    assert scores == {10 / 12}


def test_programs_have_pass_at_k_and_no_majority(scripted, root, tmp_path):
    engine = several(scripted, lambda _, n: "    return 2\n" if n else "    return 3\n")
    judged = Judged(engine, "m", "completion", samples=4)
    found = harness.evaluate(judged, named(["humaneval"]), root, tmp_path / "out")["tasks"]["humaneval"]
    assert found["pass_at_k"]["1"]["score"] == 0.75
    assert found["pass_at_k"]["2"]["score"] == 1.0
    assert "majority" not in found


def test_several_answers_to_weighed_options_are_refused(scripted, root, tmp_path):
    judged = Judged(scripted(str), "m", "completion", samples=2)
    with pytest.raises(DataError, match="its options are weighed"):
        harness.evaluate(judged, named(["ceval"]), root, tmp_path / "out")


# -- C-Eval's averages and its test split -----------------------------------------------------------------------------


def test_ceval_is_averaged_over_subjects_items_categories_and_hard(scripted, root, tmp_path):
    def choose(prompt):  # right on every law question, else A: 2 of 6
        number = int(prompt.rsplit("问", 1)[1][0])
        return "ABCD"[number % 4] if "法学" in prompt else "A"

    judged = Judged(scripted(choose), "m", "completion")
    found = harness.evaluate(judged, named(["ceval"]), root, tmp_path / "out")["tasks"]["ceval"]
    assert found["score"] == found["macro"]["score"] == pytest.approx((1 + 3 * 2 / 6) / 4)
    assert found["micro"]["score"] == pytest.approx(12 / 24)
    assert found["subjects"] == {"scored": 4, "of": 52}
    averages = {name: round(part["score"], 3) for name, part in found["categories"].items()}
    assert averages == {"STEM": 0.333, "Humanities": 0.667, "Other": 0.333, "Hard": 0.333}
    assert found["protocol"] == "DeepSeek LLM, appendix A.6"
    warning, line = command.beside(found)
    assert warning == "ceval: warning: its files hold 24 items, the published set 1346"
    assert found["rows"] == {"found": 24, "card": 1346}
    assert not any("warning" in said for said in command.beside(found | {"rows": {"found": 1346, "card": 1346}}))
    assert line.startswith("ceval, 4 of 52 subjects: mean of subjects 50.0%, mean of items 50.0%, STEM 33.3%, Humanities")

    few = harness.evaluate(judged, named(["ceval"]), root, tmp_path / "out", limit=12)["tasks"]["ceval"]
    *_, line = command.beside(few)
    assert few["rows"]["found"] == 24, "a limit is no loss"
    score = f"{few['micro']['score']:.1%}"
    subjects = "mean of subjects, STEM, Humanities, Other, Hard"
    assert line == f"ceval, 4 of 52 subjects: mean of items {score}, too few items a subject for: {subjects}"


def test_a_split_without_labels_becomes_a_submission_and_no_score(scripted, root, tmp_path):
    judged = Judged(scripted(lambda _: "C"), "m", "completion")
    report = harness.evaluate(judged, named(["ceval-test"]), root, tmp_path / "out")
    assert report["tasks"] == {}
    sent = report["submissions"]["ceval-test"]
    assert (sent["file"], sent["n"], sent["unread"]) == ("submission-ceval-test.json", 24, 0)
    letters = json.loads((tmp_path / "out" / sent["file"]).read_text(encoding="utf-8"))
    assert letters["law"] == {str(i): "C" for i in range(6)}
    assert list(letters) == ["law", "logic", "college_physics", "accountant"]
    assert {row["correct"] for row in journal.read_rows(tmp_path / "out/samples/ceval-test.jsonl")} == {None}


def test_an_unread_answer_is_empty_in_the_submission(root):
    task = TASKS["ceval-test"]
    items = task.items(root)[:2]
    assert multiple_choice.submission(items, task.mark(items, ["答案：B", "不知道"])) == {"law": {"0": "B", "1": ""}}


# -- lm-eval's protocol -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "flexible", "strict"),
    [
        (" 1 + 11 = 12. The answer is 12.", ("12.", True), ("12", True)),
        (" The answer is 12", ("12", True), ("1", False)),  # its pattern wants one more character
        (" The answer is $12.", ("$12.", True), (None, False)),
        (" It makes 12.", ("12.", True), (None, False)),
        (" The answer is 12. Then 1,200 more.", ("1,200", False), ("12.", True)),
        (" No idea", (None, False), (None, False)),
        (" 5 - 2...", ("2...", False), (None, False)),
    ],
)
def test_numbers_are_read_by_lm_evals_patterns(root, answer, flexible, strict):
    item = lm_eval.TASKS["gsm8k"].items(root)[11]
    (mark,) = lm_eval.TASKS["gsm8k"].mark([item], [answer])
    assert (mark.read, mark.correct) == flexible
    assert (mark.strict.read, mark.strict.correct) == strict


def test_lm_evals_prompts(root):
    gsm8k, ceval, code = (lm_eval.TASKS[name] for name in ("gsm8k", "ceval", "humaneval"))
    prompt = gsm8k.prompt(gsm8k.items(root)[0], "completion", 8)
    assert prompt.startswith("Q: There are 15 trees in the grove.")
    assert prompt.count("\n\nQ: ") == 8
    assert prompt.endswith("8. The answer is 8.\n\nQ: What is 0 + 1?\nA:")
    item = ceval.items(root)[1]
    prompt = ceval.prompt(item, "completion", 1)
    assert prompt == (
        "以下是中国关于法学的单项选择题，请选出其中的正确答案。\n\n"
        "问0\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案： A\n\n问1\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案："
    )
    assert ceval.options(item, "completion") == (" A", " B", " C", " D")
    assert code.prompt(code.items(root)[0], "completion", 0) == "def two():\n"


def test_lm_evals_programs_are_prompt_and_answer_as_they_are(root):
    task = lm_eval.TASKS["humaneval"]
    (item, *_) = task.items(root)
    marks = task.mark([item] * 3, ["    return 2\n", "```python\ndef two():\n    return 2\n```", "    return 3"])
    assert [mark.correct for mark in marks] == [True, False, False]
    assert marks[0].read == "def two():\n    return 2\n"


def test_a_prompt_too_long_loses_its_beginning_as_in_lm_eval(scripted, root, tmp_path):
    engine = scripted(lambda _: "12", context=1000)
    judged = Judged(engine, "m", "completion")
    found = harness.evaluate(judged, named(["gsm8k"], "lm-eval"), root, tmp_path / "out", limit=1)["tasks"]["gsm8k"]
    (asked,) = engine.asked
    assert len(asked) == 1000 - 256
    assert "".join(asked).endswith("Q: What is 0 + 1?\nA:")
    assert found["shots"] == {"least": 8, "most": 8}


def stored(name):
    return [json.loads(line) for line in (STORED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("gsm8k", 200), ("humaneval", 164), ("ceval", 260)])
def test_prompts_are_those_of_lm_eval(data_root, name, least):
    task = lm_eval.TASKS[name]
    ours = {item.id: task.prompt(item, "completion", len(item.shots)) for item in task.items(data_root)}
    theirs = stored(name)
    assert len(theirs) >= least
    for row in theirs:
        assert hashlib.sha256(ours[row["id"]].encode()).hexdigest()[:16] == row["prompt"], row["id"]


@pytest.mark.data
@pytest.mark.parametrize("name", ["gsm8k", "ceval"])
def test_lm_evals_answers_are_marked_as_lm_eval_marks_them(data_root, name):
    task = lm_eval.TASKS[name]
    items = {item.id: item for item in task.items(data_root)}
    answered = [row for row in stored(name) if "answer" in row]
    assert len(answered) >= 4
    marks = task.mark([items[row["id"]] for row in answered], [row["answer"] for row in answered])
    for row, mark in zip(answered, marks, strict=True):
        if name == "ceval":
            assert (mark.read, mark.correct) == (row["read"], row["correct"])
            continue
        for rule, ours in (("flexible-extract", mark), ("strict-match", mark.strict)):
            assert (ours.read or "[invalid]", ours.correct) == (row["read"][rule], row["correct"][rule])
