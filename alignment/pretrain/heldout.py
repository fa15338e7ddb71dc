"""Bits per byte on held-out documents, each read on its own from its first token on.

Bits per byte = negative log-likelihood of all tokens after the first, the end mark included, over ln 2 times the UTF-8
bytes of the text: comparable between tokenizers. Documents longer than a sequence are cut into windows that do not
overlap, so the start of a window is predicted from one token of context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from alignment.pretrain.loss import IGNORED

Window = tuple[NDArray[np.int64], int]  # at most length + 1 tokens, and the number of their domain


def windows(documents: list[Window], length: int) -> list[Window]:
    """Cut documents so that every token but a document's first is predicted exactly once."""
    return [
        (tokens[start : start + length + 1], domain)
        for tokens, domain in documents
        for start in range(0, len(tokens) - 1, length)
    ]


@torch.no_grad()
def nats(
    accelerator: Accelerator, model: nn.Module, documents: list[Window], domains: int, length: int, micro: int
) -> NDArray[np.float64]:
    """Negative log-likelihood by domain, of a model whose forward pass ends in its loss (`loss.attach`).

    Every rank passes through the model equally often.
    """
    cut = sorted(windows(documents, length), key=lambda window: -len(window[0]))
    groups = [cut[start : start + micro] for start in range(0, len(cut), micro)]
    blank = [(np.zeros(2, np.int64), domains)]  # a domain of its own, dropped at the end
    groups += [blank] * (-len(groups) % accelerator.num_processes)
    total = torch.zeros(domains + 1, dtype=torch.float64, device=accelerator.device)
    model.eval()
    for group in groups[accelerator.process_index :: accelerator.num_processes]:
        inputs_BT, targets_BT = (part.to(accelerator.device) for part in _padded(group))
        loss_BT = model(input_ids=inputs_BT, targets=targets_BT)
        owners_B = torch.tensor([domain for _, domain in group], device=accelerator.device)
        total.index_add_(0, owners_B, loss_BT.double().sum(1))
    model.train()
    summed: Any = accelerator.reduce(total, "sum")
    return np.asarray(summed.cpu().numpy()[:domains])


def _padded(group: list[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded inputs and targets; a causal model never sees the padding, and its targets are not scored."""
    longest = max(len(tokens) for tokens, _ in group) - 1
    inputs = np.zeros((len(group), longest), np.int64)
    targets = np.full((len(group), longest), IGNORED, np.int64)
    for row, (tokens, _) in enumerate(group):
        inputs[row, : len(tokens) - 1] = tokens[:-1]
        targets[row, : len(tokens) - 1] = tokens[1:]
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def bits_per_byte(nats_D: NDArray[np.float64], bytes_D: NDArray[Any], names: Sequence[str]) -> dict[str, float]:
    """Say likelihoods per domain, and their whole, in bits per byte of text."""
    rates = {"bits_per_byte": float(nats_D.sum() / bytes_D.sum() / math.log(2))}
    for name, loss, size in zip(names, nats_D, bytes_D, strict=True):
        if size:
            rates[f"bits_per_byte.{name}"] = float(loss / size / math.log(2))
    return rates
