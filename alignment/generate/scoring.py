"""Log-probabilities of given tokens: what inputs share is computed once, and the LM head only where somebody asks.

Axes: N tokens of all rows or positions asked for, M hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from alignment.generate import prefixes
from alignment.generate.forward import Forward

HEAD_NUMBERS = 2**25  # logits computed at a time


@dataclass(frozen=True)
class Ask:
    """Weigh the tokens `after`, the first of which is predicted at position `start` of an input."""

    item: int
    option: int
    start: int
    after: list[int]


def weigh(forward: Forward, wanted: Mapping[tuple[int, ...], Sequence[Ask]], batch_size: int) -> Iterator[tuple[Ask, float]]:
    """Yield every ask with its summed log-probability; each distinct input is run once."""
    inputs = list(wanted)
    limits = [min(ask.start for ask in wanted[ids]) for ids in inputs]  # positions asked about are no one's prefix
    for prefix, depth, rows in prefixes.walk(forward, prefixes.tree(inputs, limits)):
        tails = {i: inputs[i][depth:] for i in rows}
        for batch in batches(tails, batch_size, forward.pass_tokens, forward.carried(prefix)):
            hidden_NM, _ = forward.rows(prefix, [tails[i] for i in batch])
            asks, places, start = [], [], -depth
            for i in batch:
                asks += wanted[inputs[i]]
                places += [start + ask.start + k for ask in wanted[inputs[i]] for k in range(len(ask.after))]
                start += len(tails[i])
            targets_N = torch.tensor([token for ask in asks for token in ask.after], device=forward.device)
            logps_N = logprobs(forward, hidden_NM[places], targets_N).double()
            sums = [float(part.sum()) for part in logps_N.split([len(ask.after) for ask in asks])]
            yield from zip(asks, sums, strict=True)


def logprobs(forward: Forward, hidden_NM: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target in float32, a slice of positions at a time."""
    step = max(1, HEAD_NUMBERS // forward.vocab)
    parts = []
    for at in range(0, len(targets_N), step):
        logits_NV = forward.logits(hidden_NM[at : at + step]).float()
        parts.append(logits_NV.gather(-1, targets_N[at : at + step, None])[:, 0] - logits_NV.logsumexp(-1))
    return torch.cat(parts)


def batches(tails: Mapping[int, Sequence[int]], batch_size: int, pass_tokens: int, carried: int) -> Iterator[list[int]]:
    """Group rows of like length, longest first, within the rows and tokens of one pass."""
    batch: list[int] = []
    for i in sorted(tails, key=lambda i: -len(tails[i])):
        if batch and (len(batch) >= batch_size or (len(batch) + 1) * (len(tails[batch[0]]) + carried) > pass_tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
