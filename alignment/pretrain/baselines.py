"""What any language model must beat on the same held-out text: byte statistics and gzip, in bits per byte.

The n-gram model interpolates the orders 3, 2, 1, 0 after Witten and Bell (1991): a context seen n times with t
different continuations keeps n / (n + t) of its mass and hands t / (n + t) down. Order 3 = three bytes of context.
"""

from __future__ import annotations

import gzip
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def bits_per_byte(train: bytes, heldout: bytes) -> dict[str, float]:
    """Score the held-out text with models counted on the training text."""
    seen, text = np.frombuffer(train, np.uint8), np.frombuffer(heldout, np.uint8)
    return {
        "bits_per_byte_unigram": ngram(seen, text, order=0),
        "bits_per_byte_order3": ngram(seen, text, order=3),
        "bits_per_byte_gzip": 8 * len(gzip.compress(heldout, 9, mtime=0)) / len(heldout),
    }


def ngram(seen: Bytes, text: Bytes, order: int) -> float:
    """Bits per byte of an interpolated byte model with `order` bytes of context; below it all 256 bytes are equal."""
    chance = np.full(len(text), 1 / 256)
    for length in range(order + 1):
        grams, counts = np.unique(_grams(seen, length + 1), return_counts=True)
        contexts, first, kinds = np.unique(grams >> 8, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        wanted = _grams(text, length + 1)
        count, (total, kind) = _look_up(grams, wanted, counts)[0], _look_up(contexts, wanted >> 8, totals, kinds)
        known = total > 0
        chance[known] = (count[known] + kind[known] * chance[known]) / (total[known] + kind[known])
    return float(-np.log2(chance).mean())


def _grams(text: Bytes, length: int) -> NDArray[np.uint64]:
    """Each byte with the `length` - 1 before it, as one number; before the text there are zeros."""
    grams = text.astype(np.uint64)
    for back in range(1, length):
        grams[back:] |= text[:-back].astype(np.uint64) << np.uint64(8 * back)
    return grams


def _look_up(keys: NDArray[Any], wanted: NDArray[Any], *columns: NDArray[Any]) -> list[NDArray[Any]]:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = keys[places] == wanted
    return [np.where(found, column[places], 0) for column in columns]


def text_bytes(tokens: NDArray[Any], tokenizer: Any) -> bytes:
    """Turn ids of a byte-level tokenizer back into the exact bytes; control tokens have none."""
    alphabet = _byte_alphabet()
    table = []
    for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer))):
        table.append(bytes(alphabet[c] for c in token) if all(c in alphabet for c in token) else token.encode())
    for number, added in tokenizer.added_tokens_decoder.items():
        table[number] = b"" if added.special else added.content.encode()
    return b"".join([table[number] for number in tokens.tolist()])


@cache
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
