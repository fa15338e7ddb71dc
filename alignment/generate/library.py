"""The forward pass of any transformers causal LM behind the same calls as the lean one (`llama`).

A shared prefix is computed once here too, but every row carries its own copy of it: only transformers' own layers know
how to read their cache. transformers' dynamic cache wants rows of equal length and copies itself with every token;
here the memory is laid out once, and what lies beyond a row's length is masked and later overwritten.

Axes: B rows, T positions, H heads, D head size, N tokens of all rows, M hidden size, Q tokens of a row in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from alignment.generate.slots import Rows

PASS_TOKENS = 16_384  # padding included: bounds memory, not results


class Prefix:
    """The cache of tokens that all rows begin with."""

    def __init__(self, cache: DynamicCache) -> None:
        self.cache, self.length = cache, cache.get_seq_length()


class Library:
    """A transformers model as the engine calls it."""

    drafts = False  # one token a row and step

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.config = model, model.config
        self.body, self.head = model.base_model, model.get_output_embeddings()
        self.device, self.dtype = self.head.weight.device, self.head.weight.dtype
        self.vocab = self.head.weight.shape[0]
        self.pass_tokens = PASS_TOKENS
        self.attention = str(self.config._attn_implementation)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits at positions that somebody asks about."""
        found: torch.Tensor = self.head(hidden)
        return found

    def carried(self, prefix: Prefix | None) -> int:
        """Every row holds a copy of the prefix."""
        return prefix.length if prefix else 0

    def read(self, ids: Sequence[int], before: Prefix | None = None) -> Prefix:
        """Compute the cache of a prefix, behind another one if there is one."""
        return Prefix(self._run(before, [ids], use_cache=True)[1])

    def rows(
        self, prefix: Prefix | None, rows: Sequence[Sequence[int]], *, keep: bool = False
    ) -> tuple[torch.Tensor, DynamicCache | None]:
        """Run rows behind a prefix; return the hidden states of all their tokens and, if kept, the cache."""
        hidden_BTM, cache = self._run(prefix, rows, use_cache=keep)
        return torch.cat([hidden_BTM[i, : len(row)] for i, row in enumerate(rows)]), cache

    def slots(self, prefix: Prefix | None, size: int, capacity: int) -> Slots:
        """Make room for decoding: `size` rows of up to `capacity` own tokens."""
        past = prefix.length if prefix else 0
        return Slots(self, past, size, past + capacity)

    def _run(self, prefix: Prefix | None, rows: Sequence[Sequence[int]], *, use_cache: bool) -> Any:
        """Rows are padded on the right, where a causal model does not look, so no mask is passed."""
        width = max(map(len, rows))
        ids_BT = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
        cache = None
        if prefix is not None:
            cache = deepcopy(prefix.cache)
            cache.batch_repeat_interleave(len(rows))
        elif use_cache:
            cache = DynamicCache(config=self.config)
        out = self.body(input_ids=ids_BT, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state, cache


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

    def fill(self, slots: list[int], keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, sources: Sequence[int]) -> None:
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


class Slots(Rows):
    """The cache of a whole model, prefix included in every row."""

    def __init__(self, library: Library, past: int, size: int, capacity: int) -> None:
        super().__init__()
        self.library, self.past = library, past
        self.layers = [SlotLayer(size, capacity) for _ in range(library.config.num_hidden_layers)]
        self.cache = Cache(layers=list(self.layers))

    def fill(self, kept: DynamicCache, sources: Sequence[int], spans: Sequence[slice]) -> None:
        """Append rows from a prefill; one source may fill several rows (samples of one prompt)."""
        slots = list(range(len(self.lengths), len(self.lengths) + len(sources)))
        for layer, filled in zip(self.layers, kept.layers, strict=True):
            layer.fill(slots, filled.keys, filled.values, sources)
        self.lengths += [self.past + spans[source].stop - spans[source].start for source in sources]

    def move(self, old: list[int], new: list[int], width: int) -> None:
        """Copy rows to other places."""
        for layer in self.layers:
            layer.keys[new, :, :width] = layer.keys[old, :, :width]
            layer.values[new, :, :width] = layer.values[old, :, :width]

    def step(self, tokens_BQ: torch.Tensor) -> torch.Tensor:
        """Run the next token of every row (Q = 1); return their hidden states (B, Q, M)."""
        device = self.library.device
        lengths_B = torch.tensor(self.lengths, device=device)
        width = max(self.lengths) + 1
        row_B = torch.arange(len(self.lengths), device=device)
        for layer in self.layers:
            layer.row_B, layer.lengths_B, layer.width = row_B, lengths_B, width
        mask_BT = torch.arange(width, device=device) <= lengths_B[:, None]
        out = self.library.body(
            input_ids=tokens_BQ,
            attention_mask=mask_BT,
            position_ids=lengths_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        hidden: torch.Tensor = out.last_hidden_state
        return hidden
