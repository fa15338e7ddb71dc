"""The loop that writes answers: prompts are read once, answers live as rows that come and go.

Rows go longest first. Each distinct prompt is read once behind the shared prefix; its n samples then live as rows of a
ragged cache. Every step feeds each live row its last token, and guesses (`lookup`) while rows are few; finished rows
leave at once and waiting ones take their places. Logits are computed only for positions that are drawn from.

Axes: B rows, Q tokens of a row in one step, N tokens of all rows, M hidden size, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from alignment.errors import ModelError
from alignment.generate import sampling
from alignment.generate.completion import Completion, Settings
from alignment.generate.forward import Forward
from alignment.generate.lookup import LONGEST, STEP_TOKENS, Lookup, worthwhile
from alignment.generate.stopping import Stopping


@dataclass
class Row:
    """An answer in the making. `ids` is the whole prompt, `key` what its random numbers come from."""

    prompt: int
    sample: int
    ids: list[int]
    key: int
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    lookup: Lookup | None = None

    def guess(self, most: int) -> list[int]:
        """Guess the next tokens."""
        if self.lookup is None:
            self.lookup = Lookup(self.ids + self.new)
        return self.lookup.guess(most)


@dataclass(frozen=True)
class Decoder:
    """How rows become completions: the model, when an answer ends, and how tokens are drawn."""

    forward: Forward
    stopping: Stopping
    settings: Settings
    name: str

    def run(self, prefix: Any, depth: int, rows: Sequence[Row], size: int) -> Iterator[tuple[Row, Completion]]:
        """Yield (row, completion) as rows finish. All prompts begin with the `depth` tokens of the prefix."""
        waiting, live = deque(sorted(rows, key=lambda row: -len(row.ids))), list[Row]()  # stable: samples stay together
        slots = self.forward.slots(prefix, size, len(waiting[0].ids) - depth + self.settings.max_new_tokens + LONGEST)
        while waiting or live:
            # refill when a quarter is free: reading one prompt costs nearly as much as reading many
            while waiting and (not live or size - len(live) >= max(1, size // 4)):
                admitted = self._admit(waiting, size - len(live), depth, self.forward.carried(prefix))
                kept, sources, spans, logits_BV = self._read(prefix, depth, admitted)
                ended = self._advance(admitted, logits_BV[:, None], [[] for _ in admitted])[1]
                stay = [k for k, end in enumerate(ended) if end is None]
                if stay:
                    slots.fill(kept, [sources[k] for k in stay], spans)
                    live += [admitted[k] for k in stay]
                yield from ((row, end) for row, end in zip(admitted, ended, strict=True) if end is not None)
            if not live:
                continue
            guesses = self._guesses(live)
            width = max(map(len, guesses))
            fed = [[row.new[-1], *guess] for row, guess in zip(live, guesses, strict=True)]
            tokens_BQ = torch.tensor([[*ids, *[0] * (width + 1 - len(ids))] for ids in fed], device=self.forward.device)
            hidden_BQM = slots.step(tokens_BQ)
            counts, ended = self._advance(live, self.forward.logits(hidden_BQM), guesses)
            slots.grow(counts)
            if any(ended):
                yield from ((row, end) for row, end in zip(live, ended, strict=True) if end is not None)
                live = [live[i] for i in slots.keep([end is None for end in ended])]

    def _admit(self, waiting: deque[Row], free: int, depth: int, carried: int) -> list[Row]:
        """Take as many rows as there are free slots and as one pass may hold tokens."""
        admitted = [waiting.popleft()]
        width = len(admitted[0].ids) - depth + carried
        while waiting and len(admitted) < free and (len(admitted) + 1) * width <= self.forward.pass_tokens:
            admitted.append(waiting.popleft())
        return admitted

    def _read(self, prefix: Any, depth: int, rows: list[Row]) -> tuple[Any, list[int], list[slice], torch.Tensor]:
        """Read each distinct prompt once; return what is kept, each row's place in it, and each row's last logits."""
        distinct = list({row.prompt: row.ids[depth:] for row in rows}.values())
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
        sources = [places[row.prompt] for row in rows]
        hidden_NM, kept = self.forward.rows(prefix, distinct, keep=True)
        ends = list(accumulate(map(len, distinct)))
        spans = [slice(end - len(ids), end) for ids, end in zip(distinct, ends, strict=True)]
        logits_BV = self.forward.logits(hidden_NM[[end - 1 for end in ends]])
        return kept, sources, spans, logits_BV[sources]

    def _guesses(self, live: list[Row]) -> list[list[int]]:
        room = STEP_TOKENS // len(live) - 1 if self.forward.drafts else 0
        if room < 1:
            return [[] for _ in live]
        left = [self.settings.max_new_tokens - len(row.new) - 1 for row in live]
        guesses = [row.guess(min(room, most)) for row, most in zip(live, left, strict=True)]
        width = worthwhile(guesses)
        return [guess[:width] for guess in guesses]

    def _advance(
        self, rows: list[Row], logits_BQV: torch.Tensor, guesses: list[list[int]]
    ) -> tuple[list[int], list[Completion | None]]:
        """Draw the next tokens of each row; return how many it keeps, and a completion for those that end."""
        width = logits_BQV.shape[1]
        logits_NV = logits_BQV.flatten(0, 1).float()
        uniform_N = None
        if self.settings.temperature > 0:
            at = [len(row.new) + q for row in rows for q in range(width)]
            uniform_N = sampling.uniforms([row.key for row in rows for _ in range(width)], at)
        tokens_N = sampling.choose(logits_NV, self.settings.temperature, self.settings.top_p, uniform_N)
        chosen_N = logits_NV.gather(-1, tokens_N[:, None])[:, 0] - logits_NV.logsumexp(-1)
        tokens, logprobs = tokens_N.view(-1, width).tolist(), chosen_N.view(-1, width).tolist()
        if chosen_N.isnan().any():
            raise ModelError(f"{self.name}: its logits are NaN. The weights are broken: train again, or use float32.")
        counts, ended = [], []
        for row, drawn, weights, guess in zip(rows, tokens, logprobs, guesses, strict=True):
            count, end = self._extend(row, drawn, weights, guess)
            counts.append(count)
            ended.append(end)
        return counts, ended

    def _extend(self, row: Row, drawn: list[int], logprobs: list[float], guess: list[int]) -> tuple[int, Completion | None]:
        """Append what was drawn, as far as the guesses before it were right or the answer ends."""
        for count, (token, logprob) in enumerate(zip(drawn, logprobs, strict=True), start=1):
            row.new.append(token)
            row.logprobs.append(logprob)
            if row.lookup is not None:
                row.lookup.add(token)
            end = self.stopping.completion(row.new, row.logprobs, self.settings)
            if end is not None or count > len(guess) or guess[count - 1] != token:
                break
        if row.lookup is not None:
            row.lookup.learn(len(guess), count - 1)
        return count, end
