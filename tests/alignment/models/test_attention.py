"""Attention for short rows and its rotary positions, against SDPA, the library's layer and float32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from alignment.errors import ModelError
from alignment.hardware import SHORT_KERNEL, Hardware
from alignment.models import attention, build, presets
from alignment.models.attention import Rotary, short
from alignment.models.memory import QUERIES

ROWS, HEADS, KEYS, WIDTH = 3, 6, 2, 10
LENGTHS = (20, QUERIES, 2 * QUERIES + 7)  # a part of a block, a block, and two with a part of a third
MODULE = SimpleNamespace(training=True, config=SimpleNamespace(model_type="llama"))


def drawn(length: int, values: int = WIDTH) -> list[torch.Tensor]:
    """Queries, keys and values in bfloat16, laid out as the library does; `values`: their width."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((ROWS, length, heads, width) for heads, width in ((HEADS, WIDTH), (KEYS, WIDTH), (KEYS, values)))
    return [torch.randn(size, generator=draw).bfloat16().transpose(1, 2) for size in sizes]


def padded(length: int) -> torch.Tensor:
    """Causal, and rows of different lengths: True is seen."""
    seen = torch.ones(length, length, dtype=torch.bool).tril().repeat(ROWS, 1, 1, 1)
    seen[1, :, :, length // 2 :] = False
    return seen


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [True, False])
def test_in_bfloat16_it_is_as_near_to_float32_as_the_kernel_it_stands_for(length: int, masked: bool) -> None:
    draw = torch.randn(ROWS, HEADS, length, WIDTH, generator=torch.Generator().manual_seed(1))
    seen = padded(length) if masked else None

    def passed(dtype: torch.dtype, fused: bool) -> list[torch.Tensor]:
        inputs = [part.to(dtype).requires_grad_() for part in drawn(length)]
        if fused:
            out = F.scaled_dot_product_attention(*inputs, attn_mask=seen, is_causal=not masked, enable_gqa=True)
        else:
            out = short(MODULE, *inputs, seen, WIDTH**-0.5)[0].transpose(1, 2)
        return [out.detach().float(), *(part.float() for part in torch.autograd.grad(out, inputs, draw.to(dtype)))]

    exact = passed(torch.float32, fused=True)
    for ours, theirs, wanted in zip(passed(torch.bfloat16, False), passed(torch.bfloat16, True), exact, strict=True):
        assert (ours - wanted).norm() <= 2 * (theirs - wanted).norm() < 0.02 * wanted.norm()
    for ours, wanted in zip(passed(torch.float32, False), exact, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_values_may_be_narrower_as_in_deepseek_v3() -> None:
    inputs = [part.float().requires_grad_() for part in drawn(LENGTHS[-1], values=WIDTH - 4)]
    found = []
    ours = short(MODULE, *inputs, None, WIDTH**-0.5)[0].transpose(1, 2)
    for out in (ours, F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)):
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("masked", [True, False])
def test_what_a_compiler_gets_computes_the_same(masked: bool) -> None:
    inputs = [part.float().requires_grad_() for part in drawn(LENGTHS[-1])]
    seen = padded(LENGTHS[-1]) if masked else None
    found = []
    for way in (attention.Attention.apply, attention._plain):
        out = way(*inputs, seen, 0.5)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_row_that_sees_nothing_gives_numbers() -> None:
    inputs = [part.requires_grad_() for part in drawn(20)]
    seen = padded(20)
    seen[2, :, :3] = False
    out = short(MODULE, *inputs, seen, 1.0)[0]
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(part.grad).all() for part in inputs)


