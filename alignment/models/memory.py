"""What one training process holds, in bytes by part, worked out before anything is built.

Weights, gradients and moments are float32 (paper 2.4). The activations are what the library's Llama keeps for its backward
pass, counted tensor by tensor; the tests hold them against what torch really saves. What an allocator wastes, and what
a GPU's context and communication take, comes on top. d is the width, f the feed-forward width, k that of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignment import hardware
from alignment.hardware import Profile
from alignment.models import presets
from alignment.models.presets import Shape

Mode = Literal["float32", "bfloat16", "autocast"]  # the whole model in one type, or float32 weights under bf16 autocast
QUERIES = 128  # a block of the attention for short rows: its queries meet the keys up to its end
ROWS = 512  # of the loss: tokens whose logits are held at once, at least


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def estimate(shape: Shape, profile: Profile, tokens: int, *, sharded: bool, length: int | None = None) -> Memory:
    """Say what a forward and backward pass over `tokens` tokens, in sequences of `length`, holds under a profile."""
    mode: Mode = "autocast" if profile.device == "cuda" else "float32" if profile.dtype == "float32" else "bfloat16"
    count = presets.parameters(shape)
    bytes_each = 4 if mode == "float32" else 2
    if sharded:  # and two layers at a time are gathered to be computed with, with their gradients
        own = -(-count // profile.processes)
        copies = 2 * (presets.matrices(shape) // shape.layers) * 2 * bytes_each
    else:
        own, copies = count, count * bytes_each  # a rounded copy: autocast's, or the model's own beside its masters
    short = length if hardware.attention(profile, length) == hardware.SHORT_KERNEL else None
    layer = saved(shape, mode, short) * tokens
    layers = shape.layers * layer
    if profile.recompute:
        layers = shape.layers * tokens * shape.width * (2 if mode == "bfloat16" else 4) + layer
        if profile.recompute == "selective" and not short:  # what attention gives, and the statistics of its softmax
            layers += shape.layers * tokens * (shape.width * (4 if mode == "float32" else 2) + 4 * shape.heads)
    return Memory(4 * own + copies, 4 * own, 8 * own, layers, _loss(shape, mode, tokens))


def saved(shape: Shape, mode: Mode, short: int | None = None) -> int:
    """Bytes that a layer keeps of each token for its backward pass.

    With a fused attention kernel, or with the one for short rows of `short` tokens, which keeps all shares of attention.
    """
    d, f, k = shape.width, shape.ffn, shape.width // shape.heads * shape.kv_heads
    c = 4 if mode == "float32" else 2
    statistics = 8 + 4 * shape.heads  # of two norms, and of the attention's softmax
    if mode == "autocast":  # norms in float32; each of five matrices has its own rounded input
        return 16 * d + c * (7 * d + 2 * k + 4 * f) + statistics
    norms = 8 * d if mode == "float32" else 0  # in bfloat16 they are ours (`norm`), which keep nothing that others do not
    if short:
        pairs = sum(min(QUERIES, short - begin) * min(begin + QUERIES, short) for begin in range(0, short, QUERIES))
        return norms + c * (6 * d + 2 * k + 4 * f) + 8 + c * shape.heads * pairs // short
    again = c * d if mode == "bfloat16" else 0  # what SDPA gives lies as our rotary positions do, and is laid out anew
    return norms + again + c * (6 * d + 2 * k + 4 * f) + statistics


# logits in float32 that a CPU works on at once: they stay in its cache
CACHED = 1 << 18


def loss_rows(tokens: int, width: int) -> int:
    """Tokens of a block of the loss: half the width where that is more, so that its logits stay below the head's gradient.

    Each block rewrites all of that gradient, so that few tokens a block would cost time.
    """
    return min(tokens, max(ROWS, width // 2))


def _loss(shape: Shape, mode: Mode, tokens: int) -> int:
    """A block's logits, on a GPU in float32 as well, and the head's gradient, with a narrower copy if that is computed.

    A CPU that computes in bfloat16 lays out the head a second time (`Head.turned`).
    """
    gradient = {"float32": 4, "bfloat16": 4 + 2 + 2, "autocast": 4 + 2}[mode]
    each = {"float32": 4, "bfloat16": 2, "autocast": 6}[mode]
    return loss_rows(tokens, shape.width) * shape.vocab * each + shape.vocab * shape.width * gradient
