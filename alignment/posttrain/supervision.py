"""What a tokenised row must look like before it may be learnt from, whatever text it came from.

The usual accidents are silent: no answer token is learnt, the end mark is not (the model never stops), BOS stands
twice, a part of the prompt is learnt, the rows were made with another tokenizer. `faults` finds each of them in the ids
and labels alone; `doctor.py` looks at the whole set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

import numpy as np

from alignment import chat

ENDINGS = ("a", "Why?", "1 + 1", "好。", "x\n")  # of questions: what they have in common after them is the template's
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]


@dataclass(frozen=True)
class Expected:
    """What a tokenizer and its chat template demand of every row."""

    ends: frozenset[int]  # the marks that end an answer
    asks: tuple[int, ...]  # what the template puts between a question and its answer
    bos: int | None  # stands once, in front of every conversation; None where the template has no such mark
    blank: frozenset[int]  # tokens that are white space, and nothing else
    vocabulary: int


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens that are all learnt, or all not."""

    learnt: bool
    start: int
    stop: int


def expected(tokenizer: Any) -> Expected:
    """Read from a tokenizer what its rows must look like."""
    size = len(tokenizer)
    spelled = tokenizer.batch_decode([[i] for i in range(size)], clean_up_tokenization_spaces=False)
    asked = [chat.encode(tokenizer, [{"role": "user", "content": text}], answer=False).input_ids[::-1] for text in ENDINGS]
    return Expected(
        ends=frozenset(chat.end_ids(tokenizer)),
        asks=tuple(same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*asked, strict=False)))[::-1],
        bos=opening(tokenizer),
        blank=frozenset(i for i, text in enumerate(spelled) if not text.strip()),
        vocabulary=size,
    )


def opening(tokenizer: Any) -> int | None:
    """The id that stands once, in front of every conversation; None where the template has no such mark."""
    bos = tokenizer.bos_token_id
    ids = chat.encode(tokenizer, TURNS, answer=False).input_ids
    return bos if bos is not None and ids[0] == bos and ids.count(bos) == 1 else None


def signature(tokenizer: Any) -> str:
    """Name a tokenizer with its chat template by content: rows made with one are not read with another."""
    text = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(text.encode()).hexdigest()


def stretches(labels: Sequence[int]) -> list[Stretch]:
    """Cut a row where what is learnt begins and ends."""
    learnt = np.asarray(labels) != -100
    edges = [0, *(np.flatnonzero(learnt[1:] != learnt[:-1]) + 1).tolist(), len(labels)]
    return [Stretch(bool(learnt[start]), start, stop) for start, stop in pairwise(edges) if start < stop]


def faults(ids: Sequence[int], labels: Sequence[int], wanted: Expected) -> Iterator[str]:
    """Say in what a row would not teach what is meant; a fault may come more than once."""
    if len(ids) != len(labels):
        yield "as many labels as tokens are needed"
        return
    tokens, targets = np.asarray(ids), np.asarray(labels)
    if ((targets != -100) & (targets != tokens)).any():
        yield "a label is neither -100 nor its token"
    if ((tokens < 0) | (tokens >= wanted.vocabulary)).any():
        yield f"a token lies outside the vocabulary of {wanted.vocabulary}"
    if wanted.bos is not None and (list(ids[:1]) != [wanted.bos] or ids.count(wanted.bos) != 1):
        yield "exactly one BOS must stand, in front"
    learnt = [part for part in stretches(labels) if part.learnt]
    if not learnt:
        yield "no token is learnt"
    for part in learnt:
        said = ids[part.start : part.stop]
        if said[-1] not in wanted.ends:
            yield "an answer does not end in a learnt end mark (was it cut?)"
        if not wanted.ends.isdisjoint(said[:-1]):
            yield "an end mark is learnt in the middle of an answer"
        if wanted.blank.union(wanted.ends).issuperset(said):
            yield "an answer is empty"
        if tuple(ids[max(0, part.start - len(wanted.asks)) : part.start]) != wanted.asks:
            yield "what is learnt does not begin where the model is asked to speak"
