"""Next-token loss that never holds the logits of all tokens at once.

Hidden states are multiplied with the vocabulary a block of rows at a time, and each block leaves its share of both
gradients behind before the next one begins, as the report's in-place cross-entropy does (2.4). torch's
`linear_cross_entropy` works alike, but gives a bfloat16 model its loss in bfloat16, up to 1 part in 256 off, and knows
no z-loss (`benchmarks/loss_memory.py`). The axes: N tokens, C tokens of a block, S of a slice of it, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from alignment.models import build
from alignment.models.memory import CACHED, loss_rows

IGNORED = -100  # a target that is not scored


class LinearCrossEntropy(torch.autograd.Function):
    """Summed loss of `hidden @ weight.T` against targets, with both gradients computed on the way forward."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, z: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss with its z-term, and without it; sums over tokens, float32."""
        head = Head(weight_VD, hidden_ND)
        ctx.hidden, ctx.weight = torch.empty_like(hidden_ND), torch.empty_like(weight_VD, dtype=torch.float32)
        step_VD = torch.empty_like(head.weight) if head.dtype != torch.float32 else None
        sums = torch.zeros(2, dtype=torch.float64, device=hidden_ND.device)
        for number, (hidden_CD, targets_C, gradient_CD) in enumerate(head.blocks(hidden_ND, targets_N, ctx.hidden)):
            block, share_CV = head.learn(hidden_CD, targets_C, z)
            sums += block
            gradient_CD.copy_(share_CV @ head.weight)
            if step_VD is None:
                ctx.weight.addmm_(share_CV.T, hidden_CD, beta=min(number, 1))  # the first block begins from nothing
            else:
                _add(ctx.weight, torch.mm(share_CV.T, hidden_CD, out=step_VD), begun=number > 0)
        nats = sums[0].float()
        ctx.mark_non_differentiable(nats)
        return sums.sum().float(), nats

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, _: torch.Tensor) -> Any:  # type: ignore[override]
        """Scale the gradients in place: they are used once. That of the weight stays float32 if its owner takes it so."""
        hidden, weight = ctx.hidden, ctx.weight
        del ctx.hidden, ctx.weight
        return hidden.mul_(scale), weight.mul_(scale), None, None


def _add(total_VD: torch.Tensor, step_VD: torch.Tensor, *, begun: bool) -> None:
    """Add a narrower matrix to a total, or begin one. A few rows at a time: torch widens a copy of what it adds."""
    rows = max(1, CACHED // total_VD.shape[1]) if total_VD.device.type == "cpu" else len(total_VD)
    for total, step in zip(total_VD.split(rows), step_VD.split(rows), strict=True):
        total.add_(step) if begun else total.copy_(step)


class Head:
    """The vocabulary's matrix and the memory of one block, which all blocks use in turn."""

    def __init__(self, weight_VD: torch.Tensor, hidden_ND: torch.Tensor) -> None:
        kind = hidden_ND.device.type
        self.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype
        self.weight = weight_VD.to(self.dtype)
        self.rows = loss_rows(len(hidden_ND), weight_VD.shape[1])
        self._logits = hidden_ND.new_empty(self.rows, len(weight_VD), dtype=self.dtype)
        self._slice = max(1, CACHED // len(weight_VD)) if kind == "cpu" else self.rows
        self._wide = (
            None
            if self.dtype == torch.float32
            else self._logits.new_empty(min(self._slice, self.rows), len(weight_VD), dtype=torch.float32)
        )

    def blocks(self, hidden_ND: torch.Tensor, *more: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Cut tensors along their tokens; hidden states come in the dtype that computes."""
        for hidden_CD, *rest in zip(hidden_ND.split(self.rows), *(part.split(self.rows) for part in more), strict=True):
            yield hidden_CD.to(self.dtype), *rest

    def nats(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood of each target, float32; zero where it is not scored."""
        return torch.cat([self._nats(wide, part)[0] for wide, _, part in self._slices(hidden_CD, targets_C)])

    def learn(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor, z: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The summed loss of a block without and with its z-term alone, and its gradient by the logits (C, V)."""
        sums = torch.zeros(2, dtype=torch.float64, device=hidden_CD.device)
        for wide_SV, narrow_SV, targets_S in self._slices(hidden_CD, targets_C):
            nats_S, log_sum_S, sum_S = self._nats(wide_SV, targets_S)
            sums += torch.stack([nats_S.sum(), z * log_sum_S.square().sum()])
            scored_S = (targets_S != IGNORED).float()
            wide_SV.mul_((scored_S * (1 + 2 * z * log_sum_S) / sum_S).unsqueeze(1))
            wide_SV.scatter_add_(1, targets_S.clamp(min=0).unsqueeze(1), -scored_S.unsqueeze(1))
            if wide_SV is not narrow_SV:
                narrow_SV.copy_(wide_SV)
        return sums, self._logits[: len(hidden_CD)]

    def _slices(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Logits of a few tokens in float32, their place in the block, and their targets."""
        logits_CV = torch.mm(hidden_CD, self.weight.T, out=self._logits[: len(hidden_CD)])
        for narrow_SV, targets_S in zip(logits_CV.split(self._slice), targets_C.split(self._slice), strict=True):
            yield narrow_SV if self._wide is None else self._wide[: len(narrow_SV)].copy_(narrow_SV), narrow_SV, targets_S

    @staticmethod
    def _nats(wide_SV: torch.Tensor, targets_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Negative log-likelihood and log-sum of the logits, 0 where not scored, and sums; leaves exp(logit - highest)."""
        scored_S = targets_S != IGNORED
        chosen_S = wide_SV.gather(1, targets_S.clamp(min=0).unsqueeze(1)).squeeze(1)
        highest_S = wide_SV.amax(1)
        sum_S = wide_SV.sub_(highest_S.unsqueeze(1)).exp_().sum(1)
        log_sum_S = highest_S + sum_S.log()
        return (log_sum_S - chosen_S) * scored_S, log_sum_S * scored_S, sum_S


@torch.no_grad()
def per_token(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target (N), float32; zero where it is not scored."""
    head = Head(weight_VD, hidden_ND)
    return torch.cat([head.nats(*block) for block in head.blocks(hidden_ND, targets_N)])


def attach(model: PreTrainedModel) -> None:
    """Make a model's forward pass end in its loss. Whatever wraps it (DDP, FSDP, autocast) then covers the head too.

    Raises ModelError where the logits are more than hidden states times the head.
    """
    build.check_logits(model.config)
    model.forward = MethodType(_forward, model)


def _forward(
    self: Any,
    input_ids: torch.Tensor,
    targets: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    *,
    z: float = 0.0,
) -> Any:
    """Training: the summed loss with and without z-term. Evaluation: nats (B, T), or the last logits without targets.

    No mask and no cache: packed documents rely on it.
    """
    hidden_BTD = self.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
    head: nn.Linear = self.get_output_embeddings()
    if targets is None:
        last_BV: torch.Tensor = head(hidden_BTD[:, -1]).float()
        return last_BV
    hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets.flatten()
    if self.training:
        return LinearCrossEntropy.apply(hidden_ND, head.weight, targets_N, z)
    return per_token(hidden_ND, head.weight, targets_N).view_as(targets)
