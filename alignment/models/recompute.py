"""What is computed again in the backward pass instead of being held: all of a layer, or all but its attention.

Attention costs most to compute again and little to hold: its result is one more hidden state a layer.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import PreTrainedModel

ATTENTION = [
    getattr(torch.ops.aten, name).default
    for name in (
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
]


def spare_attention(model: PreTrainedModel) -> None:
    """Have fused attention held whenever recomputation is switched on for this model; kernels from elsewhere are not."""
    plain = model.activation_checkpointing_enable
    context = partial(create_selective_checkpoint_contexts, ATTENTION)

    def enable(_: Any, activation_checkpointing_kwargs: Any = None, **words: Any) -> None:  # noqa: ARG001
        plain({"use_reentrant": False, "context_fn": context}, **words)

    model.activation_checkpointing_enable = MethodType(enable, model)  # type: ignore[method-assign]
