"""Generation and scoring with a causal LM, on CPU and GPU: `load` gives an Engine, with `generate` and `score`.

    prompts -> ids -> what they share (`prefixes`), computed once -> answers (`decode`) or log-probabilities (`scoring`)

Both are independent of batch and order, up to rounding. The weights are taken as they are when the engine is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignment.errors import ModelError
from alignment.generate import forward, prefixes, sampling, scoring, weights
from alignment.generate.completion import Completion, Prompt, Score, Settings
from alignment.generate.decode import Decoder, Row
from alignment.generate.stopping import Stopping
from alignment.generate.words import Words
from alignment.hardware import Hardware
from alignment.models import build

__all__ = ["Completion", "Engine", "Prompt", "Score", "Settings", "load"]

NARROW, WIDE = 64, 256  # rows that live at a time; as many as WIDE while their cache stays small
CACHE_BYTES = 1 << 30
SPLIT_GAIN = 0.25  # of the tokens to read: what it must save to decode prompts in smaller groups


class Engine(Words):
    """A model and its tokenizer, ready to sample and to score. `batch_size`: rows at a time; unset: what is quick."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int | None = None, name: str = "model") -> None:
        super().__init__(tokenizer, model.config, name)
        self.batch_size, self.config, self.forward = batch_size, model.config, forward.of(model)
        self.device = self.forward.device
        self.stopping = Stopping(self.ends, self.decode)
        if self.forward is not model:
            self._check_logits(model)

    @property
    def facts(self) -> dict[str, str]:
        """What answers may depend on up to rounding: this engine, and how and where it runs the model."""
        where = {"attention": self.forward.attention, "device": self.device.type}
        return {"kind": "plumbline", "dtype": str(self.forward.dtype).removeprefix("torch."), **where}

    def generate(
        self, prompts: Sequence[Prompt], settings: Settings, done: Callable[[int, list[Completion]], Any] | None = None
    ) -> list[list[Completion]]:
        """Answer every prompt `settings.samples` times; `done(i, answers)` is called when prompt i has them all."""
        ids = self.prompts(prompts, settings)
        rows = self._rows(ids, settings)
        decoder = Decoder(self.forward, self.stopping, settings, self.name)
        answers: list[dict[int, Completion]] = [{} for _ in prompts]
        with _inference(self.forward.model):
            tree = prefixes.tree(ids, [len(prompt) - 1 for prompt in ids], SPLIT_GAIN)
            for prefix, depth, below in prefixes.walk(self.forward, tree):
                group = [row for i in below for row in rows[i]]
                for row, completion in decoder.run(prefix, depth, group, self._size(group, depth, settings)):
                    answers[row.prompt][row.sample] = completion
                    if done is not None and len(answers[row.prompt]) == settings.samples:
                        done(row.prompt, _in_order(answers[row.prompt]))
        return [_in_order(found) for found in answers]

    def score(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[Prompt]],
        done: Callable[[int, list[Score]], Any] | None = None,
    ) -> list[list[Score]]:
        """Log-probability of each continuation after its prompt. Text after text is tokenised as one text."""
        wanted: dict[tuple[int, ...], list[scoring.Ask]] = {}
        for i, (prompt, options) in enumerate(zip(prompts, continuations, strict=True)):
            for j, option in enumerate(options):
                before, after = self.join(prompt, option, i)
                wanted.setdefault(tuple((before + after)[:-1]), []).append(scoring.Ask(i, j, len(before) - 1, after))
        scores: list[dict[int, Score]] = [{} for _ in prompts]
        with _inference(self.forward.model):
            for ask, logprob in scoring.weigh(self.forward, wanted, self.batch_size or NARROW):
                if isnan(logprob):
                    raise ModelError(f"{self.name}: item {ask.item} scores NaN. The weights are broken: train again.")
                option = continuations[ask.item][ask.option]
                text = option if isinstance(option, str) else self.decode(option)
                scores[ask.item][ask.option] = Score(logprob, len(ask.after), len(text.encode()))
                if done is not None and len(scores[ask.item]) == len(continuations[ask.item]):
                    done(ask.item, _in_order(scores[ask.item]))
        return [_in_order(found) for found in scores]

    def _rows(self, prompts: Sequence[list[int]], settings: Settings) -> list[list[Row]]:
        """The samples of each prompt; a prompt that comes again gets other random numbers."""
        rows = []
        seen: Counter[tuple[int, ...]] = Counter()
        for i, ids in enumerate(prompts):
            again = seen[tuple(ids)]
            seen[tuple(ids)] += 1
            keys = [sampling.key(settings.seed, ids, again, n) for n in range(settings.samples)]
            rows.append([Row(i, n, ids, key) for n, key in enumerate(keys)])
        return rows

    def _size(self, rows: Sequence[Row], depth: int, settings: Settings) -> int:
        """How many rows to decode at a time: many where a row's keys and values are few."""
        own = max(len(row.ids) for row in rows) - depth + settings.max_new_tokens
        number = self.forward.dtype.itemsize
        row_bytes = 2 * self.config.num_hidden_layers * self.config.hidden_size * number * own
        return min(self.batch_size or max(NARROW, min(WIDE, CACHE_BYTES // row_bytes)), len(rows))

    def _check_logits(self, model: Any) -> None:
        """Refuse a model whose own logits are not those of our forward."""
        build.check_logits(self.config)
        with _inference(model):
            own = model(input_ids=torch.tensor([[0, 1]], device=self.device), use_cache=False).logits[0]
            ours = self.forward.logits(self.forward.rows(None, [[0, 1]])[0])
        rounded = own.dtype != torch.float32  # two ways to compute in 16 bits
        near = float(own.abs().nan_to_num().max()) / 16 if rounded else 1e-3
        if not torch.allclose(own.float(), ours.float(), rtol=1e-2, atol=near, equal_nan=True):
            kind = type(model).__name__
            raise ModelError(f"{self.name}: {kind} changes its logits after the LM head; this engine does not.")


@contextmanager
def _inference(model: nn.Module | None) -> Iterator[None]:
    """No gradients, no dropout; the model's training flag is put back."""
    training = model is not None and model.training
    if model is not None:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if model is not None:
            model.train(training)


def _in_order(found: dict[int, Any]) -> list[Any]:
    return [found[i] for i in range(len(found))]


def load(argument: str | Path, hardware: Hardware, batch_size: int | None = None) -> Engine:
    """Open a run directory, a model folder or ORG/NAME@REVISION as an engine."""
    model, tokenizer = weights.open_model(argument, hardware)
    return Engine(model, tokenizer, batch_size, str(argument))
