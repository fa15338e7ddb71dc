"""Supervised fine-tuning (paper 4): TRL's SFTTrainer on rows that are tokenised and checked already.

The loss is the sum over learnt tokens divided by their number in the whole update, however the update is cut into
forward passes and ranks.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from alignment import chat
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.posttrain import mixture, start, supervision, trainer
from alignment.recipe import SFT, Source
from alignment.run import Run

Rows = list[dict[str, Any]]


def train(recipe: SFT, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write the fine-tuned model to `model/`; return losses, learnt tokens and seconds."""
    trainer.quiet()
    torch.set_num_threads(hardware.threads)
    folder = start.locate(recipe.start, here)
    tokenizer = build.read_tokenizer(folder)
    chat.check_template(tokenizer, recipe.template, str(folder))
    rows, validation = gather(recipe, here, tokenizer)
    counts = supervision.check(rows, tokenizer, str(here.path))
    lengths = [len(row["input_ids"]) for row in rows]
    order = trainer.order(lengths, recipe.optim, recipe.seed)
    model = build.load(folder, hardware)
    pad = model.config.pad_token_id
    optimizer = trainer.masters(model, recipe, hardware)
    learner = SFTTrainer(
        model,
        args=SFTConfig(
            **trainer.arguments(recipe, here, hardware, sequences=1, autocast=optimizer is None),
            max_length=None,  # rows that are too long were dropped: TRL would cut their end marks off
            packing=False,
            shuffle_dataset=False,
            loss_type="nll",
        ),
        train_dataset=_dataset(rows).select(order),
        processing_class=tokenizer,
        optimizers=(optimizer, None),
        peft_config=trainer.lora(recipe.adapter),
    )
    trainer.score_learnt_only(learner)
    here.say(f"{counts['rows']:,} rows, {counts['learnt_tokens']:,} of {counts['tokens']:,} tokens are learnt")
    numbers: dict[str, float | int | str] = {}
    if validation:
        numbers["validation_loss_before"] = loss(learner, validation)
    began = time.monotonic()
    sizes, names = [lengths[i] for i in order], {"mean_token_accuracy": "accuracy"}
    with trainer.reporting(learner, here, "sft", sizes, names) as report:
        trainer.train(learner, here, hardware)
    numbers |= report.closing("loss")
    if validation:
        numbers["validation_loss"] = loss(learner, validation)
    seconds = round(time.monotonic() - began, 1)
    trainer.save(learner, tokenizer, pad, folder, here)
    return {**numbers, "updates": learner.state.global_step, **counts, "train_seconds": seconds}


def gather(recipe: SFT, here: Run, tokenizer: Any) -> tuple[Rows, Rows]:
    """Read tokenised rows of mixture runs with their validation splits; tokenise those of other runs and cards."""
    rows: Rows = []
    validation: Rows = []
    plain: list[Source] = []
    for source in recipe.data:
        found = here.inputs[source.run] if source.run else None
        if found is None or found.manifest["stage"] != "mixture":
            plain.append(source)
            continue
        made_with = json.loads((found.path / "ledger.json").read_text(encoding="utf-8"))["tokenizer"]
        if made_with != supervision.signature(tokenizer):
            raise DataError(f"{found.path}: tokenised for another tokenizer or chat template. Build it for this start.")
        rows += list(mixture.load(found.path / "rows.jsonl"))[: source.rows]
        validation += mixture.load(found.path / "validation.jsonl")
    if any(len(row["input_ids"]) > recipe.max_length for row in rows):
        raise DataError(f"rows of the mixture are longer than max_length {recipe.max_length}. Build it with this length.")
    dropped: Counter[str] = Counter()
    read = [row for source in plain for row in mixture.read(source, here, dropped)]
    fresh, too_bad = mixture.tokenise(read, tokenizer, recipe.max_length)
    if dropped := dropped + too_bad:
        here.say(f"dropped: {mixture.said(dropped)}")
    return rows + fresh, validation


@torch.no_grad()
def loss(learner: SFTTrainer, rows: Rows) -> float:
    """Mean loss per learnt token over all rows; every rank computes all of it."""
    learner.model.eval()
    total, tokens = 0.0, 0
    rows = sorted(rows, key=lambda row: len(row["input_ids"]))
    size = learner.args.per_device_eval_batch_size
    for at in range(0, len(rows), size):
        part = [{name: row[name] for name in ("input_ids", "labels")} for row in rows[at : at + size]]
        inputs = learner._prepare_inputs(learner.data_collator(part))
        with learner.compute_loss_context_manager():
            scored = learner.model(**inputs, use_cache=False, fused_lm_head=True)
        total -= scored.log_probs.double().sum().item()
        tokens += int(scored.label_mask.sum())
    learner.model.train()
    return total / tokens


def _dataset(rows: Rows) -> Dataset:
    return Dataset.from_list([{name: row[name] for name in ("input_ids", "labels")} for row in rows])