def test_under_autocast_positions_may_leave_queries_wider_than_values() -> None:
    query, key, value = drawn(20)
    inputs = [query.float().requires_grad_(), key.float().requires_grad_(), value.requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        out = short(MODULE, *inputs, None, 1.0)[0]
    assert out.dtype == torch.bfloat16
    out.sum().backward()  # outside of autocast, as training does
    assert all(torch.isfinite(part.grad).all() for part in inputs)


def test_a_compiler_is_left_to_its_own_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = drawn(20)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(attention.Attention, "apply", lambda *_: pytest.fail("the kernel by hand was called"))
    short(MODULE, query, key, value, None, 1.0)


def test_dropout_takes_shares_away_and_raises_the_others() -> None:
    query, key, _ = drawn(LENGTHS[-1])
    ones = torch.ones_like(key)
    torch.manual_seed(0)
    assert torch.all(short(MODULE, query, key, ones, None, 1.0)[0].float().sub(1).abs() < 0.02)
    out = short(MODULE, query.requires_grad_(), key, ones, None, 1.0, dropout=0.5)[0].float()
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert set(out[:, 0].unique().tolist()) == {0.0, 2.0}  # the first position has one share
    out.sum().backward()
    assert query.grad is not None


def test_it_refuses_what_it_would_leave_out() -> None:
    with pytest.raises(ModelError, match="llama: its softcap needs a kernel of its own"):
        short(MODULE, *drawn(20), None, 1.0, softcap=30.0)


def test_it_refuses_a_cache_and_what_looks_ahead() -> None:
    query, key, value = drawn(20)
    with pytest.raises(ModelError, match="is for training and reads no cache"):
        short(MODULE, query[:, :, 4:], key, value, None, 1.0)
    ahead = SimpleNamespace(config=MODULE.config, training=True, is_causal=False)
    with pytest.raises(ModelError, match="attention to what comes later"):
        short(ahead, query, key, value, None, 1.0)


@pytest.mark.parametrize("rows", [1, ROWS])
def test_positions_turn_as_the_librarys_do(rows: int) -> None:
    """`rows`: one set of positions for all rows, or a set for each, as packed documents have."""
    draw = torch.Generator().manual_seed(0)
    angles = 6 * torch.rand(rows, 20, WIDTH // 2, generator=draw).repeat(1, 1, 2)
    given, by_out = torch.randn(ROWS, 20, HEADS, WIDTH, generator=draw), torch.randn(ROWS, HEADS, 20, WIDTH, generator=draw)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, cos, sin = (part.to(dtype) for part in (given.clone(), angles.cos(), angles.sin()))
        x.requires_grad_()
        for name, out in (
            ("ours", Rotary.apply(x, cos, sin)),
            ("theirs", apply_rotary_pos_emb(x.transpose(1, 2), x.transpose(1, 2), cos, sin)[0]),
        ):
            found[name, dtype] = [out.detach(), *torch.autograd.grad(out, x, by_out.to(dtype))]
    exact = found["theirs", torch.float32]
    for ours, wanted in zip(found["ours", torch.float32], exact, strict=True):
        torch.testing.assert_close(ours, wanted)
    for ours, theirs, wanted in zip(found["ours", torch.bfloat16], found["theirs", torch.bfloat16], exact, strict=True):
        assert (ours - wanted).norm() <= (theirs - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("told", ["nothing", "padding", "padding before", "documents"])
def test_a_model_with_both_learns_as_the_librarys(keys: int, told: str) -> None:
    length = QUERIES + 20
    settings = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=keys,
    )
    theirs = AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa")
    ours = AutoModelForCausalLM.from_config(settings, attn_implementation=SHORT_KERNEL)
    ours.load_state_dict(theirs.state_dict())
    attention.attach(ours)
    real = torch.ones(ROWS, length, dtype=torch.long)
    real[1, 50:] = 0
    if told == "padding before":
        real = real.flip(1)
    places = torch.cat([torch.arange(60), torch.arange(length - 60)]).expand(ROWS, length)
    words = {
        "nothing": {},
        "padding": {"attention_mask": real},
        "padding before": {"attention_mask": real},
        "documents": {"position_ids": places},
    }[told]
    ids = torch.randint(0, 64, (ROWS, length), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(real == 0, -100)
    found = [learnt(model, ids, labels, words) for model in (ours, theirs)]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def learnt(
    model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, words: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    """The loss and all gradients."""
    loss = model(ids, labels=labels, use_cache=False, **words).loss
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def test_with_a_cache_the_layer_is_the_librarys() -> None:
    settings = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    model = AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa").eval()
    ids = torch.arange(12).unsqueeze(0)
    expected = model(ids, use_cache=False).logits[:, 8:]
    attention.attach(model)
    begun = model(ids[:, :8], use_cache=True).past_key_values
    torch.testing.assert_close(model(ids[:, 8:], past_key_values=begun).logits, expected)


def test_training_on_a_cpu_in_bfloat16_uses_both() -> None:
    shape = presets.Shape(1, 64, 2, 2, 128, vocab=64, max_positions=64)
    for dtype, ours in (("bfloat16", True), ("float32", False)):
        model = AutoModelForCausalLM.from_config(build.config(shape))
        build.prepare(model, Hardware("cpu", "cpu", dtype, "a test", SHORT_KERNEL, 64, False, 1, 1))
        assert (model.model.layers[0].self_attn.forward.__func__ is attention._forward) is ours
