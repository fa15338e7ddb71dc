"""Continuous generation and scoring with a plain transformers causal LM, on CPU and GPU.

Generation: prompts go longest first. Each is prefilled once (padded on the right, so the causal mask alone keeps
padding out), its n samples then live as rows of a ragged cache (`slots`). Every step feeds one token per live row;
finished rows leave at once and waiting prompts take their places. Logits are computed only for last positions.

Scoring: each distinct input is one row of a causal forward pass without a cache; the LM head sees only the positions
that are asked about. Continuations that need the same input (the letters of a multiple choice) share a row.

Both are independent of batch and order, up to rounding. Axes: B rows, T positions, V vocabulary, N positions asked for.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from alignment import chat
from alignment.errors import ModelError
from alignment.generate import sampling, scoring, weights
from alignment.generate.completion import Completion, Prompt, Score, Settings
from alignment.generate.slots import Slots
from alignment.hardware import Hardware

__all__ = ["Completion", "Engine", "Prompt", "Score", "Settings", "load"]

NARROW, WIDE = 64, 256  # rows that live at a time; as many as WIDE while their cache stays small
CACHE_BYTES = 1 << 30


@dataclass
class _Row:
    """An answer in the making."""

    prompt: int
    sample: int
    ids: list[int]
    key: int
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Engine:
    """A model and its tokenizer, ready to sample and to score. `batch_size`: rows at a time; unset: what is quick."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, batch_size: int | None = None, name: str = "model") -> None:
        self.model, self.tokenizer, self.batch_size, self.name = model, tokenizer, batch_size, name
        self.body, self.head = model.base_model, model.get_output_embeddings()
        self.device = self.head.weight.device
        self.context = weights.context(model.config, name)
        self.ends = chat.end_ids(tokenizer)
        self.opening = weights.opening(tokenizer)
        self._ends_stop: dict[tuple[str, ...], dict[int, bool]] = {}
        self._check_head()

    @property
    def has_template(self) -> bool:
        """Whether the model can be asked in chat form."""
        return bool(self.tokenizer.chat_template)

    @property
    def facts(self) -> dict[str, str]:
        """What answers may depend on up to rounding: this engine, and how and where it runs the model."""
        config = self.model.config
        where = {"attention": str(config._attn_implementation), "device": self.device.type}
        return {"kind": "plumbline", "dtype": str(self.head.weight.dtype).removeprefix("torch."), **where}

    def encode(self, prompt: Prompt) -> list[int]:
        """Tokenise text behind the model's opening token, never into control tokens; ids pass unchanged."""
        return self.opening + self._plain(prompt) if isinstance(prompt, str) else list(prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without control tokens, spaces as they are."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def generate(
        self, prompts: Sequence[Prompt], settings: Settings, done: Callable[[int, list[Completion]], Any] | None = None
    ) -> list[list[Completion]]:
        """Answer every prompt `settings.samples` times; `done(i, answers)` is called when prompt i has them all."""
        rows = self._rows(prompts, settings)
        answers: list[dict[int, Completion]] = [{} for _ in prompts]
        with _inference(self.model):
            for row, completion in self._decode(rows, settings):
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
                before, after = self._join(prompt, option, i)
                wanted.setdefault(tuple((before + after)[:-1]), []).append(scoring.Ask(i, j, len(before) - 1, after))
        scores: list[dict[int, Score]] = [{} for _ in prompts]
        with _inference(self.model):
            for ask, logprob in scoring.weigh(self.body, self.head, wanted, self.batch_size or NARROW):
                if isnan(logprob):
                    raise ModelError(f"{self.name}: item {ask.item} scores NaN. The weights are broken: train again.")
                option = continuations[ask.item][ask.option]
                text = option if isinstance(option, str) else self.decode(option)
                scores[ask.item][ask.option] = Score(logprob, len(ask.after), len(text.encode()))
                if done is not None and len(scores[ask.item]) == len(continuations[ask.item]):
                    done(ask.item, _in_order(scores[ask.item]))
        return [_in_order(found) for found in scores]

    def _rows(self, prompts: Sequence[Prompt], settings: Settings) -> list[_Row]:
        rows = []
        seen: Counter[tuple[int, ...]] = Counter()
        for i, prompt in enumerate(prompts):
            ids = self.encode(prompt)
            if not ids:
                raise ModelError(f"{self.name}: prompt {i} is empty. Give it at least one token.")
            if len(ids) + settings.max_new_tokens > self.context:
                raise ModelError(
                    f"{self.name}: prompt {i} has {len(ids)} tokens; with {settings.max_new_tokens} new ones it "
                    f"exceeds the model's context of {self.context}. Shorten the prompt or max_new_tokens."
                )
            again = seen[tuple(ids)]
            seen[tuple(ids)] += 1
            rows += [_Row(i, n, ids, sampling.key(settings.seed, ids, again, n)) for n in range(settings.samples)]
        return sorted(rows, key=lambda row: -len(row.ids))  # stable: the samples of a prompt stay together

    def _decode(self, rows: list[_Row], settings: Settings) -> Any:
        """Yield (row, completion) as rows finish."""
        if not rows:
            return
        waiting, live = deque(rows), list[_Row]()
        capacity = len(rows[0].ids) + settings.max_new_tokens
        size = min(self.batch_size or self._quick(capacity), len(rows))
        slots = Slots(self.model.config.num_hidden_layers, size, capacity, self.device)
        while waiting or live:
            # refill when a quarter is free: a prefill of one row costs nearly as much as one of many
            while waiting and (not live or size - len(live) >= max(1, size // 4)):
                admitted = self._admit(waiting, size - len(live))
                cache, sources, logits_BV = self._prefill(admitted)
                ended = self._advance(admitted, logits_BV, settings)
                kept = [k for k, end in enumerate(ended) if end is None]
                if kept:
                    slots.fill(cache, [sources[k] for k in kept], [len(admitted[k].ids) for k in kept])
                    live += [admitted[k] for k in kept]
                yield from ((row, end) for row, end in zip(admitted, ended, strict=True) if end is not None)
            if not live:
                continue
            cache, mask_BT, positions_B1 = slots.step()
            tokens_B1 = torch.tensor([[row.new[-1]] for row in live], device=self.device)
            hidden = self.body(
                input_ids=tokens_B1,
                attention_mask=mask_BT,
                position_ids=positions_B1,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            ended = self._advance(live, self.head(hidden[:, -1]), settings)
            if any(ended):
                yield from ((row, end) for row, end in zip(live, ended, strict=True) if end is not None)
                live = [live[i] for i in slots.keep([end is None for end in ended])]

    def _quick(self, capacity: int) -> int:
        """How many rows to decode at a time: many where a row's keys and values are few."""
        config = self.model.config
        row_bytes = 2 * config.num_hidden_layers * config.hidden_size * self.head.weight.element_size() * capacity
        return max(NARROW, min(WIDE, CACHE_BYTES // row_bytes))

    def _admit(self, waiting: deque[_Row], free: int) -> list[_Row]:
        """Take as many rows as there are free slots and as one pass may hold tokens."""
        admitted = [waiting.popleft()]
        width = len(admitted[0].ids)
        while waiting and len(admitted) < free and (len(admitted) + 1) * width <= scoring.PASS_TOKENS:
            admitted.append(waiting.popleft())
        return admitted

    def _prefill(self, rows: list[_Row]) -> tuple[DynamicCache, list[int], torch.Tensor]:
        """Run each distinct prompt once; return the cache, each row's place in it, and each row's last logits."""
        places: dict[int, int] = {}
        for row in rows:
            places.setdefault(row.prompt, len(places))
        sources = [places[row.prompt] for row in rows]
        distinct = list({row.prompt: row.ids for row in rows}.values())
        cache = DynamicCache(config=self.model.config)
        hidden = self.body(
            input_ids=scoring.padded(distinct, self.device), past_key_values=cache, use_cache=True
        ).last_hidden_state
        last_B = torch.tensor([len(ids) - 1 for ids in distinct], device=self.device)
        logits_BV = self.head(hidden[torch.arange(len(distinct), device=self.device), last_B])
        return cache, sources, logits_BV[sources]

    def _advance(self, rows: list[_Row], logits_BV: torch.Tensor, settings: Settings) -> list[Completion | None]:
        """Draw the next token of each row; return a completion for those that end with it."""
        logits_BV = logits_BV.float()
        uniform_B = None
        if settings.temperature > 0:
            uniform_B = sampling.uniforms([row.key for row in rows], [len(row.new) for row in rows])
        tokens_B = sampling.choose(logits_BV, settings.temperature, settings.top_p, uniform_B)
        chosen_B = logits_BV.gather(-1, tokens_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
        if chosen_B.isnan().any():
            raise ModelError(f"{self.name}: its logits are NaN. The weights are broken: train again, or use float32.")
        for row, token, logprob in zip(rows, tokens_B.tolist(), chosen_B.tolist(), strict=True):
            row.new.append(token)
            row.logprobs.append(logprob)
        return [self._completion(row, settings) for row in rows]

    def _completion(self, row: _Row, settings: Settings) -> Completion | None:
        last = row.new[-1]
        if last in self.ends:
            return Completion(self.decode(row.new[:-1]), row.new, row.logprobs, "stop")
        if settings.stop and self._may_end_stop(last, settings.stop):
            # a token is at least one byte, so a stop string that has just ended lies within this tail
            tail = self.decode(row.new[-max(len(stop.encode()) for stop in settings.stop) - 4 :])
            if any(stop in tail for stop in settings.stop):
                text = self.decode(row.new)
                cuts = [at for stop in settings.stop if (at := text.find(stop)) >= 0]
                if cuts:
                    return Completion(text[: min(cuts)], row.new, row.logprobs, "stop")
        if len(row.new) >= settings.max_new_tokens:
            return Completion(self.decode(row.new), row.new, row.logprobs, "length")
        return None

    def _may_end_stop(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether a token can complete a stop string: it holds a last character, or a part. Found once per token."""
        known = self._ends_stop.setdefault(stop, {})
        if token not in known:
            text = self.decode([token])
            known[token] = "\ufffd" in text or any(s[-1] in text or (s[-1].isspace() and not text.strip()) for s in stop)
        return known[token]

    def _join(self, prompt: Prompt, option: Prompt, index: int) -> tuple[list[int], list[int]]:
        """Ids before and in a continuation. Tokens may merge where text meets text: from there it is scored."""
        before = self.encode(prompt)
        if isinstance(prompt, str) and isinstance(option, str):
            whole = self.encode(prompt + option)
            same = next((k for k, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
            before, after = whole[: min(same, len(whole) - 1)], whole[min(same, len(whole) - 1) :]
        else:
            after = self._plain(option) if isinstance(option, str) else list(option)
        if not before or not after:
            empty = "prompt" if not before else "continuation"
            raise ModelError(f"{self.name}: item {index} has an empty {empty}. Give it at least one token.")
        if len(before) + len(after) - 1 > self.context:
            raise ModelError(
                f"{self.name}: item {index} has {len(before) + len(after)} tokens, the model's context is "
                f"{self.context}. Shorten the prompt (fewer shots)."
            )
        return before, after

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _check_head(self) -> None:
        """Refuse a model whose logits are not simply head(body): ours would differ from its own."""
        probe = torch.tensor([[0, 1]], device=self.device)
        with _inference(self.model):
            own = self.model(input_ids=probe, use_cache=False).logits
            ours = self.head(self.body(input_ids=probe, use_cache=False).last_hidden_state)
        if not torch.allclose(own.float(), ours.float(), rtol=1e-2, atol=1e-3):
            kind = type(self.model).__name__
            raise ModelError(f"{self.name}: {kind} changes its logits after the LM head; this engine does not.")


class _inference:
    """No gradients, no dropout; the model's training flag is put back."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.training, self.mode = model, model.training, torch.inference_mode()

    def __enter__(self) -> None:
        self.model.eval()
        self.mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.mode.__exit__(*error)
        self.model.train(self.training)


def _in_order(found: dict[int, Any]) -> list[Any]:
    return [found[i] for i in range(len(found))]


def load(argument: str | Path, hardware: Hardware, batch_size: int | None = None) -> Engine:
    """Open a run directory, a model folder or ORG/NAME@REVISION as an engine."""
    model, tokenizer = weights.open_model(argument, hardware)
    return Engine(model, tokenizer, batch_size, str(argument))
