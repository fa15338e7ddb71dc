"""Attention for short rows that are trained on a CPU: two products and a softmax, registered with the library as `short`.

SDPA's kernel saves memory, and its backward pass costs a CPU seven times its forward pass; the library's `eager` widens
all scores to float32 and computes the half that no one may see. Here queries go block by block, each to the keys up to
its end, and both passes are by hand (`benchmarks/attention_on_cpu.py`). Softmax of bfloat16 computes in float32 anyway.

`Rotary` turns queries and keys by their position with fewer trips through memory, and lays them out as the products read
them. The axes: B rows, H heads, K heads of keys, T positions, D width of a head, Q queries of a block, P what they see.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, eager_attention_forward

from alignment.errors import ModelError
from alignment.hardware import SHORT_KERNEL
from alignment.models.memory import QUERIES


class Attention(torch.autograd.Function):
    """softmax(scaling Q K^T) V where each position sees itself and those before it, less what a mask hides."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query_BHTD: torch.Tensor,
        key_BKTD: torch.Tensor,
        value_BKTD: torch.Tensor,
        seen_BTT: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        """Return what is attended to (B, H, T, D). The mask hides the future itself; it is read up to a block's end."""
        groups = query_BHTD.shape[1] // key_BKTD.shape[1]
        query_NTD = (query_BHTD * scaling).reshape(-1, *query_BHTD.shape[2:])
        key_NTD, value_NTD = _each_head(key_BKTD, groups), _each_head(value_BKTD, groups)
        out_NTD = query_NTD.new_empty(*query_NTD.shape[:2], value_NTD.shape[2])  # values may be of another width
        kept = []
        for begin in range(0, query_NTD.shape[1], QUERIES):
            block = query_NTD[:, begin : begin + QUERIES]
            end = begin + block.shape[1]
            scores_NQP = torch.bmm(block, key_NTD[:, :end].transpose(1, 2))
            _hide(scores_NQP, begin, None if seen_BTT is None else seen_BTT[:, :, begin:end, :end])
            kept.append(torch.softmax(scores_NQP, dim=-1))
            out_NTD[:, begin:end] = torch.bmm(kept[-1], value_NTD[:, :end])
        ctx.scaling, ctx.groups = scaling, groups
        ctx.save_for_backward(query_NTD, key_BKTD, value_BKTD, *kept)
        return out_NTD.view(*query_BHTD.shape[:3], -1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient_BHTD: torch.Tensor) -> Any:  # type: ignore[override]
        """From the last block to the first: that of all keys is written first, and the others add to it."""
        query_NTD, key_BKTD, value_BKTD, *kept = ctx.saved_tensors
        key_NTD, value_NTD = _each_head(key_BKTD, ctx.groups), _each_head(value_BKTD, ctx.groups)
        gradient_NTD = gradient_BHTD.flatten(0, 1)
        by_query_NTD = torch.empty_like(query_NTD)
        by_key_NTD = by_value_NTD = None
        for number, shares_NQP in reversed(list(enumerate(kept))):
            begin, end = number * QUERIES, shares_NQP.shape[2]
            gradient_NQD = gradient_NTD[:, begin:end]
            by_shares_NQP = torch.bmm(gradient_NQD, value_NTD[:, :end].transpose(1, 2))
            by_scores_NQP = torch._softmax_backward_data(by_shares_NQP, shares_NQP, -1, shares_NQP.dtype)
            by_query_NTD[:, begin:end] = torch.bmm(by_scores_NQP, key_NTD[:, :end])
            by_key_NPD = torch.bmm(by_scores_NQP.transpose(1, 2), query_NTD[:, begin:end])
            by_value_NPD = torch.bmm(shares_NQP.transpose(1, 2), gradient_NQD)
            if by_key_NTD is None or by_value_NTD is None:
                by_key_NTD, by_value_NTD = by_key_NPD, by_value_NPD
            else:
                by_key_NTD[:, :end] += by_key_NPD
                by_value_NTD[:, :end] += by_value_NPD
        assert by_key_NTD is not None, "a row of no tokens"
        assert by_value_NTD is not None
        by_key_BKTD, by_value_BKTD = (
            part.view(*key_BKTD.shape[:2], ctx.groups, *part.shape[1:]).sum(2) for part in (by_key_NTD, by_value_NTD)
        )
        by_query_BHTD = by_query_NTD.mul_(ctx.scaling).view(len(key_BKTD), -1, *query_NTD.shape[1:])
        return by_query_BHTD, by_key_BKTD, by_value_BKTD, None, None


