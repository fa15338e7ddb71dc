"""What is learnt is the answer and its end mark; what is dropped is counted; one question lies on one side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment import chat, recipe
from alignment.posttrain import mixture, supervision
from alignment.run import Finished, Run
from tests.tiny import byte_tokenizer


def row(*turns: str, name: str = "r") -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"id": name, "messages": messages, "source": "s", "language": "en", "domain": "d"}


MIXTURE = {"stage": "mixture", "data": [{"card": "alpaca-en"}], "start": {"run": "sft"}, "max_length": 64}


@pytest.mark.parametrize("template", list(chat.TEMPLATES))
def test_the_learnt_part_is_the_answers_and_their_end_marks(template: str) -> None:
    tokenizer = byte_tokenizer(template)
    (made,), dropped, _ = mixture.tokenise([row("1 + 1?", "2", "And 2 + 2?", "4")], tokenizer, 200)
    learnt = tokenizer.decode([label for label in made["labels"] if label != -100])
    space = " " if template == "deepseek-llm" else ""
    assert learnt == f"{space}2{tokenizer.eos_token}{space}4{tokenizer.eos_token}"
    assert not dropped


def test_a_row_is_dropped_with_its_reason_and_never_cut() -> None:
    rows = [row("a", "b"), row("a", "b"), row("a", " "), row("a", "b" * 300), row("only a question")]
    kept, dropped, cut = mixture.tokenise(rows, byte_tokenizer(), 100)
    assert len(kept) == 1
    assert dropped == {"exact duplicate": 1, "empty answer": 1, "longer than 100 tokens": 1, "no answer": 1}
    assert (cut.count, cut.learnt, cut.unasked) == (1, cut.tokens, 0)


def test_a_row_that_holds_a_held_out_item_goes(tmp_path: Path) -> None:
    question = "Ann has 12 cows and buys 7 more. How many cows has she now?"
    (tmp_path / "items.jsonl").write_text(json.dumps({"id": "t/1", "question": question, "target": "19"}) + "\n")
    other = question.replace("12", "31")
    rows, overlap = mixture.clean([row(other, "38"), row(f"Once more: {question}", "19"), row("a", "b")], tmp_path)
    assert [one["messages"][0]["content"] for one in rows] == [other, "a"]
    assert overlap["documents_containing_items"] == 1
    assert recipe.validate(MIXTURE | {"against": "benchmarks"}, "test").runs() == {"sft", "benchmarks"}


def test_one_question_lies_on_one_side_of_the_split() -> None:
    rows, _, _ = mixture.tokenise([row(f"q{i % 30}", f"a{i}") for i in range(120)], byte_tokenizer(), 100)
    train, validation = mixture.split(rows, 0.2, seed=1)
    assert len(train) + len(validation) == 120
    assert 24 <= len(validation) <= 27
    asked = [{tuple(r["input_ids"][: r["labels"].count(-100)]) for r in side} for side in (train, validation)]
    assert not asked[0] & asked[1]
    assert mixture.split(rows[::-1], 0.2, seed=1)[1] == validation[::-1]
    assert mixture.split(rows, 0.2, seed=2)[1] != validation


def test_the_stage_writes_rows_validation_and_a_ledger_that_adds_up(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tok" / "tokenizer")
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    mixture.save(tmp_path / "data" / "instructions.jsonl", [row(f"{i % 50} + 1?", str(i % 50 + 1)) for i in range(60)])
    inputs = {name: Finished(tmp_path / name, {"stage": name}) for name in ("tok", "data")}
    words = recipe.validate(
        {"stage": "mixture", "start": {"run": "tok"}, "data": [{"run": "data"}], "max_length": 64, "validation": 0.1}, "t"
    )
    here = Run(tmp_path / "out", inputs, {}, True, False, {})
    numbers = mixture.build(words, here, None)  # type: ignore[arg-type]
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert numbers["rows"] == len(list(mixture.load(tmp_path / "out" / "rows.jsonl"))) == 45
    assert numbers["validation"] == len(list(mixture.load(tmp_path / "out" / "validation.jsonl"))) == 5
    assert ledger["dropped"] == {"exact duplicate": 10}
    assert ledger["tokenizer"] == supervision.signature(tokenizer)
