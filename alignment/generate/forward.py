"""What the engine asks of a model: to read a prefix, to run rows behind it, to take steps. And who does it.

Llama models run through the lean `llama`; every other class through transformers' own forward (`library`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from alignment.generate import llama


class Slots(Protocol):
    """Live answers behind a prefix."""

    lengths: list[int]

    def fill(self, kept: Any, sources: Sequence[int], spans: Sequence[slice]) -> None:
        """Append rows from what `rows` kept; one source may fill several (samples of one prompt)."""

    def step(self, tokens_BQ: torch.Tensor) -> torch.Tensor:
        """Run the next Q tokens of every row; return their hidden states (B, Q, M)."""

    def grow(self, counts: Sequence[int]) -> None:
        """Say how many tokens of the last step each row keeps."""

    def keep(self, alive: Sequence[bool]) -> list[int]:
        """Drop finished rows; return the old index of each row kept."""


class Forward(Protocol):
    """A model without its loop. N tokens lie one behind the other; M is the hidden size."""

    config: Any
    model: nn.Module | None  # to be switched to evaluation, if it may be in training
    device: torch.device
    dtype: torch.dtype
    attention: str  # how it is computed, for the record
    vocab: int
    pass_tokens: int
    drafts: bool  # whether a step may take several tokens a row

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits at positions that somebody asks about."""

    def carried(self, prefix: Any) -> int:
        """How many tokens of the prefix each row of a pass holds a copy of."""

    def read(self, ids: Sequence[int], before: Any = None) -> Any:
        """Compute a prefix, behind another one if there is one."""

    def rows(self, prefix: Any, rows: Sequence[Sequence[int]], *, keep: bool = False) -> tuple[torch.Tensor, Any]:
        """Run rows behind a prefix; return the hidden states of their tokens (N, M) and what `Slots.fill` needs."""

    def slots(self, prefix: Any, size: int, capacity: int) -> Slots:
        """Make room for decoding: `size` rows of up to `capacity` own tokens."""


def of(model: Any) -> Forward:
    """The forward of a transformers model, with the weights as they are now; one that is already a forward stays."""
    if not isinstance(model, nn.Module):
        return model  # type: ignore[no-any-return]
    if llama.supports(model.config):
        return llama.Llama(model.config, {name: weight.detach() for name, weight in model.state_dict().items()})
    from alignment.generate import library  # transformers' model classes are slow to import

    return library.Library(model)
