"""The doctor: each invariant is broken on purpose and found; a sound set passes, and its page shows every token's part."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment import __main__ as command
from alignment import manifest, recipe, run, terminal
from alignment.errors import DataError, RecipeError
from alignment.posttrain import diagnosis, doctor, examination, mixture, mould, page
from alignment.posttrain import pairs as preference
from alignment.posttrain.diagnosis import Cut, Diagnosis
from alignment.run import Run
from tests.tiny import PAIRS, byte_tokenizer

Row = dict[str, Any]
TOKENIZER = byte_tokenizer()
EOS, BOS = TOKENIZER.eos_token_id, TOKENIZER.bos_token_id


def row(*turns: str, name: str = "r", system: str = "") -> Row:
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    messages = [{"role": "system", "content": system}, *messages] if system else messages
    return {"id": name, "messages": messages, "source": "s", "language": "en", "domain": "d"}


def tokenised(*found: Row) -> list[Row]:
    return mixture.tokenise(found, TOKENIZER, 200).rows


def examine(rows: list[Row], validation: list[Row] | None = None, cut: Cut | None = None) -> Diagnosis:
    return doctor.rows(rows, validation or [], cut or Cut(200), Counter(), TOKENIZER, "here", overlong=0.05)


def said(faults: list[diagnosis.Fault]) -> list[str]:
    return [diagnosis.said(fault) for fault in faults]


# -- instruction rows -------------------------------------------------------------------------------------------------


def test_a_sound_set_has_no_violation_and_adds_up_by_role() -> None:
    rows = tokenised(row("1 + 1?", "2", name="a"), row("Why?", "So.", "And?", "Hm.", system="Be brief.", name="b"))
    found = examine(rows)
    assert (found.violations, found.notes) == ([], [])
    assert found.compared == 2
    assert found.counts == {
        "rows": 2,
        "tokens": sum(len(one["input_ids"]) for one in rows),
        "learnt_tokens": len(" 2 So. Hm.") + 3,  # a token a byte, and three end marks
    }
    assert found.roles["system"] == (1 + len("Be brief.\n\n"), 0)
    assert found.roles["assistant"] == (found.counts["learnt_tokens"],) * 2
    assert sum(tokens for tokens, _ in found.roles.values()) == found.counts["tokens"]
    assert found.lengths["tokens"]["longest"] == len(rows[1]["input_ids"])


def pop_end(one: Row) -> None:
    one["input_ids"].pop(), one["labels"].pop()


def double_bos(one: Row) -> None:
    one["input_ids"].insert(0, BOS), one["labels"].insert(0, -100)


def learn_prompt(one: Row) -> None:
    one["labels"][3:] = one["input_ids"][3:]


def learn_too_late(one: Row) -> None:
    first = one["labels"].count(-100)
    one["labels"][first] = -100


def end_twice(one: Row) -> None:
    one["input_ids"].insert(-1, EOS), one["labels"].insert(-1, EOS)


def empty(one: Row) -> None:
    del one["input_ids"][-2:-1], one["labels"][-2:-1]
    one["input_ids"][-2] = one["labels"][-2] = TOKENIZER("\n").input_ids[0]


def ask_otherwise(one: Row) -> None:
    one["messages"] = [{"role": "user", "content": "3?"}, one["messages"][1]]


def answer_otherwise(one: Row) -> None:
    one["messages"] = [one["messages"][0], {"role": "assistant", "content": "x"}]


def answer_more(one: Row) -> None:
    one["messages"] = [*one["messages"], {"role": "user", "content": "?"}, {"role": "assistant", "content": "y"}]


BROKEN: dict[str, tuple[Callable[[Row], Any], str]] = {
    "no token": (lambda one: one.update(labels=[-100] * len(one["labels"])), "no token is learnt"),
    "no end mark": (pop_end, "does not end in a learnt end mark"),
    "end mark not learnt": (lambda one: one["labels"].__setitem__(-1, -100), "does not end in a learnt end mark"),
    "end mark in the middle": (end_twice, "an end mark is learnt in the middle"),
    "two BOS": (double_bos, "exactly one BOS"),
    "no BOS": (lambda one: (one["input_ids"].pop(0), one["labels"].pop(0)), "exactly one BOS"),
    "vocabulary": (lambda one: (one["input_ids"].__setitem__(-2, 9999), one["labels"].__setitem__(-2, 9999)), "vocabulary"),
    "no token at all": (lambda one: one["input_ids"].__setitem__(-2, -7), "vocabulary"),
    "another label": (lambda one: one["labels"].__setitem__(-2, 7), "neither -100 nor its token"),
    "fewer labels": (lambda one: one["labels"].pop(), "as many labels"),
    "prompt learnt": (learn_prompt, "does not begin where the model is asked to speak"),
    "answer learnt in part": (learn_too_late, "does not begin where the model is asked to speak"),
    "empty answer": (empty, "an answer is empty"),
    "another prompt": (ask_otherwise, examination.ASKED),
    "another answer": (answer_otherwise, examination.SPELLED),
    "an answer that is not there": (answer_more, examination.STRETCHES),
    "too long": (lambda one: one.update(row_of(300)), "longer than max_length 200"),
}


def row_of(length: int) -> Row:
    return mixture.tokenise([row("x" * length, "2")], TOKENIZER, 999).rows[0]


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_row_is_found_and_named(name: str) -> None:
    spoil, fault = BROKEN[name]
    rows = tokenised(row("1?", "one", name="a"), row("2?", "2", name="b"), row("3?", "three", name="c"))
    spoil(rows[1])
    rows[1]["id"] = "b"
    assert any(re.match(f"1: .*{re.escape(fault)}.*first: b", line) for line in said(examine(rows).violations))


@pytest.mark.parametrize("name", ["no end mark", "two BOS", "prompt learnt", "empty answer"])
def test_ids_alone_betray_it_where_the_text_is_gone(name: str) -> None:
    spoil, fault = BROKEN[name]
    rows = tokenised(row("1?", "one"), row("2?", "2"))
    spoil(rows[1])
    for one in rows:
        del one["messages"], one["id"]
    found = examine(rows)
    assert found.compared == 0
    assert any(fault in line and "first: row 2" in line for line in said(found.violations))


def test_a_template_that_asks_otherwise_than_it_trains_is_found() -> None:
    """Rows made with one template, and a tokenizer that asks with another."""
    asks = byte_tokenizer()
    asks.chat_template = asks.chat_template.replace("'Assistant:' }}{% endif", "'Assistant: ' }}{% endif")
    found = doctor.rows(tokenised(row("1?", "one")), [], Cut(200), {}, asks, "here", overlong=0.05)
    assert any(examination.ASKED in line for line in said(found.violations))


@pytest.mark.parametrize("share", [0.04, 0.06])
def test_a_set_that_would_lose_too_many_rows_is_refused(share: float) -> None:
    cut = Cut(5)
    for i in range(round(100 * share)):
        cut.add(f"long {i}", [1] * 9, [-100] * 6 + [1] * 3)
    rows = tokenised(*(row(f"{i}?", "a") for i in range(100 - cut.count)))
    refused = any(
        "are longer than max_length" in line for line in said(examine(rows, cut=Cut(200, **counts(cut))).violations)
    )
    assert refused == (share > 0.05)
    assert (cut.tokens, cut.learnt, cut.unasked) == (4 * cut.count, 3 * cut.count, cut.count)


def counts(cut: Cut) -> dict[str, Any]:
    return {name: getattr(cut, name) for name in ("count", "tokens", "learnt", "unasked", "longest")}


def test_nothing_to_learn_from_is_refused() -> None:
    assert said(examine([]).violations) == [
        "none of the rows is left to learn from. See what was left out, or name other data"
    ]


def test_what_may_be_meant_is_counted_and_stops_nothing() -> None:
    asked = [row("1?", "one", name="a"), row("1?", "uno", name="b"), row(f"Say {TOKENIZER.eos_token}", "no", name="c")]
    rows = tokenised(*asked)
    found = examine([*rows, {**rows[0], "id": "d"}], validation=tokenised(row("1?", "eins", name="v")))
    assert found.violations == []
    assert {(fault.text, fault.count, fault.first) for fault in found.notes} == {
        (examination.ANSWERED, 1, "b"),
        (examination.MARK_IN_TEXT, 1, "c"),
        (examination.REPEATED, 1, "d"),
        (doctor.LEAKED, 1, "validation v"),
    }


def test_engines_that_join_what_is_learnt_apart_are_noted() -> None:
    """One text may merge the colon of `Assistant:` with the space of the answer; here both stay apart, asked or trained."""
    joins = byte_tokenizer(merges=[(":", "\u0120")])
    rows = mixture.tokenise([row("1?", "one", name="a"), row("2?", "two", "3?", "three", name="b")], joins, 200).rows
    found = doctor.rows(rows, [], Cut(200), {}, joins, "here", overlong=0.05)
    assert (said(found.violations), said(found.notes)) == ([], [f"1: {examination.ELSEWHERE} (first: b)"])


# -- preference pairs -------------------------------------------------------------------------------------------------


def pairs(*changed: tuple[int, Row], validation: list[Row] | None = None) -> Diagnosis:
    found = preference.tokenise(PAIRS, TOKENIZER, 64).pairs
    for i, change in changed:
        found[i] = {**found[i], **change}
    return doctor.pairs(found, validation or [], Cut(64), {}, TOKENIZER, "here", overlong=0.05)


def test_sound_pairs_pass_and_their_length_bias_is_measured() -> None:
    found = pairs()
    assert found.violations == []
    assert found.counts["pairs"] == len(PAIRS)
    assert found.compared == 2 * len(PAIRS)
    assert found.bias is not None
    longer = sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in PAIRS)
    assert (found.bias.longer, found.bias.confounded) == (longer, True)
    assert found.bias.chosen > found.bias.rejected


def test_length_bias_has_wilsons_interval_and_leaves_ties_out() -> None:
    found = doctor.bias([(3, 2)] * 6 + [(2, 3)] * 4 + [(2, 2)] * 5)
    assert found is not None
    assert (found.longer, found.unequal, found.confounded) == (6, 10, False)
    n, p, z = 10, 0.6, 1.959963984540054
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))
    assert doctor.bias([(2, 2)]) is None


GOOD = preference.tokenise(PAIRS[:2], TOKENIZER, 64).pairs
BROKEN_PAIRS: dict[str, tuple[Row, str]] = {
    "identical sides": ({"rejected_ids": GOOD[1]["chosen_ids"], "rejected": GOOD[1]["chosen"]}, doctor.IDENTICAL),
    "a cut side": ({"chosen_ids": GOOD[1]["chosen_ids"][:-1]}, "does not end in a learnt end mark"),
    "an empty side": ({"rejected_ids": [*TOKENIZER(" ").input_ids, EOS], "rejected": " "}, "an answer is empty"),
    "another prompt": ({"prompt_ids": GOOD[0]["prompt_ids"]}, examination.ASKED),
    "another answer": ({"chosen_ids": GOOD[0]["chosen_ids"]}, examination.SPELLED),
    "two BOS": ({"prompt_ids": [BOS, *GOOD[1]["prompt_ids"]]}, "exactly one BOS"),
    "too long": ({"chosen_ids": [*GOOD[1]["chosen_ids"][:-1]] * 9 + [EOS]}, "longer than max_length 64"),
}


@pytest.mark.parametrize("name", BROKEN_PAIRS)
def test_each_broken_pair_is_found_and_named(name: str) -> None:
    change, fault = BROKEN_PAIRS[name]
    lines = said(pairs((1, change)).violations)
    assert any(fault in line and re.search(r"first: 1\b", line) for line in lines), lines


def test_a_held_out_prompt_that_is_trained_on_is_noted() -> None:
    found = pairs(validation=preference.tokenise([{**PAIRS[0], "id": "h"}], TOKENIZER, 64).pairs)
    assert said(found.notes) == [f"1: {doctor.LEAKED} (first: held-out h)"]


# -- the page and the gate --------------------------------------------------------------------------------------------


def test_the_page_stands_alone_and_colours_every_token() -> None:
    found = examine(tokenised(row("<b>1 + 1?</b> 好", "2 <i>"), row("x" * 90, "y")))
    html = page.render(found)
    assert "http" not in html
    assert "<script" not in html
    assert "<b>1 + 1?" not in html
    shown = next(one for one in found.shown if one.why == "shortest answer" and "2 <i>" in "".join(t for t, _ in one.pieces))
    learnt = "".join(text for text, kind in shown.pieces if "learnt" in kind)
    assert learnt == f" 2 <i>{TOKENIZER.eos_token}"
    assert ("好", "asked") in shown.pieces  # three tokens that spell one character together
    assert (TOKENIZER.bos_token, "asked mark") in shown.pieces


def test_what_a_cut_would_take_is_struck_and_the_middle_of_a_long_row_is_left_out() -> None:
    ids = TOKENIZER("a" * 2000).input_ids
    shown = page.colour("r", "", ids, ids, TOKENIZER, limit=1000)
    assert sum(kind == "learnt cut" for _, kind in shown.pieces) == page.WINDOW
    gaps = [int(text.split()[0].replace(",", "")) for text, kind in shown.pieces if kind == "gap"]
    assert sum(gaps) + sum(kind != "gap" for _, kind in shown.pieces) == 2000
    assert len(gaps) == 2


def test_the_gate_writes_the_page_and_refuses(tmp_path: Path) -> None:
    here = Run(tmp_path, {}, {}, True, False, {})
    rows = tokenised(row("1?", "one"), row("2?", "two"))
    assert doctor.gate(examine(rows), here)["rows"] == 2
    rows[1]["labels"][-1] = -100
    with pytest.raises(
        DataError, match=r"would not teach what is meant\.\n  1: an answer does not end in a learnt end mark"
    ):
        doctor.gate(examine(rows), here)
    assert "Refused" in (tmp_path / "doctor.html").read_text(encoding="utf-8")


def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, broken: bool) -> tuple[Path, Path]:
    """A recipe of a mixture beside its finished inputs; broken: its end marks are not learnt."""
    runs = tmp_path / "runs"
    for name, written in (("tok", "tokenizer"), ("data", "curriculum")):
        words = {"stage": written, "seed": 0}
        plan = manifest.compose(words=words, inputs={}, cards={}, hardware={})
        here = run.begin(runs / "x" / name, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
        if name == "tok":
            TOKENIZER.save_pretrained(here.path / "tokenizer")
        else:
            mixture.save(here.path / "instructions.jsonl", [row(f"{i}?", str(i)) for i in range(20)])
        run.finish(here, {})
    file = tmp_path / "recipes" / "x" / "mix.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("stage: mixture\nstart: {run: tok}\ndata: [{run: data}]\nmax_length: 64\n", encoding="utf-8")
    if broken:
        encode = mould.encode
        monkeypatch.setattr(mould, "encode", lambda *given: [(ids, [*labels[:-1], -100]) for ids, labels in encode(*given)])
    return file, runs


@pytest.mark.parametrize("broken", [False, True])
def test_the_command_says_it_and_its_exit_code_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: bool
) -> None:
    file, runs = stage(tmp_path, monkeypatch, broken=broken)
    words = ["doctor", str(file), "--runs", str(runs), "--out", str(tmp_path / "pages")]
    code = terminal.guarded(lambda: command.app(words, standalone_mode=False), resumes=False)
    printed = capsys.readouterr()
    assert code == (2 if broken else 0)
    assert ("refused" if broken else "sound") in printed.out
    assert ("does not end in a learnt end mark" in printed.err) == broken
    assert (tmp_path / "pages" / "x-mix.html").exists()
    assert not (runs / "x" / "mix").exists()


def test_a_stage_refuses_before_it_writes_rows_and_lets_a_corrected_recipe_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, runs = stage(tmp_path, monkeypatch, broken=True)
    words = recipe.load(file)
    inputs = {name: run.read(runs / "x" / name) for name in ("tok", "data")}
    plan = manifest.compose(words=words.model_dump(mode="json"), inputs={}, cards={}, hardware={})

    def begin(plan: dict[str, Any]) -> Run:
        return run.begin(runs / "x" / "mix", plan, inputs=inputs, cards={}, main=True, resume=False, recipe_text="")

    with pytest.raises(DataError, match="would not teach what is meant"):
        mixture.build(words, begin(plan), None)  # type: ignore[arg-type]
    left = {path.name for path in (runs / "x" / "mix").iterdir()}
    assert left == {"doctor.html", "log.txt", "recipe.yaml", "run.json"}
    begin({**plan, "fingerprint": "another"})


def test_a_recipe_without_data_to_look_at_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipes" / "x" / "tok.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("stage: tokenizer\ndata: c\nvocab_size: 300\nsample_bytes: 9\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="nothing for the doctor here"):
        command.app(["doctor", str(file)], standalone_mode=False)
