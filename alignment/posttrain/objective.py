"""What preference training minimises beside the losses that TRL has by name; every function is a mean over answers.

Axes: B pairs. Log-probabilities are sums over an answer's tokens, end mark included.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

ORPO, SFT = "orpo", "sft"
OWN = (ORPO, SFT)  # the others are TRL's


def likelihood(chosen_B: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Nats per token of the chosen answers, each counting the same (Pang et al. 2024, equation 1).

    TRL's `sft` weighs all tokens of a forward pass alike, so what is learnt would depend on how a machine cuts the batch.
    """
    return -(chosen_B / lengths_B).mean()


def odds_ratio(chosen_B: torch.Tensor, rejected_B: torch.Tensor) -> torch.Tensor:
    """Hong et al. (2024), equation 7, from mean log-probabilities per token: -log sigmoid(log odds ratio)."""
    return -F.logsigmoid(log_odds(chosen_B) - log_odds(rejected_B)).mean()


def log_odds(mean_B: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) for p = exp(mean), without losing p near 0 or 1."""
    near = mean_B > -math.log(2)
    one_minus = torch.where(
        near, torch.log(-torch.expm1(mean_B.clamp(max=-1e-12))), torch.log1p(-torch.exp(mean_B.clamp(max=-1e-3)))
    )
    return mean_B - one_minus
