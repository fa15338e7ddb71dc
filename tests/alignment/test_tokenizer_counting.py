"""Word counts: cut fast, cut right, bounded, and never beyond what the trainer can add up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from alignment.corpus.documents import Document
from alignment.errors import DataError
from alignment.tokenizer import counting, learning, pretokens

# Every class of the pre-tokenizer, whitespace of all kinds, and what stands in two classes at once.
MIXED = (
    "ab Z\u00e9\u00df\u10a0\u1c90\u4e2d\u6587\u3000\u3001\u3002\u2018\uff0c\uff01 \t\n\r\x85\xa0\u2003"
    "\u2028\x1c19\u0663\u2167\u4e00\u3220\u3007\u304b\u3105\ud55c!.,@[`{\u0301\U0001f600\U00010400\U0001e900\u212a\u24d0\uff21\uff11\u0e01\u0e51"
)
TEXT = "The river runs past 12 stone houses; the river, the houses. \u6211\u4eec\u5728\u5bb6\u3002\n"


CUTS = {digits: pretokens.pre_tokenizer(digits) for digits in ("split", "merged")}


def words(text, digits):
    return [word for word, _ in CUTS[digits].pre_tokenize_str(text)]


@pytest.mark.parametrize("digits", CUTS)
@given(st.text(st.sampled_from(MIXED), max_size=12) | st.text(max_size=12))
@example("\uff01\u0e01.\u3000\uff21a\u0e01b")
@example("\U0001f600 \u4e2d \u4e2d  \u4e2d1 \u4e2d")
@settings(max_examples=500, deadline=None)
def test_the_fast_cut_gives_the_words_of_the_pre_tokenizer(digits, text):
    found = pretokens.pieces(text)
    assert "".join(found) == text
    assert [word for piece in found for word in pretokens.words(piece, CUTS[digits])] == words(text, digits)


@given(st.text())
@settings(deadline=None)
def test_the_alphabet_is_the_library_s(text):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert pretokens.symbols(text) == "".join(word for word, _ in byte_level.pre_tokenize_str(text))


def test_counts_are_those_of_the_text_in_any_batches(monkeypatch):
    once = counting.count([TEXT] * 9)
    assert once.words == Counter(words(TEXT * 9, "split"))
    assert once.forgotten == 0
    monkeypatch.setattr(counting, "BATCH", 10)
    assert counting.count([TEXT] * 9) == once
    assert counting.count(["x" * 700]).words == {"x" * 700: 1}  # as the library has it
    long = counting.count(["x" * 10_000])
    assert long.words == {"x" * 4096: 2, "x" * 1808: 1}


def test_the_rarest_words_go_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(counting, "BATCH", 100)
    texts = [f"common text w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(500)]
    counts = counting.count(texts, max_words=50)
    assert len(counts.words) <= 50
    assert counts.words["common"] == counts.words["\u0120text"] == 500
    assert counts.total == 1500
    assert counts.forgotten > 400


def test_training_on_counts_is_training_on_the_text():
    """The oracle is the library's own training, which cuts and counts the text itself."""
    texts = [TEXT * 5, *(Path(module.__file__).read_text(encoding="utf-8") for module in (counting, learning))]
    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = pretokens.pre_tokenizer()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    encoder.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=785, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    )
    ours = learning.learn(texts, 800, "deepseek-llm")
    assert ours.get_vocab(with_added_tokens=False) == encoder.get_vocab()
    assert len(encoder.get_vocab()) == 785
    assert [ours.encode(text).ids for text in texts] == [encoder.encode(text).ids for text in texts]


def test_a_pair_that_the_trainer_cannot_count_is_refused():
    most = 2**31 - 1
    counting.check_overflow({"the": most, "an": 5})
    with pytest.raises(DataError, match=r"pair 'th' stands 2,147,483,648 times.*Lower sample_bytes"):
        counting.check_overflow({"the": most, "th": 1})
    with pytest.raises(DataError, match="pair"):
        learning.learn_words({"the": 2**40}, 272, "deepseek-llm")


def sampled(found, size, shares=None, seed=0):
    return list(counting.sample(found, counting.limits(found, size, shares or {}, seed), seed))


FOUND = [Document(f"{d}{i}", "x" * 100, d, "en", "here") for d, n in (("a", 90), ("b", 10)) for i in range(n)]


def test_the_sample_holds_every_domain_in_its_share():
    sample = sampled(FOUND, 2000)
    assert Counter(document.domain for document in sample) == {"a": 18, "b": 2}
    assert {document.id for document in sample} != {document.id for document in sampled(FOUND, 2000, seed=1)}
    assert {document.id for document in sampled(FOUND[::-1], 2000)} == {document.id for document in sample}


def test_shares_may_be_given_and_a_small_domain_gives_all_it_has():
    assert Counter(d.domain for d in sampled(FOUND, 1000, {"a": 0.5, "b": 0.5})) == {"a": 5, "b": 5}
    assert Counter(d.domain for d in sampled(FOUND, 4000, {"a": 0.5, "b": 0.5})) == {"a": 20, "b": 10}
    assert {d.domain for d in sampled(FOUND, 1000, {"b": 1.0})} == {"b"}


@pytest.mark.parametrize(
    ("found", "shares", "message"),
    [(FOUND, {"code": 1.0}, "no domain 'code'. Domains: a, b"), (FOUND, {"a": 0.0}, "every share is 0"), ([], {}, "empty")],
)
def test_a_sample_of_nothing_is_refused(found, shares, message):
    with pytest.raises(DataError, match=message):
        sampled(found, 1000, shares)
