"""The learning rate as a pure function of the update: warm-up, then the paper's steps, or a cosine.

Multi-step (paper 2.3): after 80 % of the tokens 31.6 % of the peak, after 90 % 10 %. Up to 80 % it does not depend on
the budget, so that part of a run can be used again for a longer one.
"""

from __future__ import annotations

import math

STEPS = ((0.9, 0.1), (0.8, 0.316))  # from this share of the tokens on: this share of the peak
FLOOR = 0.1  # where the cosine ends, so that both schedules end alike


def multi_step(step: int, updates: int, warmup_steps: int) -> float:
    """Share of the peak for update `step` (from 0) of `updates`."""
    for share, factor in STEPS:
        if step >= share * updates:
            return factor
    return warmup(step, warmup_steps)


def cosine(step: int, updates: int, warmup_steps: int) -> float:
    """Share of the peak for update `step`: down to a tenth at the end."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    progress = min((step - warmup_steps) / max(updates - warmup_steps, 1), 1.0)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2


def warmup(step: int, warmup_steps: int) -> float:
    """Rise linearly; update 0 already moves, update `warmup_steps` - 1 has the peak."""
    return min((step + 1) / max(warmup_steps, 1), 1.0)


SCHEDULES = {"multi-step": multi_step, "cosine": cosine}
