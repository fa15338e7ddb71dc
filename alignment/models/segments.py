"""Attention and head for sequences that lie one after the other in one row: nothing is padded, none sees another.

For training on a CPU. The layers multiply every token once; attention runs sequence by sequence and computes no block
that a mask would throw away. A sequence may begin with tokens of an earlier one, so that the two answers of a preference
pair share one pass over their prompt. Axes: N tokens of the row, L learnt tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from alignment.hardware import SHORT
from alignment.models.memory import CACHED

NAME = "segments"


class Segment(NamedTuple):
    """Tokens `start` to `stop` of the row, which go on from the `shared` tokens that begin at `before`."""

    start: int
    stop: int
    before: int = 0
    shared: int = 0


def use(model: PreTrainedModel) -> None:
    """Make a model attend by segments. From then on its forward pass needs `segments`, which tile the row in order."""
    AttentionInterface.register(NAME, attend)
    model.config._attn_implementation = NAME


def attend(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    segments: Sequence[Segment],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each segment and to what it goes on from; tensors are (1, heads, N, width of a head)."""
    assert attention_mask is None, f"a mask of shape {tuple(attention_mask.shape)} beside segments"  # type: ignore[union-attr]
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    found = []
    for one in segments:
        asked = query[:, :, one.start : one.stop]
        read, taken = (_piece(part, one) for part in (key, value))
        if read.shape[2] <= SHORT:
            found.append(_plain(asked, read, taken, scaling))
        elif one.shared:
            visible = _causal(asked.shape[2], read.shape[2], asked.device)
            found.append(F.scaled_dot_product_attention(asked, read, taken, attn_mask=visible, scale=scaling))
        else:
            found.append(F.scaled_dot_product_attention(asked, read, taken, is_causal=True, scale=scaling))
    return torch.cat(found, dim=2).transpose(1, 2), None


def _piece(part: torch.Tensor, one: Segment) -> torch.Tensor:
    own = part[:, :, one.start : one.stop]
    return torch.cat([part[:, :, one.before : one.before + one.shared], own], dim=2) if one.shared else own


def _plain(asked: torch.Tensor, read: torch.Tensor, taken: torch.Tensor, scaling: float) -> torch.Tensor:
    """Two products and a softmax, as in `attention`, and the backward pass left to torch."""
    scores = (asked * scaling) @ read.transpose(2, 3)
    hidden = ~_causal(asked.shape[2], read.shape[2], asked.device)
    return scores.masked_fill_(hidden, float("-inf")).softmax(-1) @ taken


def _causal(asked: int, read: int, device: torch.device) -> torch.Tensor:
    """Who sees what where the last asked token is the last one read."""
    return torch.ones(asked, read, dtype=torch.bool, device=device).tril(read - asked)


class LogProbs(torch.autograd.Function):
    """Log-probabilities of targets under `hidden @ weight.T`, float32, with logits kept in the dtype that computes.

    The library's way widens all logits to float32 several times over; here a few rows at a time are, inside the cache.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden_LD: torch.Tensor, weight_VD: torch.Tensor, targets_L: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probabilities, and whether the target is the likeliest token."""
        logits_LV = hidden_LD @ weight_VD.T
        hidden_LD, weight_VD = hidden_LD.to(logits_LV.dtype), weight_VD.to(logits_LV.dtype)  # as autocast multiplied them
        sums, best = [], []
        for rows_SV in logits_LV.split(_rows(logits_LV)):
            wide_SV = rows_SV.float()
            sums.append(wide_SV.logsumexp(1))
            best.append(wide_SV.argmax(1))
        sums_L, best_L = torch.cat(sums), torch.cat(best)
        ctx.save_for_backward(hidden_LD, weight_VD, targets_L, sums_L)
        ctx.logits = logits_LV
        right_L = best_L == targets_L
        ctx.mark_non_differentiable(right_L)
        return logits_LV.gather(1, targets_L.unsqueeze(1)).squeeze(1).float() - sums_L, right_L

    @staticmethod
    def backward(ctx: Any, slopes_L: torch.Tensor, _: torch.Tensor) -> Any:  # type: ignore[override]
        """Turn the logits into their gradient in place: they are used once."""
        hidden_LD, weight_VD, targets_L, sums_L = ctx.saved_tensors
        logits_LV: torch.Tensor = ctx.logits
        del ctx.logits
        size = _rows(logits_LV)
        parts = (part.split(size) for part in (logits_LV, targets_L, sums_L, slopes_L))
        for rows_SV, targets_S, sums_S, slopes_S in zip(*parts, strict=True):
            wide_SV = rows_SV.float().sub_(sums_S.unsqueeze(1)).exp_().mul_(-slopes_S.unsqueeze(1))
            rows_SV.copy_(wide_SV.scatter_add_(1, targets_S.unsqueeze(1), slopes_S.unsqueeze(1)))
        weight = logits_LV.T @ hidden_LD if ctx.needs_input_grad[1] else None
        return logits_LV @ weight_VD, weight, None


def _rows(logits_LV: torch.Tensor) -> int:
    return max(1, CACHED // logits_LV.shape[1])


def row(lengths: Sequence[int], shared: Sequence[int]) -> Iterator[Segment]:
    """Lay pairs of sequences into a row: the first whole, of the second what comes after the `shared` tokens.

    `lengths`: of all first ones, then of all second ones.
    """
    at = 0
    for first, second, same in zip(lengths[: len(shared)], lengths[len(shared) :], shared, strict=True):
        yield Segment(at, at + first)
        yield Segment(at + first, at + first + second - same, at, same)
        at += first + second - same
