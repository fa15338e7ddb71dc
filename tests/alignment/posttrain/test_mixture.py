"""What is learnt is the answer and its end mark; what is dropped is counted; one question lies on one side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment import chat, recipe
from alignment.errors import DataError, RecipeError
from alignment.posttrain import mixture, spool, supervision
from alignment.run import Finished, Run
from tests.tiny import byte_tokenizer


def row(*turns: str, name: str = "r") -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"id": name, "messages": messages, "source": "s", "language": "en", "domain": "d"}


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


def test_rows_split_between_batches_are_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(f"q{i % 7}", f"a{i % 11}", name=str(i)) for i in range(40)]
    whole = mixture.tokenise(rows, byte_tokenizer(), 100)
    monkeypatch.setattr(mixture, "BATCH", 3)
    assert mixture.tokenise(rows, byte_tokenizer(), 100)[:2] == whole[:2]


def test_one_question_lies_on_one_side_of_the_split() -> None:
    rows = mixture.tokenise([row(f"q{i % 30}", f"a{i}") for i in range(120)], byte_tokenizer(), 100).rows

    def held(rows: list[dict[str, Any]], seed: int) -> set[int]:
        sides = spool.held_out(b"".join(spool.question(one, seed) for one in rows), 0.2)
        return {tuple(one["input_ids"]) for one, side in zip(rows, sides.tolist(), strict=True) if side}

    unseen = held(rows, 1)
    asked = [
        {tuple(r["input_ids"][: r["labels"].count(-100)]) for r in rows if (tuple(r["input_ids"]) in unseen) == side}
        for side in (True, False)
    ]
    assert 24 <= len(unseen) <= 27
    assert not asked[0] & asked[1]
    assert held(rows[::-1], 1) == unseen
    assert held(rows, 2) != unseen


# -- the stage --------------------------------------------------------------------------------------------------------

SOURCES = {
    "first": [row(f"{i} + 1?", f"It is {i + 1}, counted on {i} fingers.", name=f"f{i}") for i in range(40)],
    "second": [row(f"Who is number {i}?", f"Number {i} has {i * i} sheep and a house.", name=f"s{i}") for i in range(10)],
}
LONG = "The quick brown fox jumps over the lazy dog and runs through the wood to the river where it drinks."


def made(tmp_path: Path, **words: Any) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Run the stage on two sources; return what it wrote, and its ledger."""
    byte_tokenizer().save_pretrained(tmp_path / "tok" / "tokenizer")
    (tmp_path / "out").mkdir()
    for name, rows in SOURCES.items():
        (tmp_path / name).mkdir()
        kind = {"source": name, "domain": "math" if name == "first" else "general"}
        mixture.save(tmp_path / name / "instructions.jsonl", [one | kind for one in rows])
    inputs = {name: Finished(tmp_path / name, {"stage": name}) for name in ("tok", *SOURCES)}
    data = [{"run": name} for name in SOURCES]
    raw = {"stage": "mixture", "start": {"run": "tok"}, "data": data, "max_length": 200, "validation": 0.1, **words}
    here = Run(tmp_path / "out", inputs, {}, True, False, {}, data_root=tmp_path)
    mixture.build(recipe.validate(raw, "t"), here, None)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / mixture.SCRATCH).exists()
    written = {name: list(mixture.load(tmp_path / "out" / f"{name}.jsonl")) for name in ("rows", "validation")}
    return written, json.loads((tmp_path / "out" / "ledger.json").read_text())


def test_shares_are_met_by_caps_and_epochs(tmp_path: Path) -> None:
    blend = {"rows": 40, "shares": {"math": 0.5, "general": 0.5}, "max_epochs": 2.0}
    written, ledger = made(tmp_path, blend=blend)
    assert ledger["blend"]["taken"] == 40
    assert [(one["group"], one["taken"], one["epochs"]) for one in ledger["blend"]["groups"]] == [
        ("math", 20, 0.5),
        ("general", 20, 2.0),
    ]
    assert ledger["dropped_of"] == {"first": {mixture.BEYOND: 20}}
    names = [one["id"] for one in written["rows"]]
    unseen = {one["id"] for one in written["validation"]}
    general = {one["id"] for one in SOURCES["second"]} - unseen
    assert sorted(name for name in names if name[0] == "s") == sorted([*general, *(f"{name}#2" for name in general)])
    assert len([name for name in names if name[0] == "f"]) + len([name for name in unseen if name[0] == "f"]) == 20
    assert ledger["rows"] == len(names)
    assert ledger["sources"] == {
        "first": 20,
        "second": 20 - len([name for name in unseen if name[0] == "s"]),
    }


