"""Learn the merges from word counts. The result stands in one Encoder: conventional tokens, then the special ones.

All 256 bytes are in the alphabet, so any text comes back unchanged; the family learnt its alphabet from data instead and
filled 13 of its 15 special places with the bytes that UTF-8 never uses (a departure, listed in the README). Here those
places are a pad token and a reserve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Encoder

from alignment.chat import BOS, EOS
from alignment.errors import DataError
from alignment.tokenizer import counting, pretokens

PAD = "<\uff5cpad\u2581token\uff5c>"
SPECIAL = 15  # paper 2.1: BOS, EOS, and 13 more
REPEATS = 20_000  # characters that are handed to the trainer at once
BATCH = 500


def special_tokens(template: str) -> list[str]:
    """Name the 15 special tokens in the order of their ids; ChatML's marks take two of the reserve."""
    marks = ["<|im_start|>", "<|im_end|>"] if template == "chatml" else []
    reserve = [f"<\uff5creserved\u2581{number}\uff5c>" for number in range(SPECIAL - 3 - len(marks))]
    return [BOS, EOS, PAD, *marks, *reserve]


def learn(texts: Iterable[str], vocab_size: int, template: str, digits: str = "split") -> Encoder:
    """Count the words of some texts and learn from them."""
    return learn_words(counting.count(texts, digits).words, vocab_size, template, digits)


def learn_words(words: Mapping[str, int], vocab_size: int, template: str, digits: str = "split") -> Encoder:
    """Learn the merges. Raises DataError when the words are too few for a vocabulary of this size, or too many."""
    counting.check_overflow(words)
    encoder = Encoder(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")  # no word has a space: its byte is written otherwise
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    encoder.train_from_iterator(_repeated(words), trainer)
    if (found := encoder.get_vocab_size() + SPECIAL) != vocab_size:
        raise DataError(f"vocab_size: the sample gives {found} tokens, not {vocab_size}. Raise sample_bytes.")
    encoder.pre_tokenizer = pretokens.pre_tokenizer(digits)
    encoder.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens(template)])
    encoder.encode_special_tokens = True
    return encoder


def _repeated(words: Mapping[str, int]) -> Iterator[list[str]]:
    """Say every word as often as it was counted: the trainer takes no counts, and cutting at spaces is cheap."""

    def lines() -> Iterator[str]:
        for word, number in words.items():
            most = max(1, REPEATS // len(word))
            for start in range(0, number, most):
                yield f"{word} " * min(most, number - start)

    rest = lines()
    while batch := list(islice(rest, BATCH)):
        yield batch
