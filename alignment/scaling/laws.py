"""The paper's scaling laws (section 3) as numbers and functions. C is a budget in FLOPs, M a model's scale in FLOPs a token.

Budgets leave the embeddings out (`presets.flops_per_token`), batches are in tokens, and C = M D.

The laws are powers, so a power of ten can be checked in the head: at C = 1e20, C^-0.125 = 10^-2.5 = 3.16e-3, and the
learning rate is 0.3118 x 3.16e-3 = 9.86e-4; the batch is 1.017M tokens, 248 sequences of 4096. A published walk-through
prints 3.16e-5 and 512 for this point: its first number has lost the factor 0.3118 and two decades, its second is near
the 497 sequences that the batch makes at a length of 2048.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from alignment.errors import RecipeError
from alignment.schema import nearest


@dataclass(frozen=True)
class Power:
    """factor x C^exponent."""

    factor: float
    exponent: float

    def __call__(self, flops: float) -> float:
        return float(self.factor * flops**self.exponent)


class Interval(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


LEARNING_RATE = Power(0.3118, -0.1250)  # equation 1
BATCH_TOKENS = Power(0.2920, 0.3271)  # equation 1
SCALE = Power(0.1715, 0.5243)  # equation 4: M, current data
TOKENS = Power(5.8316, 0.4757)  # equation 4: D
SCHEDULE_RANGE = (1e17, 2e19)  # budgets that equation 1 was fitted on (checked at 1e20)
SPLIT_RANGE = (1e17, 3e20)  # budgets that equation 4 was fitted on
QUALITIES = {  # table 4: the exponent of M by the data; that of D is the rest to 1
    "current": 0.5243,
    "early": 0.450,
    "openwebtext2": 0.578,
    "chinchilla": 0.49,
    "kaplan": 0.73,
}
WARMUP_STEPS, WARMUP_SHARE = 2000, 0.05  # paper 2.3; for short runs the paper does not say: a twentieth


def split(quality: str, pivot: tuple[float, float] | None = None) -> Power:
    """The law of M for a kind of data. Only the current data's factor is published: others need a measured optimum.

    `pivot`: a budget and the model scale that was best at it.
    """
    if quality not in QUALITIES:
        raise RecipeError(f"--data-quality {quality}: {nearest(quality, QUALITIES)} Or the folder that `fit` wrote.")
    if pivot is not None:
        flops, scale = pivot
        return Power(scale / flops ** QUALITIES[quality], QUALITIES[quality])
    if quality != "current":
        raise RecipeError(
            f"--data-quality {quality}: only its exponent {QUALITIES[quality]} is published (paper, table 4). Add --pivot "
            f"FLOPS:SCALE, an optimum measured on such data; 1e17:{SCALE(1e17):.4g} takes over that of the current data."
        )
    return SCALE


def n1(layers: int, width: int) -> float:
    """Parameters without embeddings, of full attention and a feed-forward width of 8/3 (equation 2)."""
    return 12 * layers * width**2


def n2(layers: int, width: int, vocab: int) -> float:
    """Parameters with one embedding (equation 2)."""
    return n1(layers, width) + vocab * width


def scale(layers: int, width: int, sequence: int) -> float:
    """M of equation 2: non-embedding FLOPs a token. Real shapes differ (`presets.flops_per_token`), grouped heads most."""
    return 6 * n1(layers, width) + 12 * layers * width * sequence


def warmup(updates: int) -> int:
    """Updates of warm-up: the paper's 2000, and no more than a twentieth of the run."""
    return min(WARMUP_STEPS, max(1, round(WARMUP_SHARE * updates)))


def check_amount(said: float, option: str, what: str) -> None:
    """Refuse what is no amount of anything: zero, less, infinite, not a number."""
    if not 0 < said < math.inf:
        raise RecipeError(f"{option} {said:g}: give {what} above 0, and a finite number.")


def beyond(flops: float, fitted: tuple[float, float], what: str) -> str | None:
    """Warn where a budget leaves the range that a law was fitted on."""
    low, high = fitted
    if low <= flops <= high:
        return None
    side, times = ("below", low / flops) if flops < low else ("above", flops / high)
    return f"{what}: {flops:.3g} FLOPs lie {times:.3g} times {side} the fitted {low:.3g} to {high:.3g}: extrapolated."
