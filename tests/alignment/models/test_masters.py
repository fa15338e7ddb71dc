"""Float32 masters: plain AdamW where nothing is rounded, and no update lost where the model is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from alignment.models.masters import MasterAdamW
from alignment.pretrain.loss import LinearCrossEntropy


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, clip: float | None = None) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(32, 8, generator=generator).to(next(model.parameters()).dtype)
        model(inputs).float().square().mean().backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()


def test_in_float32_it_is_adamw_with_clipping() -> None:
    ours, theirs = network(), network()
    groups = [
        {"params": [p for p in theirs.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    learn(ours, MasterAdamW(ours, torch.float32, clip=0.5, weight_decay=0.1, lr=1e-2), 20)
    learn(theirs, torch.optim.AdamW(groups, lr=1e-2, fused=True), 20, clip=0.5)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_updates_below_the_rounding_of_bfloat16_add_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = MasterAdamW(model, torch.bfloat16, clip=1.0, weight_decay=0.0, lr=1e-4)
    for _ in range(100):
        model.weight.grad = torch.ones(1, 1, dtype=torch.bfloat16)
        optimizer.step()
    optimizer.restore()
    assert model.weight.item() == pytest.approx(1 - 100 * 1e-4, abs=1e-4)  # 1e-4 is lost in bfloat16 at 1.0


@pytest.mark.parametrize("tied", [False, True])
def test_a_gradient_that_is_made_in_float32_is_not_rounded(tied: bool) -> None:
    embedding, head = nn.Embedding(40, 8), nn.Linear(8, 40, bias=False)
    if tied:
        head.weight = embedding.weight
    model = nn.ModuleList([embedding, head])
    optimizer = MasterAdamW(model, torch.bfloat16, weight_decay=0.0, lr=1e-2)
    tokens = torch.arange(40)
    total, _ = LinearCrossEntropy.apply(embedding(tokens), head.weight, tokens.flip(0), 0.0)
    (total / 3).backward()
    optimizer.collect()
    gradient = optimizer.masters()[-1].grad
    assert gradient.dtype == torch.float32
    assert not torch.equal(gradient, gradient.bfloat16().float())


def test_passes_collected_one_by_one_give_the_gradient_of_the_whole() -> None:
    whole, parts = network(), network()
    inputs = torch.randn(32, 8)
    one, many = (MasterAdamW(m, torch.float32, clip=9.0, weight_decay=0.0, lr=1e-2) for m in (whole, parts))
    whole(inputs).square().sum().backward()
    for part in inputs.split(4):
        parts(part).square().sum().backward()
        many.collect()
    one.step()
    many.step()
    assert one.norm == pytest.approx(many.norm, rel=1e-5)
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_the_state_goes_on_where_it_stopped() -> None:
    model = network()
    optimizer = MasterAdamW(model, torch.bfloat16, clip=1.0, weight_decay=0.1, lr=1e-2)
    learn(model, optimizer, 5)
    state = copy.deepcopy(optimizer.state_dict())
    again = network()
    resumed = MasterAdamW(again, torch.bfloat16, clip=1.0, weight_decay=0.1, lr=1e-2)
    resumed.load_state_dict(state)
    learn(model, optimizer, 5)
    learn(again, resumed, 5)
    for mine, other in zip(optimizer.masters(), resumed.masters(), strict=True):
        assert torch.equal(mine, other)
