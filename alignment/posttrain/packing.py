"""Conversations of an update in forward passes without padding: one row a pass, each conversation for itself.

    order of the data -> `passes`: the conversations of each pass -> `rows`: one item a pass -> `collate` -> the model

Which conversations share an update is the recipe's business; how they are dealt to its passes only costs or saves time.
None is cut, and none sees another: on a CPU attention runs conversation by conversation (`models/segments`), with
FlashAttention by its variable lengths. N tokens of the row, L learnt tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer
from trl.trainer.utils import FusedCausalLMOutput

from alignment.hardware import Hardware
from alignment.models import segments
from alignment.models.segments import Segment
from alignment.posttrain import head

PROVED = ("llama", "deepseek_v3")  # classes whose packed log-probabilities the tests hold against unpacked ones

Row = Mapping[str, Any]


def possible(model: PreTrainedModel, hardware: Hardware) -> bool:
    """Whether conversations may share a row on this machine; elsewhere they are padded, a row each."""
    isolates = hardware.attention == "sdpa" if hardware.device == "cpu" else "flash" in hardware.attention
    return isolates and model.config.model_type in PROVED


def passes(lengths: Sequence[int], order: Sequence[int], size: int, most: int, ranks: int) -> list[list[int]]:
    """Deal each update's `size` conversations to equally many passes of at most `most` tokens, long ones first.

    A pass holds more only where a single conversation does. Updates have as many passes as the fullest of them needs; a
    multiple of `ranks`, which take them in turn.
    """
    updates = [order[at : at + size] for at in range(0, len(order), size)]
    limit = max(most, *(lengths[i] for i in order))
    fewest = max(-(-sum(lengths[i] for i in update) // limit) for update in updates)
    for count in range(-(-fewest // ranks) * ranks, size + 1, ranks):
        dealt = [_deal(lengths, update, count) for update in updates]
        if all(sum(lengths[i] for i in one) <= limit for update in dealt for one in update):
            return [one for update in dealt for one in update]
    raise AssertionError(f"{size} conversations cannot be dealt to {ranks} ranks")  # hardware.split refuses that before


def _deal(lengths: Sequence[int], update: Sequence[int], count: int) -> list[list[int]]:
    """The longest first, each to the pass with the fewest tokens."""
    dealt: list[list[int]] = [[] for _ in range(count)]
    held = [0] * count
    for i in sorted(update, key=lambda i: -lengths[i]):
        lightest = held.index(min(held))
        dealt[lightest].append(i)
        held[lightest] += lengths[i]
    return dealt


def row(parts: Sequence[Row]) -> dict[str, list[int]]:
    """Lay tokenised conversations one after the other."""
    return {
        "input_ids": [token for part in parts for token in part["input_ids"]],
        "labels": [label for part in parts for label in (-100, *part["labels"][1:])],  # a first token is no next token
        "seq_lengths": [len(part["input_ids"]) for part in parts],
    }


def collate(items: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Any]:
    """Lay rows one after the other as one: positions begin again, and no mask is made, which would join conversations."""
    lengths = [length for item in items for length in item["seq_lengths"]]
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    flat = {name: torch.tensor([token for item in items for token in item[name]]) for name in ("input_ids", "labels")}
    return {
        **{name: tokens_N[None] for name, tokens_N in flat.items()},
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def attach(trainer: Trainer) -> None:
    """On a CPU, make the trained model read packed rows, and multiply learnt positions alone with the vocabulary.

    TRL's fused head does so on GPUs; elsewhere it multiplies masked positions too, twice. Same interface, same numbers.
    """
    model = head.bare(trainer)
    if model.device.type == "cpu":
        segments.use(model)
        model.forward = MethodType(_forward, model)


def _forward(
    self: Any,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    cu_seq_lens_q: torch.Tensor,
    labels: torch.Tensor,
    *,
    use_cache: bool,
    **_: Any,
) -> FusedCausalLMOutput:
    assert not use_cache, "with a cache the library joins what is packed"
    laid = tuple(Segment(start, stop) for start, stop in pairwise(cu_seq_lens_q.tolist()))
    hidden_ND = self.base_model(
        input_ids=input_ids, position_ids=position_ids, segments=laid, use_cache=False
    ).last_hidden_state[0, :-1]
    mask_N = labels[0, 1:] != -100
    targets_L = labels[0, 1:][mask_N]
    log_probs_L, right_L = segments.LogProbs.apply(hidden_ND[mask_N], self.get_output_embeddings().weight, targets_L)
    return head.scored(mask_N[None], log_probs_L, right_L)
