"""Train a base model from scratch: a plain loop on accelerate.

What an update sees is a function of seed and step (`batches`), what it does is `learner`, whether it is made `guard`,
what is kept of it `checkpoint`, what is said of it `watch`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from alignment import hardware as machine
from alignment import tokenizer as vocabulary
from alignment.corpus.shards import Shards
from alignment.errors import DataError, RecipeError
from alignment.hardware import Hardware
from alignment.models import build, presets
from alignment.models.masters import MasterAdamW
from alignment.models.presets import Shape
from alignment.pretrain import baselines, branch, checkpoint, domains, learner, loss, schedule, watch
from alignment.pretrain.batches import Batches
from alignment.pretrain.checkpoint import Checkpoints
from alignment.pretrain.guard import Guard
from alignment.pretrain.learner import Learner
from alignment.pretrain.watch import Unseen, Watch
from alignment.recipe import Pretrain
from alignment.run import Run

Numbers = dict[str, float | int | str]
BASELINE_TOKENS = 8_000_000  # training text that the byte statistics are counted on, at most
BASELINE_BYTES = 8_000_000  # held-out text that they are measured on, at most


def train(recipe: Pretrain, here: Run, hardware: Hardware) -> Numbers:
    """Write the base model to `model/`; return its held-out bits per byte, those of the baselines, and the speed."""
    watch.check_tracker(recipe.tracker)
    torch.set_num_threads(hardware.threads)
    accelerator = Accelerator(
        cpu=hardware.device == "cpu",
        mixed_precision="bf16" if hardware.dtype == "bfloat16" else "no",
        log_with=recipe.tracker,
        project_dir=str(here.path / "eval"),  # outside the seal, as what a tracker writes is its own
    )
    try:
        machine.check_processes(hardware, accelerator.num_processes)
        return _train(recipe, here, hardware, accelerator)
    finally:
        accelerator.end_training()


def _train(recipe: Pretrain, here: Run, hardware: Hardware, accelerator: Accelerator) -> Numbers:
    folder = here.inputs[recipe.data].path
    tokenizer = build.read_tokenizer(folder / "tokenizer")
    seen, unseen = (_opened(folder, split) for split in ("train", "heldout"))
    source = Batches.of(recipe, seen)
    domains.check_epochs(source.epochs(_count(recipe)), recipe.max_epochs)
    shape = _shape(recipe, vocabulary.rows(folder / "tokenizer", len(tokenizer)))
    bare = build.build(shape, tokenizer, hardware, seed=recipe.seed, init_std=recipe.init_std, length=recipe.sequence_length)
    bare.config.use_cache = False
    loss.attach(bare)
    if hardware.recompute:
        bare.gradient_checkpointing_enable()
    if hardware.compile:
        bare.base_model.compile()  # the head and its loss stay as they are
    if hardware.device == "cpu":
        optimizer: Any = learner.masters(bare, recipe.optim, getattr(torch, hardware.dtype))
        model = accelerator.prepare(bare)
    else:
        learner.keep_float32(accelerator)
        model, optimizer = accelerator.prepare(bare, learner.adamw(bare, recipe.optim))
    here.say(
        f"{presets.parameters(shape):,} parameters, {len(seen.tokens):,} tokens of text, "
        f"{hardware.dtype} ({hardware.dtype_reason})"
    )
    watch.begin_tracker(accelerator, recipe, here)
    learns = Learner(recipe, hardware, accelerator, model, optimizer, tokenizer.bos_token_id, Guard(recipe.guard))
    held = Unseen.of(unseen)
    numbers = _updates(learns, here, source, shape, seen, held, tokenizer)
    if isinstance(optimizer, MasterAdamW):
        optimizer.restore()
    numbers |= _score(learns, seen, unseen, held, tokenizer)
    weights = accelerator.get_state_dict(model)  # gathers what is sharded, so every rank calls it
    if accelerator.is_main_process:
        build.save(accelerator.unwrap_model(model), folder / "tokenizer", here.path / "model", weights)
    accelerator.wait_for_everyone()
    return {"parameters": presets.parameters(shape), **numbers}


def _opened(folder: Path, split: str) -> Shards:
    """Map a split, and refuse one that another tokenizer wrote."""
    shards = Shards.open(folder, split)
    found = vocabulary.digest(vocabulary.load(folder / "tokenizer"))
    if shards.about["tokenizer"] != found:
        raise DataError(
            f"{shards.path}: written with tokenizer {shards.about['tokenizer'][:12]}, beside it lies {found[:12]}. "
            "Write the shards anew, or put their tokenizer back."
        )
    return shards


def _count(recipe: Pretrain) -> int:
    """Updates of the whole run."""
    tokens_per_update = recipe.batch_size * recipe.sequence_length
    if recipe.tokens < tokens_per_update:
        raise RecipeError(f"tokens: {recipe.tokens} is less than one update of {tokens_per_update}. Raise it.")
    return recipe.tokens // tokens_per_update


def _shape(recipe: Pretrain, vocab: int) -> Shape:
    """The model's shape for this tokenizer. Raises RecipeError where a sequence is longer than a preset's context."""
    shape = presets.resolve(recipe.model, vocab, recipe.sequence_length)
    preset = presets.PRESETS.get(recipe.model.preset or "", shape)
    if recipe.sequence_length > preset.max_positions:
        raise RecipeError(
            f"sequence_length: {recipe.sequence_length} is more than the {preset.max_positions} positions of "
            f"{recipe.model.preset}. Shorten it, or give the model's shape in place of the preset."
        )
    return shape


def _updates(
    learns: Learner, here: Run, source: Batches, shape: Shape, seen: Shards, unseen: Unseen, tokenizer: Any
) -> Numbers:
    recipe = learns.recipe
    updates = _count(recipe)
    saved = Checkpoints(here.path / "checkpoints", here.manifest.get("fingerprint"), main=here.main)
    turn = branch.kept(here)
    start, made = _resume(learns, here, saved, updates)
    if here.main and updates > recipe.checkpoint_every:
        saved.check_space(presets.parameters(shape))
    here.rewind(start)
    watch.rewind_samples(here, start)
    seeing = Watch(learns, here, seen, shape, start)
    first = time.perf_counter()
    try:
        with here.progress("pretrain", updates - start) as bar:
            for step in range(start, updates):
                done = step + 1
                rate = recipe.optim.learning_rate * schedule.share(step, updates, recipe.optim)
                update = learns.update(source.batch(step), rate, f"update {done}")
                if update.refusal:
                    here.say(f"update {done} is left out: {update.refusal}")
                else:
                    made = update.loss
                    if done % recipe.log_every == 0 or done == updates:
                        seeing.log(done, update, rate, source.epochs(done), saved.age)
                bar.advance(loss=update.loss)
                if recipe.validate_every and done % recipe.validate_every == 0:
                    seeing.validate(done, unseen, tokenizer)
                state = {"guard": learns.guard.state(), "loss": made}
                if recipe.keep_turn and done == schedule.first_turn(updates, recipe.optim):
                    turn.save(done, learns.model, learns.optimizer, state)
                    turn.wait()  # a checkpoint from here on means that the turn is kept
                if done % recipe.checkpoint_every == 0 or _due(learns, saved):
                    saved.save(done, learns.model, learns.optimizer, state)
    finally:
        saved.wait()  # also where the run is interrupted: what was begun is finished
    seconds = time.perf_counter() - first
    tokens = recipe.batch_size * recipe.sequence_length
    epochs = source.epochs(updates)
    return {
        "updates": updates,
        "tokens": updates * tokens,
        **{f"epochs.{name}" if name else "epochs": passes for name, passes in epochs.items()},
        "skipped": learns.guard.skipped,
        "loss": made,
        **({"tokens_per_second": (updates - start) * tokens / seconds} if updates > start else {}),
    }


def _resume(learns: Learner, here: Run, saved: Checkpoints, updates: int) -> tuple[int, float]:
    """Take the newest whole checkpoint, of this run or of the one it goes on from; return its step (or 0) and loss.

    The main process chooses.
    """
    first = branch.found(learns.recipe, here, updates) if learns.recipe.after else None
    found = [None]
    if here.main:
        found = [saved.newest(here.say) if here.resumed else None]
        if first and found[0] is None:
            found = [first.newest(here.say)]
    broadcast_object_list(found)
    if found[0] is None:
        return 0, math.nan
    state = checkpoint.load(found[0], learns.model, learns.optimizer)
    learns.guard.restore(state["guard"])
    here.say(f"resumed from {found[0].name}")
    return int(state["step"]), float(state["loss"])


def _due(learns: Learner, saved: Checkpoints) -> bool:
    """Whether the latest checkpoint is too old. The main process's clock counts, on every rank."""
    minutes = learns.recipe.checkpoint_minutes
    if minutes is None:
        return False
    passed = time.monotonic() - saved.begun
    late = torch.tensor(float(saved.main and passed > 60 * minutes), device=learns.accelerator.device)
    return bool(learns.accelerator.reduce(late, "sum").item())


def _score(learns: Learner, seen: Shards, unseen: Shards, held: Unseen, tokenizer: Any) -> Numbers:
    """Held-out bits per byte, by domain and whole, beside what byte statistics and gzip reach on the same text."""
    text = baselines.text_bytes(unseen.tokens, tokenizer)
    if len(text) != unseen.bytes.sum():
        raise DataError(f"{unseen.path}: {unseen.bytes.sum()} bytes recorded, {len(text)} decoded. Write the shards anew.")
    numbers: Numbers = {**held.bits_per_byte(learns), "heldout_bytes": len(text)}
    if learns.accelerator.is_main_process:
        sample = seen.tokens[:BASELINE_TOKENS]
        numbers |= baselines.bits_per_byte(baselines.text_bytes(sample, tokenizer), text[:BASELINE_BYTES])
    return numbers
