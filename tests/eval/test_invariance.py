from __future__ import annotations

import json

import pytest

from eval import harness, invariance
from eval.tasks import named


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    asked = [{"question": f"What is {i}?", "answer": f"#### {i}", "language": "en"} for i in range(200)]
    jsonl(tmp_path / "data/mini-gsm8k/train.jsonl", asked[:8])
    jsonl(tmp_path / "data/mini-gsm8k/test.jsonl", asked)
    choice = {"question": "pick", "answer": "B", "language": "en", "subject": "s"} | dict(zip("ABCD", "wxyz", strict=True))
    choices = [choice | {"id": str(i), "question": f"pick {i}"} for i in range(12)]
    jsonl(tmp_path / "data/mini-ceval/dev.jsonl", choices[:5])
    jsonl(tmp_path / "data/mini-ceval/val.jsonl", choices)
    return tmp_path / "data"


def last(prompt):
    return int(prompt.rsplit("What is ", 1)[1].split("?")[0])


def verified(engine, before, after, tasks, root, out):
    """Evaluate with one voice, and ask again with another."""
    judged, wanted = harness.Judged(engine, "m", "completion"), named(tasks)
    engine.say = before
    report = harness.evaluate(judged, wanted, root, out)
    engine.say, engine.asked = after, []
    invariance.verify(judged, wanted, root, out, report)
    saved = json.loads((out / "report.json").read_text())
    assert saved == report
    return saved["tasks"][tasks[0]]["invariance"]


def test_five_percent_are_asked_again_one_by_one(scripted, root, tmp_path):
    engine = scripted(None)
    calls = []
    found = verified(engine, lambda p: f"It is {last(p)}.", lambda p: f"It is {last(p)}.", ["mini-gsm8k"], root, tmp_path)
    assert found == {"asked_again": 10, "texts_differ": 0, "flips": []}
    assert [last(prompt) for prompt in engine.asked] == list(range(0, 200, 20))
    generate = engine.generate
    engine.generate = lambda prompts, *rest: calls.append(len(prompts)) or generate(prompts, *rest)
    verified(engine, lambda _: "1", lambda _: "1", ["mini-gsm8k"], root, tmp_path)
    assert calls == [1] * 10, "all answers are saved, so only the sample is asked, each alone"


def test_flips_are_named_and_other_words_are_counted(scripted, root, tmp_path):
    def after(prompt):
        return (
            "It is 7."
            if last(prompt) == 40
            else f"Surely {last(prompt)}."
            if last(prompt) == 60
            else f"It is {last(prompt)}."
        )

    found = verified(scripted(None), lambda p: f"It is {last(p)}.", after, ["mini-gsm8k"], root, tmp_path)
    assert found["texts_differ"] == 2
    assert found["flips"] == [{"id": "mini-gsm8k/40", "read": ["40"], "alone": ["7"]}]
    assert "10 items asked again alone, 1 flipped (mini-gsm8k/40), 2 differ" in invariance.line("mini-gsm8k", found)


def test_at_least_eight_choices_are_scored_again(scripted, root, tmp_path):
    found = verified(scripted(None), lambda _: "B", lambda p: "BC"["pick 6" in p[-60:]], ["mini-ceval"], root, tmp_path)
    assert found["asked_again"] == 8
    assert found["largest_gap"] == 5.0
    assert [flip["id"] for flip in found["flips"]] == ["mini-ceval/s/6"]
    assert "5.0e+00" in invariance.line("mini-ceval", found)
