"""A preference pair in one pass: what chosen and rejected begin with is computed once (own code; TRL computes it twice).

TRL's losses and metrics stay: the model's forward pass takes TRL's padded batch and gives what TRL reads, but in between
the tokens lie in one row without padding (`segments`). On CPUs and for the Llama class; elsewhere TRL's own way.
Axes: B pairs, R = 2B sequences (chosen, then rejected), T positions, N tokens of the row, L learnt tokens.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from transformers import Trainer
from trl.trainer.utils import FusedCausalLMOutput

from alignment.models import segments
from alignment.posttrain import head


def attach(trainer: Trainer) -> None:
    """Make the trained model compute pairs in one pass, where that is exact and faster (benchmarks/dpo.py)."""
    model = head.bare(trainer)
    if model.device.type != "cpu" or model.config.model_type != "llama":
        return
    segments.use(model)
    model.forward = MethodType(_forward, model)


def _forward(
    self: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    *,
    fused_lm_head: bool,  # noqa: ARG001 (the interface of TRL's head)
    use_cache: bool,
    **others: Any,
) -> FusedCausalLMOutput:
    unread = [name for name, value in others.items() if value is not None]  # peft passes what it has no value for
    assert not unread, f"{', '.join(unread)} beside pairs"
    assert not use_cache, "a cache beside training"
    lengths_R = attention_mask.sum(1)
    shared_B = _alike(input_ids, lengths_R)
    laid = tuple(segments.row(lengths_R.tolist(), shared_B.tolist()))
    at_RT = torch.zeros_like(input_ids)  # where in the row a token lies
    row, positions = [], []
    for number, one in enumerate(laid):
        pair, second = divmod(number, 2)
        sequence = pair + second * len(shared_B)
        at_RT[sequence, : one.shared] = torch.arange(one.before, one.before + one.shared)
        length = one.shared + one.stop - one.start
        at_RT[sequence, one.shared : length] = torch.arange(one.start, one.stop)
        row.append(input_ids[sequence, one.shared : length])
        positions.append(torch.arange(one.shared, length))
    hidden_ND = self.base_model(
        input_ids=torch.cat(row)[None], position_ids=torch.cat(positions)[None], segments=laid, use_cache=False
    ).last_hidden_state[0]
    mask_RT = labels[:, 1:] != -100
    log_probs_L, right_L = segments.LogProbs.apply(
        hidden_ND[at_RT[:, :-1][mask_RT]], self.get_output_embeddings().weight, labels[:, 1:][mask_RT]
    )
    return head.scored(mask_RT, log_probs_L, right_L)


def _alike(input_ids: torch.Tensor, lengths_R: torch.Tensor) -> torch.Tensor:
    """With how many tokens the two sequences of each pair begin alike; each keeps one of its own."""
    chosen_BT, rejected_BT = input_ids.chunk(2)
    alike_B = (chosen_BT == rejected_BT).long().cumprod(1).sum(1)
    shorter_B = torch.minimum(*lengths_R.chunk(2))
    return torch.minimum(alike_B, shorter_B - 1)
