"""Attention for short rows that are trained on a CPU: two products and a softmax, registered with the library as `short`.

SDPA's kernel saves memory, and its backward pass costs a CPU seven times its forward pass; the library's `eager` widens
all scores to float32. Softmax of bfloat16 computes in float32 anyway (`benchmarks/attention_on_cpu.py`). The axes: B rows,
H heads, K heads of keys, T positions, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from alignment.errors import ModelError
from alignment.hardware import SHORT_KERNEL


def short(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attend under an additive mask; return (B, T, H, D) as the library expects it.

    Raises ModelError where the model asks for more than attention has in a Llama.
    """
    if unknown := [name for name in ("softcap", "s_aux", "position_bias") if more.get(name) is not None]:
        raise ModelError(f"{module.config.model_type}: its {unknown[0]} needs a kernel of its own. Use `attention: eager`.")
    shared = query_BHTD.shape[1] // key_BKTD.shape[1]
    key_BHTD, value_BHTD = repeat_kv(key_BKTD, shared), repeat_kv(value_BKTD, shared)
    scores_BHTT = torch.matmul(query_BHTD * scaling, key_BHTD.transpose(2, 3)).add_(attention_mask)
    shares_BHTT = F.dropout(torch.softmax(scores_BHTT, dim=-1), dropout, module.training)
    return torch.matmul(shares_BHTT, value_BHTD).transpose(1, 2).contiguous(), None


AttentionInterface.register(SHORT_KERNEL, short)
AttentionMaskInterface.register(SHORT_KERNEL, eager_mask)  # without one, the library would mask nothing and not say so
