"""A trainer's own model, and what TRL's trainers read of its forward pass where learnt positions alone are multiplied.

Axes: R rows, T positions, L learnt positions.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from transformers import Trainer
from trl.trainer.utils import FusedCausalLMOutput


def bare(trainer: Trainer) -> Any:
    """The model itself, without what accelerate wraps around it and without the adapter's frame (its layers stay)."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def scored(learnt_RT: torch.Tensor, log_probs_L: torch.Tensor, right_L: torch.Tensor) -> FusedCausalLMOutput:
    """Lay the numbers of learnt positions out where TRL looks for them; the others are zero."""
    zeros_RT = torch.zeros(learnt_RT.shape, device=learnt_RT.device)
    return FusedCausalLMOutput(
        log_probs=zeros_RT.masked_scatter(learnt_RT, log_probs_L),
        entropy=zeros_RT,  # TRL's report alone reads entropy and mean logits; ours does not
        mean_logits=zeros_RT,
        is_top1=torch.zeros_like(learnt_RT).masked_scatter(learnt_RT, right_L),
        label_mask=learnt_RT,
    )
