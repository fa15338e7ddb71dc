"""A real shape for a model scale: depth before width, exact parameters, sizes that the hardware likes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from alignment.errors import RecipeError
from alignment.models import presets
from alignment.models.presets import Shape

NEAR = 0.02  # of the scale: among shapes as near as this the deepest is taken
DEEPEST = 96  # layers; the 67B has 95
WIDEST = 32768
GROUPED = 5120  # width from which keys and values are shared: the 7B (4096) does not, the 67B (8192) does, with 8
KV_HEADS = 8


def nearest(scale: float, sequence: int, vocab: int, *, tie: bool | None = None) -> Shape:
    """The shape whose real M comes nearest to `scale`; within 2 % the deepest (paper 2.2: the 67B grew in depth).

    `tie` unset: embeddings are tied where they would outweigh the layers.
    """
    found = list(candidates(scale, sequence, vocab)) if math.isfinite(scale) else []
    if not found:
        raise RecipeError(
            f"a model of {scale:.3g} FLOPs a token has no shape between one layer of width 16 and {DEEPEST} of {WIDEST}. "
            "Change the budget."
        )
    best = min(abs(_off(shape, scale, sequence)) for shape in found)
    close = [shape for shape in found if abs(_off(shape, scale, sequence)) <= max(NEAR, best)]
    chosen = max(close, key=lambda shape: (shape.layers, -abs(_off(shape, scale, sequence))))
    tied = 2 * vocab * chosen.width > presets.matrices(chosen) if tie is None else tie
    return replace(chosen, tie=tied)


def candidates(scale: float, sequence: int, vocab: int) -> Iterator[Shape]:
    """Shapes of all sound widths with the number of layers that fits `scale` best."""
    for width in widths():
        one = shape(1, width, sequence, vocab)
        layers = round(scale / presets.flops_per_token(one, sequence))
        if 1 <= layers <= min(DEEPEST, deepest(width)):
            yield shape(layers, width, sequence, vocab)


def widths() -> Iterator[int]:
    """Multiples of 16 to 256, of 64 to 1024, of 128 beyond: whole heads, and products that fill a GPU's tiles."""
    yield from range(16, 256, 16)
    yield from range(256, 1024, 64)
    yield from range(1024, WIDEST + 1, 128)


def deepest(width: int) -> int:
    """The most layers for a width: width / layers is at least 24, and grows to the 67B's 86."""
    aspect = 24 + (86 - 24) * max(0.0, math.log2(width / 256)) / 5
    return max(1, math.floor(width / aspect + 0.5))


def shape(layers: int, width: int, sequence: int, vocab: int) -> Shape:
    """The family's shape: heads of 128 (smaller models: 64, 32, 16), a feed-forward width of 8/3, shared keys at the top."""
    head = 128 if width >= 2048 else 64 if width >= 256 else 32 if width % 32 == 0 else 16
    heads = width // head
    kv_heads = KV_HEADS if width >= GROUPED and heads % KV_HEADS == 0 else heads
    return Shape(layers, width, heads, kv_heads, presets.ffn(width), vocab=vocab, max_positions=sequence)


def _off(shape: Shape, scale: float, sequence: int) -> float:
    return presets.flops_per_token(shape, sequence) / scale - 1
