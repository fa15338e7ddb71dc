"""A long prompt loses its beginning, never its end; answers and end marks stay whole on both sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment import chat, recipe
from alignment.errors import RecipeError
from alignment.posttrain import pairs
from tests import tiny

TOKENIZER = tiny.byte_tokenizer()
LONG = {**tiny.PAIRS[0], "prompt": "First some words that nobody needs. Then: what is 0?"}


def test_a_long_prompt_loses_its_beginning_and_nothing_else() -> None:
    whole = pairs.encode(LONG, TOKENIZER)
    limit = pairs.length(whole) - 10
    (kept,), dropped, cut, shortened = pairs.tokenise([LONG], TOKENIZER, limit, shorten=True)
    assert (shortened, cut.count, dict(dropped)) == (1, 0, {})
    assert LONG["prompt"].endswith(kept["prompt"])
    assert limit - 8 <= pairs.length(kept) <= limit  # a word's border may cost a few
    asked = [{"role": "user", "content": kept["prompt"]}]
    assert kept["prompt_ids"] == chat.encode(TOKENIZER, asked, answer=False).input_ids
    for side in ("chosen_ids", "rejected_ids"):
        assert kept[side] == whole[side]
        assert kept[side][-1] == TOKENIZER.eos_token_id


@pytest.mark.parametrize("shorten", [True, False])
def test_a_pair_that_would_lose_half_its_prompt_is_left_out(shorten: bool) -> None:
    limit = pairs.length(pairs.encode(LONG, TOKENIZER)) - len(LONG["prompt"]) // 2 - 5
    kept, dropped, cut, shortened = pairs.tokenise([LONG, tiny.PAIRS[1]], TOKENIZER, limit, shorten=shorten)
    assert [pair["id"] for pair in kept] == ["1"]
    assert (shortened, cut.count, dict(dropped)) == (0, 1, {f"longer than {limit} tokens": 1})


def words(**changes: Any) -> Any:
    raw = {"stage": "dpo", "start": {"run": "sft"}, "data": [{"card": "some"}, {"card": "other"}], "max_length": 64}
    return recipe.validate(raw | {"optim": {"learning_rate": 1e-6, "batch_size": 4}} | changes, "t")


def test_of_cards_a_share_of_the_prompts_is_never_learnt_from(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i % 40}?", "chosen": str(i), "rejected": "no"} for i in range(100)]
    cards: Any = {
        "some": SimpleNamespace(pairs=lambda: iter(rows[:50]), dropped=Counter(odd=1)),
        "other": SimpleNamespace(pairs=lambda: iter(rows[50:]), dropped=Counter()),
    }
    here = replace(tiny.opened(tmp_path, tmp_path / "out", {}), cards=cards)
    assert pairs.read(words(), here) == (rows, [], Counter(odd=1))
    learnt, held, dropped = pairs.read(words(heldout=0.3), here)
    prompts = [{pair["prompt"] for pair in part} for part in (learnt, held)]
    assert dropped == Counter(odd=1)
    assert not prompts[0] & prompts[1]
    assert len(prompts[1]) == pytest.approx(12, abs=6)
    assert [pair for pair in rows if pair["prompt"] in prompts[1]] == held
    assert [pair for pair in rows if pair["prompt"] in prompts[0]] == learnt
    assert pairs.read(words(heldout=0.3, seed=1), here)[1] != held


def test_a_share_of_cards_that_no_recipe_names_is_refused() -> None:
    with pytest.raises(RecipeError, match="no card is named"):
        words(heldout=0.3, data=[{"run": "preferences"}])
