"""RMSNorm for training in bfloat16 on a CPU: both passes by hand, with half the trips through memory.

The library's norm is seven small operations in float32, of which each keeps something and has a backward pass of its own.
The axes: N tokens, D width.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class RMSNorm(torch.autograd.Function):
    """y = w x / sqrt(mean(x^2) + eps), in float32 but for the last product, as the library computes it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:  # type: ignore[override]
        """Return the normed x, whatever its leading axes."""
        unit = x.to(torch.float32, copy=True)
        length = torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        return weight_D * unit.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """By x: scale (g w - u mean(g w u)) for the unit-sized u; by w: the sum of g u."""
        x, weight_D, scale = ctx.saved_tensors
        width = x.shape[-1]
        unit_ND = x.to(torch.float32, copy=True).mul_(scale).view(-1, width)
        gradient_ND = gradient.to(torch.float32, copy=True).view(-1, width)
        each_ND, wide_D = gradient_ND * unit_ND, weight_D.float()
        shared_N = torch.mv(each_ND, wide_D).div_(-width)
        by_x_ND = gradient_ND.mul_(wide_D).addcmul_(unit_ND, shared_N.unsqueeze(1)).mul_(scale.view(-1, 1))
        return by_x_ND.to(x.dtype).view_as(x), each_ND.sum(0).to(weight_D.dtype), None


def attach(model: nn.Module) -> None:
    """Give a model's norms this form; models with another class of norm keep theirs."""
    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = MethodType(_forward, module)


def _forward(self: Any, hidden_states: torch.Tensor) -> Any:
    return RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)
