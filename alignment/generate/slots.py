"""A ragged key-value cache: one slot per live answer, each as long as it is.

transformers' dynamic cache wants rows of equal length and copies itself with every token. Here the memory is laid out
once; a row's next key is written at that row's own length, a finished row's place is taken by another, and padding
never stands between a prompt and its answer. What lies beyond a row's length is masked and later overwritten.

Axes: B rows in use, S slots, H heads, T positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values. `row_B` and `lengths_B` say where the next token of each row in use is written."""

    def __init__(self, slots: int, capacity: int) -> None:
        super().__init__()
        self.slots, self.capacity = slots, capacity
        self.row_B: torch.Tensor | None = None
        self.lengths_B: torch.Tensor | None = None
        self.width = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (
            torch.zeros(self.slots, x.shape[1], self.capacity, x.shape[3], dtype=x.dtype, device=x.device)
            for x in (key_states, value_states)
        )  # zeros, not empty: a masked NaN is still a NaN
        self.is_initialized = True

    def fill(self, slots: list[int], keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, sources: list[int]) -> None:
        """Copy prefilled rows into slots; one source may fill several (samples of one prompt)."""
        if not self.is_initialized:
            self.lazy_initialization(keys_BHTD, values_BHTD)
        width = keys_BHTD.shape[2]
        self.keys[slots, :, :width] = keys_BHTD[sources]
        self.values[slots, :, :width] = values_BHTD[sources]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = key_states.shape[0]
        self.keys[self.row_B, :, self.lengths_B] = key_states[:, :, 0]
        self.values[self.row_B, :, self.lengths_B] = value_states[:, :, 0]
        return self.keys[:rows, :, : self.width], self.values[:rows, :, : self.width]

    def get_seq_length(self) -> int:
        return self.width - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.width - 1 + query_length, 0

    def get_max_length(self) -> int:
        return self.capacity


class Slots:
    """The cache of a whole model, and how long each row is. Rows in use are always the first B."""

    def __init__(self, layers: int, slots: int, capacity: int, device: torch.device) -> None:
        self.layers = [SlotLayer(slots, capacity) for _ in range(layers)]
        self.cache = Cache(layers=list(self.layers))
        self.device = device
        self.lengths: list[int] = []

    def fill(self, prefilled: DynamicCache, sources: list[int], lengths: list[int]) -> None:
        """Append rows: `sources` are rows of the prefilled cache, `lengths` their true lengths."""
        slots = list(range(len(self.lengths), len(self.lengths) + len(sources)))
        for layer, filled in zip(self.layers, prefilled.layers, strict=True):
            layer.fill(slots, filled.keys, filled.values, sources)
        self.lengths += lengths

    def keep(self, alive: list[bool]) -> list[int]:
        """Drop finished rows by moving the last ones into their places; return the old index of each row kept."""
        order = list(range(len(alive)))
        hole = 0
        while hole < len(order):
            if alive[order[hole]]:
                hole += 1
                continue
            last = order.pop()
            if hole < len(order):
                order[hole] = last
        moved = [(old, new) for new, old in enumerate(order) if old != new]
        if moved:
            old, new = (list(side) for side in zip(*moved, strict=True))
            width = max(self.lengths[i] for i in old)
            for layer in self.layers:
                layer.keys[new, :, :width] = layer.keys[old, :, :width]
                layer.values[new, :, :width] = layer.values[old, :, :width]
        self.lengths = [self.lengths[i] for i in order]
        return order

    def step(self) -> tuple[Cache, torch.Tensor, torch.Tensor]:
        """Open one position per row; return the cache, the mask over it (B, T) and the position ids (B, 1)."""
        lengths_B = torch.tensor(self.lengths, device=self.device)
        width = max(self.lengths) + 1
        row_B = torch.arange(len(self.lengths), device=self.device)
        for layer in self.layers:
            layer.row_B, layer.lengths_B, layer.width = row_B, lengths_B, width
        self.lengths = [length + 1 for length in self.lengths]
        mask_BT = torch.arange(width, device=self.device) <= lengths_B[:, None]
        return self.cache, mask_BT, lengths_B[:, None]
