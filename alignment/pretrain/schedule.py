"""The learning rate as a pure function of the update: warm-up, then the paper's steps, a cosine, or a late decay.

Multi-step (paper 2.3): after 80 % of the tokens 31.6 % of the peak, after 90 % 10 %. Up to the first turn neither it nor
WSD depends on the budget, so that part of a run can be used again for a longer one.
"""

from __future__ import annotations

import math

from alignment.recipe import PretrainOptim


def share(step: int, updates: int, optim: PretrainOptim) -> float:
    """Share of the peak for update `step` (from 0) of `updates`."""
    if optim.schedule == "multi-step":
        return multi_step(step, updates, optim.warmup_steps, optim.turns, optim.factors)
    if optim.schedule == "cosine":
        return cosine(step, updates, optim.warmup_steps, optim.floor)
    return wsd(step, updates, optim.warmup_steps, optim.floor, optim.decay)


def first_turn(updates: int, optim: PretrainOptim) -> int:
    """Updates before the rate first falls."""
    if optim.schedule == "cosine":
        return min(optim.warmup_steps, updates)
    return math.ceil((optim.turns[0] if optim.schedule == "multi-step" else 1 - optim.decay) * updates)


def multi_step(
    step: int,
    updates: int,
    warmup_steps: int,
    turns: tuple[float, ...] = (0.8, 0.9),
    factors: tuple[float, ...] = (0.316, 0.1),
) -> float:
    """Stay at the peak until the first turn (a share of the tokens), then at each turn's factor."""
    for turn, factor in zip(reversed(turns), reversed(factors), strict=True):
        if step >= turn * updates:
            return factor
    return warmup(step, warmup_steps)


def cosine(step: int, updates: int, warmup_steps: int, floor: float = 0.1) -> float:
    """Fall from the end of the warm-up on, to `floor` at the end."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    progress = min((step - warmup_steps) / max(updates - warmup_steps, 1), 1.0)
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def wsd(step: int, updates: int, warmup_steps: int, floor: float = 0.1, decay: float = 0.1) -> float:
    """Warm up, stay, and in the last share `decay` of the tokens fall linearly to `floor` (Hu et al., 2024)."""
    begin = (1 - decay) * updates
    if step < begin:
        return warmup(step, warmup_steps)
    return warmup(step, warmup_steps) * (1 - (1 - floor) * min((step - begin) / (decay * updates), 1.0))


def warmup(step: int, warmup_steps: int) -> float:
    """Rise linearly; update 0 already moves, update `warmup_steps` - 1 has the peak."""
    return min((step + 1) / max(warmup_steps, 1), 1.0)
