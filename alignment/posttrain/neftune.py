"""NEFTune (Jain et al., 2023): uniform noise on the embeddings while a model learns, alpha / sqrt(L d) at most.

L is the length of the conversation itself. The library's own switch takes that of the padded or packed row, so that what
is learnt would hang on how rows are laid out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def attach(model: nn.Module, embedding: nn.Module, alpha: float) -> None:
    """Add noise to what `embedding` gives in training; `model` is what is called with the batch."""
    lengths: list[torch.Tensor] = []  # of each token's conversation, like the ids

    def note(called: nn.Module, _: tuple[Any, ...], given: dict[str, Any]) -> None:
        lengths[:] = [of_tokens(**given)] if called.training else []

    def disturb(part: nn.Module, _: tuple[Any, ...], embedded_BTD: torch.Tensor) -> torch.Tensor:
        if not part.training:
            return embedded_BTD
        most_BT = alpha / (lengths[0] * embedded_BTD.shape[-1]).sqrt()
        noise_BTD = torch.empty_like(embedded_BTD).uniform_(-1, 1)
        return embedded_BTD + noise_BTD * most_BT.unsqueeze(-1).to(embedded_BTD.dtype)

    model.register_forward_pre_hook(note, with_kwargs=True)
    embedding.register_forward_hook(disturb)


def of_tokens(
    cu_seq_lens_q: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **_: Any
) -> torch.Tensor:
    """The length of the conversation that each token is of, from the ends of a packed row or from a mask (B, T)."""
    if cu_seq_lens_q is not None:
        lengths_S = cu_seq_lens_q.diff()
        return lengths_S.repeat_interleave(lengths_S)[None]
    assert attention_mask is not None, "a batch with neither ends nor mask"
    return attention_mask.sum(1, keepdim=True).clamp(min=1).expand_as(attention_mask)
