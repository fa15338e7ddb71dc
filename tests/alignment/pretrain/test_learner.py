"""What an update does with its gradients."""

from __future__ import annotations

import torch
from torch import nn

from alignment import recipe
from alignment.pretrain import learner

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
