"""The shapes of the Llama family by name, and their arithmetic: parameters and operations per token.

Everything is worked out from the real layer shapes. Equation 2 of the paper (72 L d^2) is the special case of full
multi-head attention and a feed-forward width of 8/3; for the 67B model with grouped heads it says too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from alignment.errors import RecipeError
from alignment.recipe import Model


@dataclass(frozen=True)
class Shape:
    """A decoder in the paper's words: pre-norm, RMSNorm, SwiGLU of width `ffn`, rotary positions, no biases."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int = 102_400
    max_positions: int = 4096
    tie: bool = False
    rope_theta: float = 10_000.0
    kind: str = "llama"  # the library's name of the class

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads:
            raise RecipeError(
                f"model: width {self.width} must be a multiple of heads {self.heads}, "
                f"and heads a multiple of kv_heads {self.kv_heads}."
            )
        if self.width // self.heads % 2:
            raise RecipeError(f"model: width / heads = {self.width // self.heads} is odd; rotary positions need pairs.")


PRESETS = {
    "deepseek-llm-7b": Shape(30, 4096, 32, 32, 11008),  # paper, table 2
    "deepseek-llm-67b": Shape(95, 8192, 64, 8, 22016),
    # The ladder: called by its parameters without embeddings. As in the family, depth grows before width (width / layers
    # is 24 to 68; 136 and 86 above), the feed-forward width is 8/3, and the top shares keys and values among heads.
    "1b3": Shape(30, 2048, 16, 4, 5504, vocab=32_768),
    "400m": Shape(28, 1152, 9, 3, 3096, vocab=32_768),
    "200m": Shape(22, 896, 14, 14, 2408, vocab=32_768),
    "90m": Shape(18, 640, 10, 10, 1720, vocab=32_768, tie=True),
    "45m": Shape(14, 512, 8, 8, 1376, vocab=16_384, tie=True),
    "20m": Shape(12, 384, 6, 6, 1032, vocab=16_384, tie=True),
    "8m": Shape(10, 256, 4, 4, 688, vocab=8192, tie=True),
    "3m": Shape(8, 192, 3, 3, 516, vocab=8192, tie=True),
    "135m": Shape(30, 576, 9, 3, 1536, vocab=49_152, tie=True),  # SmolLM2's
    "quickstart": Shape(3, 128, 2, 2, 352, vocab=2048, max_positions=256, tie=True, rope_theta=100.0),  # short texts
}


def ffn(width: int) -> int:
    """The feed-forward width: 8/3 of the model's, rounded up to 43/16, which gives the paper's 11008 and 22016."""
    return -(-43 * width // 16)


def resolve(model: Model, vocab: int, max_positions: int) -> Shape:
    """Turn a recipe's model into a shape for this tokenizer and context. Explicit fields override the preset's."""
    if model.preset is None:
        if model.layers is None or model.width is None or model.heads is None:
            raise RecipeError("model: give preset, or layers, width and heads.")
        base = Shape(model.layers, model.width, model.heads, model.heads, ffn(model.width))
    elif model.preset in PRESETS:
        base = PRESETS[model.preset]
    else:
        raise RecipeError(f"model.preset: {model.preset!r} is not known. Presets: {', '.join(PRESETS)}.")
    given = {name: value for name, value in model.model_dump(exclude={"preset"}).items() if value is not None}
    if "ffn" not in given and "width" in given:
        given["ffn"] = ffn(model.width or base.width)
    return replace(base, **given, vocab=vocab, max_positions=max_positions)


def matrices(shape: Shape) -> int:
    """Parameters of the layers' matrices: what a token is multiplied with between embedding and output."""
    attention = 2 * shape.width**2 * (shape.heads + shape.kv_heads) // shape.heads
    return shape.layers * (attention + 3 * shape.width * shape.ffn)


def parameters(shape: Shape) -> int:
    """All parameters, embeddings and norms included."""
    norms = (2 * shape.layers + 1) * shape.width
    return matrices(shape) + norms + (1 if shape.tie else 2) * shape.vocab * shape.width


def flops_per_token(shape: Shape, sequence: int) -> int:
    """Non-embedding training operations per token, the paper's M: attention counted, vocabulary not (section 3.2)."""
    return 6 * matrices(shape) + 12 * shape.layers * shape.width * sequence
