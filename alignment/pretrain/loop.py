"""Train a base model from scratch: a plain loop on accelerate.

One update is the recipe's batch, in as many forward passes as the machine needs. The loss is the sum over all tokens
divided by their number over all passes and ranks, so that neither changes the gradient. Weights and moments are
float32. Where the profile says bfloat16, a GPU computes under autocast, and a CPU with a bfloat16 copy of the weights
(`models.masters`). The axes: B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

import math
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from alignment import hardware as machine
from alignment import meter
from alignment.corpus.shards import Shards
from alignment.errors import DataError, ModelError, RecipeError
from alignment.hardware import Hardware
from alignment.models import build, presets
from alignment.models.masters import MasterAdamW
from alignment.models.presets import Shape
from alignment.pretrain import baselines, batches, checkpoint, heldout
from alignment.pretrain.batches import Batches
from alignment.pretrain.schedule import SCHEDULES
from alignment.recipe import Pretrain, PretrainOptim
from alignment.run import Run

Numbers = dict[str, float | int | str]
BASELINE_TOKENS = 8_000_000  # training text that the byte statistics are counted on, at most


def train(recipe: Pretrain, here: Run, hardware: Hardware) -> Numbers:
    """Write the base model to `model/`; return its held-out bits per byte, those of the baselines, and the speed."""
    torch.set_num_threads(hardware.threads)
    accelerator = Accelerator(cpu=hardware.device == "cpu", mixed_precision="bf16" if hardware.dtype == "bfloat16" else "no")
    try:
        machine.check_processes(hardware, accelerator.num_processes)
        return _train(recipe, here, hardware, accelerator)
    finally:
        accelerator.end_training()


def _train(recipe: Pretrain, here: Run, hardware: Hardware, accelerator: Accelerator) -> Numbers:
    folder = here.inputs[recipe.data].path
    tokenizer = build.read_tokenizer(folder / "tokenizer")
    seen, unseen = Shards.open(folder, "train"), Shards.open(folder, "heldout")
    shape = presets.resolve(recipe.model, len(tokenizer), recipe.sequence_length)
    bare = build.build(shape, tokenizer, hardware, seed=recipe.seed, init_std=recipe.init_std)
    bare.config.use_cache = False
    if hardware.recompute:
        bare.gradient_checkpointing_enable()
    if hardware.device == "cpu":
        optim = recipe.optim
        optimizer: Any = MasterAdamW(
            bare,
            getattr(torch, hardware.dtype),
            lr=optim.learning_rate,
            betas=optim.betas,
            weight_decay=optim.weight_decay,
            clip=optim.clip,
        )
        model = accelerator.prepare(bare)
    else:
        model, optimizer = accelerator.prepare(bare, adamw(bare, recipe.optim))
    here.say(
        f"{presets.parameters(shape):,} parameters, {len(seen.tokens):,} tokens of text, "
        f"{hardware.dtype} ({hardware.dtype_reason})"
    )
    learner = Learner(recipe, hardware, accelerator, model, optimizer, tokenizer.bos_token_id)
    numbers = _updates(learner, here, seen, shape)
    if isinstance(optimizer, MasterAdamW):
        optimizer.restore()
    numbers |= _score(learner, seen, unseen, tokenizer)
    weights = accelerator.get_state_dict(model)  # gathers what is sharded, so every rank calls it
    if accelerator.is_main_process:
        build.save(accelerator.unwrap_model(model), folder / "tokenizer", here.path / "model", weights)
        shutil.rmtree(here.path / "checkpoints", ignore_errors=True)
    accelerator.wait_for_everyone()
    return {"parameters": presets.parameters(shape), **numbers}


def adamw(model: nn.Module, optim: PretrainOptim) -> torch.optim.AdamW:
    """AdamW as in the paper (2.3); norms are not decayed. One kernel updates all tensors."""
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    groups = [
        {"params": [tensor for tensor in trained if tensor.dim() > 1], "weight_decay": optim.weight_decay},
        {"params": [tensor for tensor in trained if tensor.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas, fused=True)


@dataclass(frozen=True)
class Learner:
    """What one update needs."""

    recipe: Pretrain
    hardware: Hardware
    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    bos: int

    def update(self, batch: NDArray[np.int64], rate: float, where: str) -> tuple[float, float]:
        """Learn from one global batch (B, T + 1) at one learning rate; return its loss per token and gradient norm."""
        accelerator = self.accelerator
        _, passes = machine.split(self.hardware, len(batch), batch.shape[1] - 1)
        mine = batches.share(batch, accelerator.process_index, accelerator.num_processes)
        tokens = batch[:, 1:].size
        total = torch.zeros((), device=accelerator.device)
        masters = self.optimizer if isinstance(self.optimizer, MasterAdamW) else None
        for number, part in enumerate(np.split(mine, passes), start=1):
            with nullcontext() if masters or number == passes else accelerator.no_sync(self.model):
                nats = self._nats(part)
                accelerator.backward(nats * (accelerator.num_processes / tokens))  # ranks are averaged: undo it
            if masters:
                masters.collect()  # every pass is averaged over the ranks, and added up in float32
            total += nats.detach()
        loss: float = accelerator.reduce(total, "sum").item() / tokens
        weights = masters.masters() if masters else self.model.parameters()
        norm = float(accelerator.clip_grad_norm_(list(weights), self.recipe.optim.clip))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise ModelError(f"{where}: loss {loss}, gradient norm {norm}. Lower optim.learning_rate, or look at the data.")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, norm

    def _nats(self, part: NDArray[np.int64]) -> torch.Tensor:
        """Summed negative log-likelihood of a forward pass. No mask and no cache: packed documents rely on it."""
        places = None if self.recipe.attend_across_documents else batches.positions(part[:, :-1], self.bos)
        device = self.accelerator.device
        logits_BTV = self.model(
            input_ids=torch.from_numpy(part[:, :-1]).to(device),
            position_ids=None if places is None else torch.from_numpy(places).to(device),
            use_cache=False,
        ).logits
        targets_BT = torch.from_numpy(part[:, 1:]).to(device)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), reduction="sum")


def _updates(learner: Learner, here: Run, seen: Shards, shape: Shape) -> Numbers:
    recipe, accelerator = learner.recipe, learner.accelerator
    source = Batches(seen.tokens, recipe.sequence_length, recipe.batch_size, recipe.seed)
    tokens_per_update = recipe.batch_size * recipe.sequence_length
    updates = recipe.tokens // tokens_per_update
    if updates < 1:
        raise RecipeError(f"tokens: {recipe.tokens} is less than one update of {tokens_per_update}. Raise it.")
    bits_per_nat = len(seen.tokens) / float(seen.bytes.sum()) / math.log(2)
    flops = presets.flops_per_token(shape, recipe.sequence_length) + 6 * shape.vocab * shape.width
    peak = meter.matmul_peak(learner.hardware, accelerator.device) * accelerator.num_processes
    start = checkpoint.read(here.path / "checkpoints", learner.model, learner.optimizer) if here.resumed else 0
    here.rewind(start)
    schedule = SCHEDULES[recipe.optim.schedule]
    loss, logged, began = math.nan, start, time.perf_counter()
    first = began
    with here.progress("pretrain", updates - start) as bar:
        for step in range(start, updates):
            rate = recipe.optim.learning_rate * schedule(step, updates, recipe.optim.warmup_steps)
            done = step + 1
            loss, norm = learner.update(source.batch(step), rate, f"update {done}")
            bar.advance(loss=loss)
            if done % recipe.log_every == 0 or done == updates:
                now = time.perf_counter()
                speed = (done - logged) * tokens_per_update / (now - began)
                logged, began = done, now
                here.log(
                    step=done,
                    tokens=done * tokens_per_update,
                    loss=loss,
                    bits_per_byte=loss * bits_per_nat,
                    learning_rate=rate,
                    grad_norm=norm,
                    tokens_per_second=speed,
                    mfu=flops * speed / peak,
                    memory_bytes=meter.memory_bytes(accelerator.device),
                )
            if done % recipe.checkpoint_every == 0:
                checkpoint.write(here.path / "checkpoints", done, learner.model, learner.optimizer, main=here.main)
    seconds = time.perf_counter() - first
    return {
        "updates": updates,
        "tokens": updates * tokens_per_update,
        "epochs": updates * recipe.batch_size / source.windows,
        "loss": loss,
        "tokens_per_second": (updates - start) * tokens_per_update / seconds,
    }


def _score(learner: Learner, seen: Shards, unseen: Shards, tokenizer: Any) -> Numbers:
    """Held-out bits per byte, by domain and whole, beside what byte statistics and gzip reach on the same text."""
    recipe, accelerator = learner.recipe, learner.accelerator
    text = baselines.text_bytes(unseen.tokens, tokenizer)
    if len(text) != unseen.bytes.sum():
        raise DataError(f"{unseen.path}: {unseen.bytes.sum()} bytes recorded, {len(text)} decoded. Write the shards anew.")
    micro, _ = machine.split(learner.hardware, recipe.batch_size, recipe.sequence_length)
    documents = [(unseen[number].astype(np.int64), int(domain)) for number, domain in enumerate(unseen.domain)]
    nats = heldout.nats(accelerator, learner.model, documents, len(unseen.domains), recipe.sequence_length, micro)
    sizes = np.bincount(unseen.domain, unseen.bytes, len(unseen.domains))
    numbers: Numbers = {**heldout.bits_per_byte(nats, sizes, unseen.domains), "heldout_bytes": len(text)}
    if accelerator.is_main_process:
        sample = seen.tokens[:BASELINE_TOKENS]
        numbers |= baselines.bits_per_byte(baselines.text_bytes(sample, tokenizer), text)
    return numbers
