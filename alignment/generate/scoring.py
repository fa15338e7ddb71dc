"""Log-probabilities of given tokens: one causal pass without a cache, and the LM head only where somebody asks.

No mask is passed: rows are padded on the right, where a causal model does not look. Axes: B rows, T positions,
D hidden size, V vocabulary, N positions asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

PASS_TOKENS = 16_384  # tokens of one prefill or scoring pass: bounds memory, not results
HEAD_NUMBERS = 2**25  # logits computed at a time


@dataclass(frozen=True)
class Ask:
    """Weigh the tokens `after`, the first of which is predicted at position `start` of an input."""

    item: int
    option: int
    start: int
    after: list[int]


def weigh(
    body: nn.Module, head: nn.Module, wanted: Mapping[tuple[int, ...], Sequence[Ask]], batch_size: int
) -> Iterator[tuple[Ask, float]]:
    """Yield every ask with its summed log-probability; each distinct input is run once, longest first."""
    for batch in batches(list(wanted), batch_size):
        asks = [(row, ask) for row, ids in enumerate(batch) for ask in wanted[ids]]
        device = head.weight.device
        hidden_BTD = body(input_ids=padded(batch, device), use_cache=False).last_hidden_state
        rows = [row for row, ask in asks for _ in ask.after]
        places = [ask.start + k for _, ask in asks for k in range(len(ask.after))]
        targets_N = torch.tensor([token for _, ask in asks for token in ask.after], device=device)
        logps_N = logprobs(head, hidden_BTD[rows, places], targets_N)
        sums = [float(part.sum()) for part in logps_N.double().split([len(ask.after) for _, ask in asks])]
        yield from zip((ask for _, ask in asks), sums, strict=True)


def logprobs(head: nn.Module, hidden_ND: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target in float32, a slice of positions at a time."""
    step = max(1, HEAD_NUMBERS // head.weight.shape[0])
    parts = []
    for at in range(0, len(targets_N), step):
        logits_NV = head(hidden_ND[at : at + step]).float()
        parts.append(logits_NV.gather(-1, targets_N[at : at + step, None])[:, 0] - logits_NV.logsumexp(-1))
    return torch.cat(parts)


def batches(inputs: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[list[tuple[int, ...]]]:
    """Group inputs of like length, longest first, within the rows and tokens of one pass."""
    batch: list[tuple[int, ...]] = []
    for ids in sorted(inputs, key=lambda ids: -len(ids)):
        if batch and (len(batch) >= batch_size or (len(batch) + 1) * len(batch[0]) > PASS_TOKENS):
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Ids as a rectangle, filled on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in rows], device=device)
