"""Memory by part, against what torch keeps for the backward pass and what the model and its optimizer hold."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignment.hardware import SHORT_KERNEL, Profile
from alignment.models import attention, build, memory, norm, presets
from alignment.models.memory import Mode
from alignment.models.presets import PRESETS, Shape

ROOT = Path(__file__).parents[3]
SHAPE = Shape(1, 64, 4, 4, 172, vocab=128, max_positions=64)
ROWS, LENGTH = 2, 24  # no product of them is a side of a matrix


def kept(shape: Shape, mode: Mode, kernel: str = "sdpa", length: int = LENGTH) -> int:
    """Bytes that a pass through the decoder saves for its backward pass, weights and their rounded copies left out."""
    model = AutoModelForCausalLM.from_config(build.config(shape), attn_implementation=kernel).train()
    if mode == "bfloat16":
        norm.attach(model)
        attention.attach(model)
        model.bfloat16()
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    matrices = {tuple(p.shape)[::step] for p in model.parameters() if p.dim() == 2 for step in (1, -1)}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        copy_of_weight = mode == "autocast" and tuple(tensor.shape) in matrices
        if tensor.untyped_storage().data_ptr() not in known and not copy_of_weight:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    precision = torch.autocast("cpu", torch.bfloat16) if mode == "autocast" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        model.model(input_ids=torch.zeros(ROWS, length, dtype=torch.long), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("mode", ["float32", "bfloat16", "autocast"])
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_a_layer_keeps_what_we_count(mode: Mode, kv_heads: int) -> None:
    shape = replace(SHAPE, kv_heads=kv_heads)
    each = kept(replace(shape, layers=3), mode) - kept(shape, mode)
    assert each == 2 * ROWS * LENGTH * memory.saved(shape, mode)


@pytest.mark.parametrize("mode", ["float32", "bfloat16"])
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("length", [LENGTH, memory.QUERIES + 20])  # a block, and more than one
def test_the_kernel_for_short_rows_keeps_what_we_count(mode: Mode, kv_heads: int, length: int) -> None:
    shape = replace(SHAPE, kv_heads=kv_heads, max_positions=256)
    each = kept(replace(shape, layers=3), mode, SHORT_KERNEL, length) - kept(shape, mode, SHORT_KERNEL, length)
    assert each == pytest.approx(2 * ROWS * length * memory.saved(shape, mode, length), abs=2 * ROWS * length)


def test_weights_gradients_and_moments_are_float32_and_the_model_a_rounded_copy() -> None:
    found = memory.estimate(SHAPE, Profile(device="cpu", dtype="bfloat16", micro_tokens=64), 64, sharded=False)
    count = presets.parameters(SHAPE)
    assert (found.weights, found.gradients, found.optimizer) == (6 * count, 4 * count, 8 * count)
    assert found.total == 18 * count + found.activations + found.logits


def test_sharding_divides_what_does_not_depend_on_the_batch_and_recompute_what_does() -> None:
    shape = PRESETS["deepseek-llm-7b"]
    one, eight = (
        memory.estimate(shape, Profile(device="cuda", micro_tokens=4096, processes=n), 4096, sharded=n > 1) for n in (1, 8)
    )
    assert eight.optimizer == one.optimizer / 8
    assert eight.weights < one.weights / 4
    assert eight.activations == one.activations
    again = memory.estimate(shape, Profile(device="cuda", micro_tokens=4096, recompute=True), 4096, sharded=False)
    assert again.activations < one.activations / 8
    held = memory.estimate(shape, Profile(device="cuda", micro_tokens=4096, recompute="selective"), 4096, sharded=False)
    each = (held.activations - again.activations) / 4096 / shape.layers
    assert each == 2 * shape.width + 4 * shape.heads  # a rounded hidden state, and a number a head


def test_the_7b_does_not_fit_one_80_gb_gpu_and_fits_eight() -> None:
    shape = PRESETS["deepseek-llm-7b"]
    alone = memory.estimate(shape, Profile(device="cuda", micro_tokens=4096, recompute=True), 4096, sharded=False)
    eighth = Profile(device="cuda", micro_tokens=16384, recompute=True, processes=8)
    assert alone.total > 80e9 > memory.estimate(shape, eighth, 16384, sharded=True).total
