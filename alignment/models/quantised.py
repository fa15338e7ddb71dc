"""A base in 4 bits, as QLoRA trains on it (Dettmers et al., 2023): NF4, its scales quantised once more, bitsandbytes.

Only linear layers are held so; embedding, head, norms and stacked experts stay as they are.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from alignment.errors import HardwareError
from alignment.hardware import Hardware, is_sharded


def nf4(hardware: Hardware) -> dict[str, Any]:
    """Ask the library for NF4 with double quantisation, on the device of this process."""
    if is_sharded(hardware.name):
        raise HardwareError(
            f"profile {hardware.name} shards the weights, and 4-bit weights are not sharded here. "
            "Use a profile of one process, or leave `adapter.base` out."
        )
    asked = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, hardware.dtype),
    )
    place = "cpu" if hardware.device == "cpu" else int(os.environ.get("LOCAL_RANK", 0))
    return {"quantization_config": asked, "device_map": {"": place}}


def harmless(model: PreTrainedModel) -> PreTrainedModel:
    """Keep bitsandbytes from repacking the weights at the first forward pass in eval mode, on CPUs with AVX512-BF16.

    It would do so in place: the packed path has no gradient, so gradients are wrong from then on, and what is
    dequantised, merged or saved is noise (seen with 0.50.2).
    """
    for layer in layers(model):
        layer.support_avx512bf16_for_cpu = False
    return model


def layers(model: nn.Module) -> list[Any]:
    """The layers whose weights are held in 4 bits."""
    from bitsandbytes.nn import Linear4bit

    return [part for part in model.modules() if isinstance(part, Linear4bit)]


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights as they are held, 4-bit ones with their scales."""
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    states = [layer.weight.quant_state for layer in layers(model)]
    return held + sum(s.absmax.numel() * s.absmax.element_size() + 4 * s.state2.absmax.numel() for s in states)
