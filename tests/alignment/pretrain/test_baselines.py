"""The byte models, against counts by hand."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from alignment import chat, tokenizer
from alignment.models import build
from alignment.pretrain import baselines


def by_hand(seen: bytes, text: bytes, order: int) -> float:
    """The same model in plain dictionaries."""
    padded, bits = bytes(order) + seen, 0.0
    grams = [Counter(padded[i - k : i + 1] for i in range(order, len(padded))) for k in range(order + 1)]
    rest = bytes(order) + text
    for i in range(order, len(rest)):
        chance = 1 / 256
        for k in range(order + 1):
            context = rest[i - k : i]
            followers = [count for gram, count in grams[k].items() if gram[:-1] == context]
            if followers:
                n, t = sum(followers), len(followers)
                chance = (grams[k][rest[i - k : i + 1]] + t * chance) / (n + t)
        bits -= math.log2(chance)
    return bits / len(text)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_byte_model_equals_one_counted_by_hand(order):
    draw = random.Random(0)
    seen, text = (bytes(draw.choices(b"abcab ", k=300)) for _ in range(2))
    found = baselines.ngram(np.frombuffer(seen, np.uint8), np.frombuffer(text + b"?", np.uint8), order)
    assert found == pytest.approx(by_hand(seen, text + b"?", order), rel=1e-9)


def test_more_context_helps_on_text():
    numbers = baselines.bits_per_byte(b"the cat sat on the mat. " * 40, b"the mat sat on the cat. " * 4)
    assert numbers["bits_per_byte_order3"] < numbers["bits_per_byte_unigram"] < 8


def test_tokens_turn_back_into_the_exact_bytes(tmp_path):
    text = "Zahl 17, größer.\n\t你好 \U0001f600 <\uff5cend\u2581of\u2581sentence\uff5c>"
    encoder = tokenizer.learn([text * 3], 300, "deepseek-llm")
    tokenizer.write(encoder, tmp_path, "deepseek-llm")
    ids = [encoder.token_to_id(chat.BOS), *encoder.encode(text, add_special_tokens=False).ids]
    assert baselines.text_bytes(np.array(ids), build.read_tokenizer(tmp_path)) == text.encode()
