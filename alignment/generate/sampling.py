"""The choice of the next token: greedy, or by temperature and top-p with random numbers that belong to the item.

A random number is a function of (seed, prompt, how often that prompt came before, sample, position), not the state of
a generator: so a sampled answer does not change with the batch it was in, the order of the prompts, or what was
already answered before an interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea and Flood 2014)


def key(seed: int, ids: Sequence[int], occurrence: int, sample: int) -> int:
    """The 64-bit key of one answer."""
    text = f"{seed}|{occurrence}|{sample}|{','.join(map(str, ids))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniforms(keys: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """One number in [0, 1) per row, from the row's key and its position."""
    with np.errstate(over="ignore"):
        state = np.asarray(keys, np.uint64) + (np.asarray(positions, np.uint64) + np.uint64(1)) * _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((state ^ (state >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(logits_BV: torch.Tensor, temperature: float, top_p: float, uniform_B: np.ndarray | None) -> torch.Tensor:
    """Pick a token per row: the likeliest at temperature 0, else the one at the row's number in the cumulated mass.

    Top-p keeps the smallest set of likeliest tokens whose mass reaches `top_p` (Holtzman et al. 2020).
    """
    if uniform_B is None:
        return logits_BV.argmax(-1)
    probs_BV = torch.softmax(logits_BV / temperature, -1)
    order_BV = None
    if top_p < 1.0:
        probs_BV, order_BV = torch.sort(probs_BV, dim=-1, descending=True, stable=True)
        probs_BV = probs_BV.masked_fill(probs_BV.cumsum(-1, dtype=torch.float64) - probs_BV >= top_p, 0.0)
    mass_BV = probs_BV.cumsum(-1, dtype=torch.float64)
    whole_B1 = mass_BV[:, -1:]
    at_B1 = torch.from_numpy(uniform_B).to(logits_BV.device)[:, None] * whole_B1
    # the product may round up to the whole mass: never past the last token that has any
    at_B1 = torch.minimum(at_B1, torch.nextafter(whole_B1, torch.zeros_like(whole_B1)))
    picked_B1 = torch.searchsorted(mass_BV, at_B1, right=True)
    return (picked_B1 if order_BV is None else order_BV.gather(-1, picked_B1))[:, 0]
