"""What an update does with its gradients."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from torch import nn

from alignment import recipe
from alignment.pretrain import learner
from alignment.pretrain.guard import Guard
from tests import tiny

OPTIM = recipe.PretrainOptim(learning_rate=1e-3)


def test_passes_add_up_in_float32_where_bfloat16_would_lose_them() -> None:
    """The report (2.4) accumulates in float32. In bfloat16 a sum stops growing at 256 times what is added."""
    passes, draw = 512, torch.Generator().manual_seed(0)
    inputs = torch.rand(passes, 16, generator=draw).bfloat16()
    ours, theirs = nn.Linear(16, 4, bias=False), nn.Linear(16, 4, bias=False).bfloat16()
    optimizer = learner.masters(ours, OPTIM, torch.bfloat16)
    for row in inputs:
        ours(row).sum().backward()
        optimizer.collect()
        theirs(row).sum().backward()  # bfloat16 gradients add up where they are
    exact = inputs.double().sum(0).expand(4, 16)
    found = optimizer.masters()[0].grad
    assert found is not None
    assert theirs.weight.grad is not None
    assert (found - exact).norm() < 1e-5 * exact.norm()
    assert (theirs.weight.grad - exact).norm() > 0.02 * exact.norm()


def test_matrices_decay_and_norms_do_not() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    matrices, vectors = learner.adamw(model, OPTIM).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert {tensor.dim() for tensor in matrices["params"]} == {2}
    assert {tensor.dim() for tensor in vectors["params"]} == {1}
    assert matrices["betas"] == (0.9, 0.95)


class Asked(nn.Module):
    """Remembers what a forward pass was asked."""

    def forward(self, **words: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.words = words
        return torch.zeros(()), torch.zeros(())


@pytest.mark.parametrize("kernel", ["sdpa", "flash_attention_2", "kernels-community/flash-attn2"])
def test_kernels_that_cut_documents_in_a_single_row_get_a_single_row(kernel: str) -> None:
    words = {"stage": "pretrain", "data": "shards", "model": {"preset": "3m"}, "tokens": 8, "optim": {"learning_rate": 1e-3}}
    told = recipe.Pretrain.model_validate({**words, "batch_size": 2, "sequence_length": 4, "attend_across_documents": False})
    model, machine = Asked(), replace(tiny.CPU, attention=kernel)
    learns = learner.Learner(told, machine, Accelerator(cpu=True), model, None, 7, Guard(told.guard))
    learns._forward(np.array([[7, 1, 2, 7, 3], [7, 4, 7, 5, 6]]))
    found = {name: model.words[name].tolist() for name in ("input_ids", "targets", "position_ids")}
    rows = {
        "input_ids": [[7, 1, 2, 7], [7, 4, 7, 5]],
        "targets": [[1, 2, 7, 3], [4, 7, 5, 6]],
        "position_ids": [[0, 1, 2, 0], [0, 1, 0, 1]],
    }
    assert found == (rows if kernel == "sdpa" else {name: [lines[0] + lines[1]] for name, lines in rows.items()})


def test_sharded_gradients_are_summed_in_float32() -> None:
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.set_mixed_precision("bf16")
    learner.keep_float32(SimpleNamespace(is_fsdp2=True, state=SimpleNamespace(fsdp_plugin=plugin)))  # type: ignore[arg-type]
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, torch.float32)
