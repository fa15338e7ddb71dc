"""Preference pairs of runs and cards, as tokens: what is asked, and two answers with their end marks.

A pair that is too long is left out, or loses the beginning of its prompt (`long_prompts: cut`). What the model is asked
last, both answers and their end marks stay whole either way, and both sides keep the same prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from alignment import chat
from alignment.errors import DataError
from alignment.posttrain import mixture
from alignment.posttrain.diagnosis import Cut
from alignment.recipe import DPO
from alignment.run import Run

Pair = dict[str, Any]  # a pair as it was read, and its tokens


class Pairs(NamedTuple):
    """Pairs that can be learnt from, with what was left out by reason, and what cutting the long ones would have lost."""

    pairs: list[Pair]
    dropped: Counter[str]
    cut: Cut
    shortened: int = 0  # pairs among them whose prompt lost its beginning


def gather(recipe: DPO, here: Run, tokenizer: Any) -> tuple[Pairs, list[Pair]]:
    """Read and tokenise pairs, with the held-out ones that lie beside them; what is left out is that of the former.

    Raises DataError where more prompts would be cut than `overlong` allows.
    """
    raw, raw_unseen, dropped = read(recipe, here)
    cutting = recipe.long_prompts == "cut"
    found = tokenise(raw, tokenizer, recipe.max_length, shorten=cutting)
    if found.shortened > recipe.overlong * len(found.pairs):
        raise DataError(
            f"{here.path}: {found.shortened:,} of {len(found.pairs):,} prompts would be cut to fit max_length "
            f"{recipe.max_length}, overlong allows {recipe.overlong:g}. Raise max_length, or overlong if that is meant."
        )
    unseen = tokenise(raw_unseen, tokenizer, recipe.max_length, shorten=cutting).pairs
    return found._replace(dropped=dropped + found.dropped), unseen


def read(recipe: DPO, here: Run) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]], Counter[str]]:
    """Read pairs of runs (with the held-out ones beside them) and of cards; count what a card's reader leaves out.

    Of cards, `heldout` says how many are never learnt from.
    """
    pairs: list[Mapping[str, str]] = []
    heldout: list[Mapping[str, str]] = []
    dropped: Counter[str] = Counter()
    for source in recipe.data:
        if source.run:
            folder = here.inputs[source.run].path
            if not (folder / "pairs.jsonl").exists():
                raise DataError(f"{folder}: no pairs.jsonl. Name a preferences run, or a card with pairs.")
            pairs += islice(mixture.load(folder / "pairs.jsonl"), source.rows)
            heldout += mixture.load(folder / "heldout_pairs.jsonl")
        else:
            card = here.cards[str(source.card)]
            for pair in islice(card.pairs(), source.rows):
                (heldout if is_heldout(pair["prompt"], recipe.heldout, recipe.seed) else pairs).append(pair)
            dropped.update(card.dropped)
    return pairs, heldout, dropped


def is_heldout(prompt: str, share: float, seed: int) -> bool:
    """Say whether a prompt is among a share that is never learnt from; equal prompts lie on one side."""
    return int(hashlib.sha256(f"{seed} {prompt}".encode()).hexdigest()[:8], 16) / 16**8 < share


def tokenise(pairs: Iterable[Mapping[str, str]], tokenizer: Any, max_length: int, *, shorten: bool = False) -> Pairs:
    """Encode pairs as they are asked and answered, end marks included; count by reason what cannot be learnt from."""
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    cut, shortened = Cut(max_length), 0
    for number, pair in enumerate(pairs, 1):
        if pair["chosen"] == pair["rejected"]:
            dropped["equal answers"] += 1
            continue
        if not (pair["chosen"].strip() and pair["rejected"].strip()):
            dropped["empty answer"] += 1
            continue
        found = encode(pair, tokenizer)
        over = length(found) - max_length
        if over > 0 and shorten and (fitting := without_beginning(found, tokenizer, max_length)):
            kept.append(fitting)
            shortened += 1
        elif over > 0:
            dropped[f"longer than {max_length} tokens"] += 1
            prompt, longer = found["prompt_ids"], max(found["chosen_ids"], found["rejected_ids"], key=len)
            cut.add(pair.get("id", f"pair {number}"), prompt + longer, [-100] * len(prompt) + longer)
        else:
            kept.append(found)
    return Pairs(kept, dropped, cut, shortened)


def encode(pair: Mapping[str, str], tokenizer: Any) -> Pair:
    """A pair with the ids of its prompt and of both answers, each up to and with its end mark."""
    prompt = chat.encode(tokenizer, [_turn("user", pair["prompt"])], answer=False).input_ids
    chosen, rejected = (answer(tokenizer, pair, side, prompt) for side in ("chosen", "rejected"))
    return {**pair, "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def answer(tokenizer: Any, pair: Mapping[str, str], side: str, prompt: list[int]) -> list[int]:
    """The ids of an answer, up to and with its end mark."""
    whole = chat.encode(tokenizer, [_turn("user", pair["prompt"]), _turn("assistant", pair[side])], answer=True)
    return whole.input_ids[len(prompt) : max(i for i, learnt in enumerate(whole.learnt) if learnt) + 1]


def length(pair: Pair) -> int:
    """Tokens of the longer side."""
    return len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def without_beginning(pair: Pair, tokenizer: Any, max_length: int) -> Pair | None:
    """The pair with as much of its prompt's end as fits; None where less than half of the prompt's text would be left.

    The text is cut, not the tokens: the template's own marks stay, and what is trained is what would be asked.
    """
    text = pair["prompt"]
    fits, breaks = 0, len(text)  # characters of the end that fit, and that do not
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        tried = chat.encode(tokenizer, [_turn("user", text[-middle:].lstrip())], answer=False).input_ids
        over = length({**pair, "prompt_ids": tried}) > max_length
        fits, breaks = (fits, middle) if over else (middle, breaks)
    if 2 * fits < len(text):
        return None
    found = encode({**pair, "prompt": text[-fits:].lstrip()}, tokenizer)
    return found if length(found) <= max_length else None


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
