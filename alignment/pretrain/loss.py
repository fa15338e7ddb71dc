"""Next-token loss that never holds the logits of all tokens at once.

Hidden states are multiplied with the vocabulary a block of tokens at a time, and each block leaves its share of both
gradients behind before the next one begins, as the report's in-place cross-entropy does (2.4). torch's
`linear_cross_entropy` works alike, but gives a bfloat16 model its loss in bfloat16, up to 1 part in 256 off, and knows
no z-loss (`benchmarks/loss_memory.py`).

Logits lie with the vocabulary first, which is how all three products run fastest on a CPU, and softmax is never divided by
its sums: hidden states and gradients, which are far smaller, take the factor. The axes: N tokens, C tokens of a block,
D width, V vocabulary, S some of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from alignment.models import build
from alignment.models.memory import CACHED, loss_rows

IGNORED = -100  # a target that is not scored
HARMLESS = 50.0  # logits up to here can be raised to a power of e, and summed, in float32 as they are


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
        turned_DV = head.turned()
        sums = torch.zeros(2, dtype=torch.float64, device=hidden_ND.device)
        for number, (hidden_CD, targets_C, gradient_CD) in enumerate(head.blocks(hidden_ND, targets_N, ctx.hidden)):
            (powers_VC, factor_C1, less_C1), block = head.learn(hidden_CD, targets_C, z)
            sums += block
            rows_C = targets_C.clamp(min=0)
            gradient_CD.copy_((turned_DV @ powers_VC).T * factor_C1 - head.weight[rows_C] * less_C1)
            scaled_CD = hidden_CD * factor_C1
            if step_VD is None:
                ctx.weight.addmm_(powers_VC, scaled_CD, beta=min(number, 1))  # the first block begins from nothing
            else:
                _add(ctx.weight, torch.mm(powers_VC, scaled_CD.to(head.dtype), out=step_VD), begun=number > 0)
            ctx.weight.index_add_(0, rows_C, hidden_CD * less_C1, alpha=-1)
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


class Scores(NamedTuple):
    """What softmax makes of the logits of a block."""

    powers_VC: torch.Tensor  # e to the power of each logit less a shift, which is the same for all rows of a token
    sum_C: torch.Tensor  # of these
    target_C: torch.Tensor  # the one of the target, float32
    log_sum_C: torch.Tensor  # of e to the logits themselves
    nats_C: torch.Tensor  # negative log-likelihood of the targets, zero where they are not scored


class Slopes(NamedTuple):
    """The gradient by the logits of a block: `factor` times `powers`, less `less` for the target."""

    powers_VC: torch.Tensor
    factor_C1: torch.Tensor
    less_C1: torch.Tensor


class Head:
    """The vocabulary's matrix and the memory of one block, which all blocks use in turn."""

    def __init__(self, weight_VD: torch.Tensor, hidden_ND: torch.Tensor) -> None:
        kind = hidden_ND.device.type
        self.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype
        self.weight = weight_VD.to(self.dtype)
        self.rows = loss_rows(len(hidden_ND), weight_VD.shape[1])
        self._slice = max(1, CACHED // self.rows) if kind == "cpu" else len(weight_VD)
        self._logits = hidden_ND.new_empty(len(weight_VD) * self.rows, dtype=self.dtype)
        self._wide = (
            None
            if self.dtype == torch.float32
            else self._logits.new_empty(min(self._slice, len(weight_VD)) * self.rows, dtype=torch.float32)
        )
        # no logit is beyond the product of the lengths; asking a GPU for them would mean to wait for it
        self._shifted = kind != "cpu" or not bool(_longest(hidden_ND) * _longest(weight_VD) <= HARMLESS)

    def turned(self) -> torch.Tensor:
        """The vocabulary's matrix (D, V): a CPU multiplies it in bfloat16 1.6 times as fast if it lies so."""
        turned_DV = self.weight.T
        return turned_DV.contiguous() if (self.weight.device.type, self.dtype) == ("cpu", torch.bfloat16) else turned_DV

    def blocks(self, hidden_ND: torch.Tensor, *more: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Cut tensors along their tokens; hidden states come in the dtype that computes."""
        for hidden_CD, *rest in zip(hidden_ND.split(self.rows), *(part.split(self.rows) for part in more), strict=True):
            yield hidden_CD.to(self.dtype), *rest

    def score(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor) -> Scores:
        """Softmax and loss of a block, float32 but for the powers, which a slice at a time is rounded to."""
        tokens = len(hidden_CD)
        out_VC = self._logits[: len(self.weight) * tokens].view(-1, tokens)
        powers_VC = torch.mm(self.weight, hidden_CD.T.contiguous(), out=out_VC)
        chosen_C = powers_VC[_places(targets_C)].float()
        shift_C = powers_VC.amax(0).float() if self._shifted else torch.zeros_like(chosen_C)
        sum_C = torch.zeros_like(chosen_C)
        for narrow_SC in powers_VC.split(self._slice):
            wide_SC = narrow_SC
            if self._wide is not None:
                wide_SC = self._wide[: narrow_SC.numel()].view_as(narrow_SC).copy_(narrow_SC)
            if self._shifted:
                wide_SC.sub_(shift_C)
            sum_C += wide_SC.exp_().sum(0)
            if self._wide is not None:
                narrow_SC.copy_(wide_SC)
        log_sum_C = sum_C.log() + shift_C
        nats_C = (log_sum_C - chosen_C) * (targets_C != IGNORED)
        return Scores(powers_VC, sum_C, torch.exp(chosen_C - shift_C), log_sum_C, nats_C)

    def learn(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor, z: float) -> tuple[Slopes, torch.Tensor]:
        """The gradient by the logits, and the loss of a block: without its z-term, and that alone.

        It is p (1 + 2 z log-sum), less 1 for the target. Of a likely target that is written among the powers, before they
        are rounded; from an unlikely one 1 is taken later, and exactly. A GPU would not add that up in one order twice.
        """
        powers_VC, sum_C, target_C, log_sum_C, nats_C = self.score(hidden_CD, targets_C)
        scored_C, more_C = targets_C != IGNORED, 2 * z * log_sum_C
        unlikely_C = scored_C & (2 * target_C < sum_C) & (sum_C.device.type == "cpu")
        powers_VC[_places(targets_C)] = (target_C - ~unlikely_C * sum_C / (1 + more_C)).to(self.dtype)
        factor_C = scored_C * (1 + more_C) / sum_C
        block = torch.stack([nats_C.double().sum(), z * (log_sum_C * scored_C).double().square().sum()])
        return Slopes(powers_VC, factor_C.unsqueeze(1), unlikely_C.float().unsqueeze(1)), block


def _places(targets_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of each target; of one that is not scored, any. `scatter_` would copy all logits twice."""
    return targets_C.clamp(min=0), torch.arange(len(targets_C), device=targets_C.device)


def _longest(rows: torch.Tensor) -> torch.Tensor:
    """The length of the longest row."""
    return torch.linalg.vector_norm(rows, dim=-1).max()


@torch.no_grad()
def per_token(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target (N), float32; zero where it is not scored."""
    head = Head(weight_VD, hidden_ND)
    return torch.cat([head.score(*block).nats_C for block in head.blocks(hidden_ND, targets_N)])


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
