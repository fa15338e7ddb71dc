"""A long prompt loses its beginning, never its end; answers and end marks stay whole on both sides."""

from __future__ import annotations

import pytest

from alignment import chat
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