def test_the_total_gives_way_and_never_the_shares(tmp_path: Path) -> None:
    blend = {"rows": 1000, "shares": {"math": 0.8, "general": 0.2}, "max_epochs_of": {"general": 1.5}}
    _, ledger = made(tmp_path, blend=blend, validation=0.0)
    assert ledger["domains"] == {"math": 40, "general": 10}
    assert (ledger["blend"]["bound_by"], ledger["blend"]["taken"]) == ("math", 50)


def test_languages_have_their_shares_of_every_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = [one | {"language": "zh" if i % 4 == 0 else "en"} for i, one in enumerate(SOURCES["first"])]  # 10 of 40
    monkeypatch.setitem(SOURCES, "first", spoken)
    blend = {"rows": 20, "shares": {"math": 0.8, "general": 0.2}, "languages": {"en": 0.5, "zh": 0.5}}
    _, ledger = made(tmp_path, blend=blend, validation=0.0)
    taken = {one["group"]: one["taken"] for one in ledger["blend"]["groups"]}
    assert taken == {"math/zh": 8, "math/en": 8, "general/en": 4}
    assert ledger["languages"] == {"zh": 8, "en": 12}


def test_a_domain_without_a_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no share for general"):
        made(tmp_path, blend={"rows": 20, "shares": {"math": 1.0}})


def test_near_duplicates_go_over_all_sources_and_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "first", [*SOURCES["first"], row("Tell a story.", LONG, name="kept")])
    monkeypatch.setitem(
        SOURCES, "second", [*SOURCES["second"], row("Tell a story.", LONG + " Then it sleeps.", name="gone")]
    )
    written, ledger = made(tmp_path, near={"keep": "first"}, validation=0.0)
    names = {one["id"] for one in written["rows"]}
    assert "kept" in names
    assert "gone" not in names
    assert ledger["dropped_of"]["second"] == {mixture.NEAR: ledger["near"]["gone"]}
    assert ledger["near"]["gone_for_a_row_of_another_source"] == 1
    assert "near.keep: newest" in refusal(near={"keep": "newest"})


def refusal(**words: Any) -> str:
    raw = {"stage": "mixture", "start": {"run": "tok"}, "data": [{"run": "first"}], "max_length": 9, **words}
    with pytest.raises(RecipeError) as found:
        recipe.validate(raw, "t")
    return str(found.value)


def test_a_row_that_holds_an_item_of_a_run_or_a_card_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Ann has 12 cows and buys 7 more. How many cows has she now?"
    other = question.replace("12", "31")
    monkeypatch.setitem(SOURCES, "first", [row(other, "38", name="a"), row(f"Once more: {question}", "19", name="b")])
    for name in ("gsm8k/test.jsonl", "gsm8k/train.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"question": question, "answer": "#### 19"}) + "\n")
    written, ledger = made(tmp_path, held_out=["gsm8k"], validation=0.0)
    names = {one["id"] for one in written["rows"]}
    assert "a" in names
    assert "b" not in names
    assert ledger["dropped_of"] == {"first": {mixture.LEAK: 1}}
    assert ledger["decontamination"]["documents_containing_items"] == 1
    assert ledger["decontamination"]["groups"]["gsm8k"]["items"] == 1
    assert recipe.validate(RAW | {"against": "benchmarks"}, "test").runs() == {"sft", "benchmarks"}


RAW = {"stage": "mixture", "data": [{"card": "alpaca-en"}], "start": {"run": "sft"}, "max_length": 64}


def test_words_that_are_not_given_leave_a_fingerprint_as_it_was() -> None:
    written = recipe.validate(RAW, "t").model_dump(mode="json")
    assert not {"near", "blend", "held_out"} & written.keys()


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
    assert ledger["dropped_of"] == {"s": {"exact duplicate": 10}}
    assert ledger["read"] == {"s": 60}
    assert ledger["sources"] == {"s": 50}
    assert ledger["tokenizer"] == supervision.signature(tokenizer)
