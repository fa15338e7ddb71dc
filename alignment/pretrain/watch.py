"""What a run says while it trains: metrics, held-out bits per byte, samples, and a tracker where one is asked for."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from alignment import hardware as machine
from alignment import meter
from alignment.corpus.shards import Shards
from alignment.errors import RecipeError
from alignment.models import presets
from alignment.models.presets import Shape
from alignment.pretrain import heldout
from alignment.pretrain.learner import Learner, Update
from alignment.recipe import Pretrain
from alignment.run import Run, write_text

SAMPLE_TOKENS = 40  # a prompt's continuation, greedy


@dataclass(frozen=True)
class Unseen:
    """The held-out documents as the score needs them."""

    documents: list[heldout.Window]
    bytes: NDArray[Any]  # of text, by domain
    domains: tuple[str, ...]

    @classmethod
    def of(cls, shards: Shards) -> Unseen:
        """Read a split into memory."""
        documents = [(shards[number].astype(np.int64), int(domain)) for number, domain in enumerate(shards.domain)]
        return cls(documents, np.bincount(shards.domain, shards.bytes, len(shards.domains)), shards.domains)

    def bits_per_byte(self, learner: Learner) -> dict[str, float]:
        """Score the model as it stands; every rank calls it."""
        recipe = learner.recipe
        micro, _ = machine.split(learner.hardware, recipe.batch_size, recipe.sequence_length)
        nats = heldout.nats(
            learner.accelerator, learner.model, self.documents, len(self.domains), recipe.sequence_length, micro
        )
        return heldout.bits_per_byte(nats, self.bytes, self.domains)


def bytes_per_token(seen: Shards, mixture: Mapping[str, float] | None) -> float:
    """The text behind a token of training: of all shards, or as the domains are weighted."""
    tokens_D = np.bincount(seen.domain, np.diff(seen.offsets), len(seen.domains))
    bytes_D = np.bincount(seen.domain, seen.bytes, len(seen.domains))
    weights_D = tokens_D if mixture is None else np.array([mixture.get(name, 0.0) for name in seen.domains])
    return float(weights_D @ (bytes_D / np.maximum(tokens_D, 1)) / weights_D.sum())


class Watch:
    """Writes metrics.jsonl and samples.jsonl, and forwards the numbers to the tracker."""

    def __init__(self, learner: Learner, here: Run, seen: Shards, shape: Shape, start: int) -> None:
        self.learner, self.here = learner, here
        recipe, accelerator = learner.recipe, learner.accelerator
        self.tokens = recipe.batch_size * recipe.sequence_length
        self.bits_per_nat = 1 / bytes_per_token(seen, recipe.mixture) / math.log(2)
        self.operations = presets.flops_per_token(shape, recipe.sequence_length) + 6 * shape.vocab * shape.width
        self.peak = meter.matmul_peak(learner.hardware, accelerator.device) * accelerator.num_processes
        self.logged, self.began = start, time.perf_counter()

    def log(self, done: int, update: Update, rate: float, epochs: dict[str, float], age: float) -> None:
        """Write a row. `age`: seconds since the latest checkpoint was whole."""
        now = time.perf_counter()
        speed = (done - self.logged) * self.tokens / (now - self.began)
        self.logged, self.began = done, now
        self._write(
            step=done,
            tokens=done * self.tokens,
            loss=update.loss,
            bits_per_byte=update.loss * self.bits_per_nat,
            learning_rate=rate,
            grad_norm=update.norm,
            tokens_per_second=speed,
            mfu=self.operations * speed / self.peak,
            memory_bytes=meter.memory_bytes(self.learner.accelerator.device),
            skipped=self.learner.guard.skipped,
            checkpoint_age_seconds=round(age, 1),
            **{f"epochs.{name}" if name else "epochs": passes for name, passes in epochs.items()},
        )

    def validate(self, done: int, unseen: Unseen, tokenizer: Any) -> None:
        """Score held-out text and continue the prompts. Its time is none of the training's."""
        paused = time.perf_counter()
        rates = unseen.bits_per_byte(self.learner)
        self._write(step=done, **{f"heldout_{name}": rate for name, rate in rates.items()})
        self.here.say(f"update {done}: held-out bits per byte {rates['bits_per_byte']:.4f}")
        texts = [continued(self.learner, tokenizer, prompt) for prompt in self.learner.recipe.prompts]
        if self.here.main and texts:
            with (self.here.path / "samples.jsonl").open("a", encoding="utf-8") as file:
                for prompt, text in zip(self.learner.recipe.prompts, texts, strict=True):
                    file.write(json.dumps({"step": done, "prompt": prompt, "text": text}, ensure_ascii=False) + "\n")
        self.began += time.perf_counter() - paused

    def _write(self, step: int, **row: Any) -> None:
        self.here.log(step=step, **row)
        if self.learner.recipe.tracker:
            self.learner.accelerator.log(row, step=step)


def rewind_samples(here: Run, step: int) -> None:
    """Forget samples after `step`: a resumed training writes them again."""
    path = here.path / "samples.jsonl"
    if here.main and path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step))


@torch.no_grad()
def continued(learner: Learner, tokenizer: Any, prompt: str) -> str:
    """The likeliest continuation of a prompt, token by token. Every rank calls it, as sharded models need it."""
    ids = [learner.bos, *tokenizer.encode(prompt, add_special_tokens=False)]
    begin = len(ids)
    learner.model.eval()
    while len(ids) < begin + SAMPLE_TOKENS and ids[-1] != tokenizer.eos_token_id:
        seen = torch.tensor([ids[-learner.recipe.sequence_length :]], device=learner.accelerator.device)
        ids.append(int(learner.model(input_ids=seen)[0].argmax()))
    learner.model.train()
    return str(tokenizer.decode(ids[begin:], skip_special_tokens=True))


def check_tracker(tracker: str | None) -> None:
    """Refuse a tracker that is not installed, before anything is trained."""
    if tracker and find_spec(tracker) is None:
        raise RecipeError(f"tracker: {tracker} is not installed. pip install {tracker}, or leave the field out.")


def begin_tracker(accelerator: Accelerator, recipe: Pretrain, here: Run) -> None:
    """Open the tracker under the run's name, with the numbers of the recipe."""
    if recipe.tracker:
        words = {"tokens": recipe.tokens, "batch_size": recipe.batch_size, **recipe.optim.model_dump(mode="json")}
        numbers = {name: value for name, value in words.items() if isinstance(value, int | float | str)}
        accelerator.init_trackers(here.path.parent.name, config=numbers)
