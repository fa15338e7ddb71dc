"""The lean forward against transformers' own: the same logits, with and without grouped heads, biases and prefixes."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.generate import forward, linear
from alignment.generate.linear import Linear
from alignment.generate.llama import Llama, supports

TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}


def model(kv_heads: int = 2, **words) -> LlamaForCausalLM:
    torch.manual_seed(kv_heads)
    shape = {
        "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": kv_heads, "max_position_embeddings": 128,
    }  # fmt: skip
    built = LlamaForCausalLM(LlamaConfig(**shape | words)).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)  # norms and biases too
    return built


def ids(count: int, seed: int = 0) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(96) for _ in range(count)]


def logits(plain: LlamaForCausalLM, tokens: list[int]) -> torch.Tensor:
    return plain(torch.tensor([tokens]), use_cache=False).logits[0]


@pytest.mark.parametrize(
    "words",
    [
        {"kv_heads": 4}, {"kv_heads": 2}, {"kv_heads": 1}, {"attention_bias": True, "mlp_bias": True},
        {"tie_word_embeddings": True}, {"head_dim": 20}, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
    ids=str,
)  # fmt: skip
@torch.inference_mode()
def test_logits_equal_transformers_with_and_without_a_prefix(words):
    plain = model(**words)
    lean = forward.of(plain)
    assert isinstance(lean, Llama)
    shared, tails = ids(30), [ids(n, seed=n) for n in (1, 9, 4)]
    prefixes = [(None, [])]
    prefixes += [(lean.read(shared), shared), (lean.read(shared[20:], lean.read(shared[:20])), shared)]
    for prefix, before in prefixes:
        hidden, _ = lean.rows(prefix, tails)
        ours = lean.logits(hidden).split([len(tail) for tail in tails])
        for mine, tail in zip(ours, tails, strict=True):
            torch.testing.assert_close(mine, logits(plain, before + tail)[len(before) :], **TOLERANCE)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("shared", [[], ids(17)], ids=["alone", "behind a prefix"])
@torch.inference_mode()
def test_steps_equal_transformers_while_rows_come_and_go(shared, width):
    plain = model()
    lean = forward.of(plain)
    prefix = lean.read(shared) if shared else None
    slots = lean.slots(prefix, 4, 40)
    rows = [ids(n, seed=n) for n in (5, 2, 7, 3)]
    for part in (rows[:3], rows[3:]):
        _, kept = lean.rows(prefix, part, keep=True)
        ends = [sum(len(row) for row in part[: i + 1]) for i in range(len(part))]
        spans = [slice(end - len(row), end) for end, row in zip(ends, part, strict=True)]
        slots.fill(kept, list(range(len(part))), spans)
    for step in range(6):
        new = [ids(width, seed=100 * step + i) for i in range(len(rows))]
        hidden = slots.step(torch.tensor(new))
        keep = [1 + (step + i) % width for i in range(len(rows))]  # as if some guesses had been wrong
        for i, (row, fed) in enumerate(zip(rows, new, strict=True)):
            whole = logits(plain, shared + row + fed)[-width:]
            torch.testing.assert_close(lean.logits(hidden[i]), whole, **TOLERANCE)
        rows = [row + fed[:count] for row, fed, count in zip(rows, new, keep, strict=True)]
        slots.grow(keep)
        if step == 2:
            order = slots.keep([True, False, True, True])
            assert sorted(order) == [0, 2, 3]
            rows = [rows[i] for i in order]


@torch.inference_mode()
def test_a_long_prefix_is_read_in_pieces(monkeypatch):
    plain = model()
    lean = forward.of(plain)
    monkeypatch.setattr(lean, "pass_tokens", 7)
    shared, tail = ids(40), ids(5, seed=1)
    hidden, _ = lean.rows(lean.read(shared), [tail])
    torch.testing.assert_close(lean.logits(hidden), logits(plain, shared + tail)[40:], **TOLERANCE)


@pytest.mark.parametrize(
    "words",
    [
        {"hidden_act": "gelu"}, {"model_type": "mistral"},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_lean_forward_does_not_compute_is_left_to_transformers(words):
    config = LlamaConfig()
    assert supports(config)
    for name, value in words.items():
        setattr(config, name, value)
    assert not supports(config)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 33, 300])
@torch.inference_mode()
def test_packed_products_equal_plain_ones(rows, bias, monkeypatch):
    torch.manual_seed(rows)
    weight, add, x = torch.randn(70, 50), torch.randn(70) if bias else None, torch.randn(rows, 50)
    packed = Linear(weight, add)
    monkeypatch.setattr(linear, "can_pack", lambda _: False)
    plain = Linear(weight, add)
    assert not plain.packed
    assert packed.packed == (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    torch.testing.assert_close(packed(x), plain(x), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(packed(x[None]), plain(x)[None], atol=1e-4, rtol=1e-5)