def _plain(
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    seen_BTT: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """The same in one block, with the backward pass left to torch."""
    groups = query_BHTD.shape[1] // key_BKTD.shape[1]
    key_BHTD, value_BHTD = repeat_kv(key_BKTD, groups), repeat_kv(value_BKTD, groups)
    scores_BHTT = torch.matmul(query_BHTD * scaling, key_BHTD.transpose(2, 3))
    if seen_BTT is None:
        length = scores_BHTT.shape[2]
        seen_BTT = torch.ones(length, length, dtype=torch.bool, device=scores_BHTT.device).tril()
    least = torch.finfo(scores_BHTT.dtype).min
    shares_BHTT = torch.softmax(scores_BHTT.masked_fill(~seen_BTT, least), dim=-1)
    return torch.matmul(F.dropout(shares_BHTT, dropout), value_BHTD)


def _each_head(part_BKTD: torch.Tensor, groups: int) -> torch.Tensor:
    """Keys or values once for each head of the queries, rows and heads as one axis."""
    return repeat_kv(part_BKTD, groups).reshape(-1, *part_BKTD.shape[2:])


def _hide(scores_NQP: torch.Tensor, begin: int, seen_BQP: torch.Tensor | None) -> None:
    """Lower the scores of what a block of queries, which begins at a position, does not see."""
    if seen_BQP is not None:  # a row that sees nothing gets equal shares, where minus infinity would give none
        least = torch.finfo(scores_NQP.dtype).min
        scores_NQP.view(len(seen_BQP), -1, *scores_NQP.shape[1:]).masked_fill_(~seen_BQP, least)
        return
    future_QQ = torch.full_like(scores_NQP[0, :, begin:], float("-inf")).triu_(1)
    scores_NQP[:, :, begin:].add_(future_QQ)


def short(
    module: nn.Module,
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally, less what a mask (True: seen) hides; return (B, T, H, D) as the library expects it.

    Raises ModelError where the model asks for more than attention has in a Llama.
    """
    model = module.config.model_type
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]
    if not getattr(module, "is_causal", True):
        unknown.append("attention to what comes later")
    if unknown:
        raise ModelError(f"{model}: its {unknown[0]} needs a kernel of its own. Use `attention: eager`.")
    if query_BHTD.shape[2] != key_BKTD.shape[2]:
        raise ModelError(f"{model}: the kernel `{SHORT_KERNEL}` is for training and reads no cache. Use `attention: sdpa`.")
    kind = query_BHTD.device.type  # under autocast positions leave queries and keys in float32, beside narrower values
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query_BHTD.dtype
    parts = query_BHTD.to(dtype), key_BKTD.to(dtype), value_BKTD.to(dtype), attention_mask, scaling
    plain = dropout or torch.compiler.is_compiling()  # a compiler fuses best what is left to it
    out_BHTD = _plain(*parts, dropout) if plain else Attention.apply(*parts)
    return out_BHTD.transpose(1, 2).contiguous(), None


AttentionInterface.register(SHORT_KERNEL, short)
AttentionMaskInterface.register(SHORT_KERNEL, sdpa_mask)  # without one, the library would mask nothing and not say so


class Rotary(torch.autograd.Function):
    """x cos + turn(x) sin, where turn((a, b)) = (-b, a) for the halves of a head, as the library computes it."""

    @staticmethod
    def forward(ctx: Any, x_BTHD: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return the turned heads (B, H, T, D)."""
        ctx.save_for_backward(cos_BTD, sin_BTD)
        return _turn(x_BTHD.transpose(1, 2), cos_BTD, sin_BTD)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient_BHTD: torch.Tensor) -> Any:  # type: ignore[override]
        """Turn back."""
        cos_BTD, sin_BTD = ctx.saved_tensors
        return _turn(gradient_BHTD, cos_BTD, -sin_BTD).transpose(1, 2), None, None


def _turn(x_BHTD: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> torch.Tensor:
    """Long rows without a gap are what a CPU multiplies well: positions and width are one axis."""
    half = x_BHTD.shape[3] // 2
    turned_BHTD = torch.empty_like(x_BHTD, memory_format=torch.contiguous_format)
    torch.neg(x_BHTD[..., half:], out=turned_BHTD[..., :half])
    turned_BHTD[..., half:] = x_BHTD[..., :half]
    cos, sin = (part.flatten(1).unsqueeze(1) for part in (cos_BTD, sin_BTD))
    return (x_BHTD.flatten(2) * cos).addcmul_(turned_BHTD.flatten(2), sin).view(x_BHTD.shape)


def attach(model: nn.Module) -> None:
    """Let a Llama turn queries and keys by `Rotary`; models with another class of attention keep theirs."""
    for module in model.modules():
        if type(module) is LlamaAttention:
            module.forward = MethodType(_forward, module)


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    **words: Any,
) -> Any:
    """The library's layer of attention; what reads a cache is left to it."""
    if past_key_values is not None:
        return type(self).forward(self, hidden_states, position_embeddings, attention_mask, past_key_values, **words)
    rows, length, _ = hidden_states.shape
    query, key, value = (
        project(hidden_states).view(rows, length, -1, self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj)
    )
    query, key = (Rotary.apply(part, *position_embeddings) for part in (query, key))
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
    dropout = self.attention_dropout if self.training else 0.0
    out, shares = attend(
        self, query, key, value.transpose(1, 2), attention_mask, dropout=dropout, scaling=self.scaling, **words
    )
    return self.o_proj(out.reshape(rows, length, -1)), shares
