"""What preference training can minimise, by name, and what goes together only in appearance. No torch here."""

from __future__ import annotations

from typing import Literal

Loss = Literal[  # as TRL calls them; sft and orpo are ours
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "orpo",
]
SMOOTHED = ("robust", "exo_pair")  # the losses that read label_smoothing
ELSEWHERE = {
    "aot": (_SORTS := "sorts the answers of a forward pass: how a machine cuts the batch would count"),
    "aot_unpaired": _SORTS,
    "kto": "is a stage of its own: `stage: kto`",
}


def weighed(loss: str | dict[str, float], smoothing: float) -> dict[str, float]:
    """The weight of every loss by name. Raises ValueError for what goes together only in appearance."""
    weights = {loss: 1.0} if isinstance(loss, str) else dict(loss)
    if not set(weights) - {"sft"}:
        raise ValueError("loss: sft alone prefers nothing. Name a preference loss beside it, or use stage sft")
    if "orpo" in weights and weights != {"orpo": 1.0}:
        raise ValueError("loss: orpo has no reference and a likelihood term of its own: it stands alone and has no weight")
    if smoothing and not set(weights) & set(SMOOTHED):
        raise ValueError(f"label_smoothing: {', '.join(weights)} does not read it. It goes with {' or '.join(SMOOTHED)}")
    if not smoothing and (blank := sorted(set(weights) & set(SMOOTHED))):
        raise ValueError(f"loss: {blank[0]} needs label_smoothing above 0 (exo_pair: about 1e-3)")
    if "robust" in weights and smoothing >= 0.5:
        raise ValueError("label_smoothing: robust divides by 1 - 2 x label_smoothing, so it must be below 0.5")
    return weights
