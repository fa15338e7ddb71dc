"""What is asked of a model and what comes back: Settings, Completion, Score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignment.errors import ModelError

Prompt = str | list[int]  # plain text, or ids that are used as they are


@dataclass(frozen=True)
class Settings:
    """How answers are drawn. Temperature 0 is greedy; a stop string ends an answer and is no part of its text."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.samples < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ModelError(f"{self}: needs max_new_tokens >= 1, samples >= 1, temperature >= 0, 0 < top_p <= 1.")
        if "" in self.stop:
            raise ModelError(f"{self}: an empty stop string would end every answer at once.")


@dataclass(frozen=True)
class Completion:
    """One answer. `token_ids` is all that was drawn, end token and stop string included; `text` is without them.

    `logprobs` are the model's own (temperature 1, no top-p), one per token.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float] | None
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Score:
    """Summed log-probability (natural log) of a continuation, and its size."""

    logprob: float
    tokens: int
    bytes: int
