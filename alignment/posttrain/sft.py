"""Supervised fine-tuning (paper 4): TRL's SFTTrainer on rows that are tokenised and checked already.

The loss is the sum over learnt tokens divided by their number in the whole update, however the update is cut into
forward passes and ranks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback
from trl import SFTConfig, SFTTrainer

from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.posttrain import adapter, doctor, mixture, neftune, packing, report, start, trainer, watch
from alignment.posttrain.diagnosis import Cut, Diagnosis
from alignment.recipe import SFT, Optim, Source
from alignment.run import Run

Rows = list[dict[str, Any]]


class Gathered(NamedTuple):
    """What is learnt from and what is scored, and what was left out on the way."""

    rows: Rows
    validation: Rows
    dropped: Counter[str]
    cut: Cut


@trainer.process_group()
def train(recipe: SFT, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write the fine-tuned model to `model/`; return losses, learnt tokens and seconds.

    With validation rows, the model is that of the epoch with the lowest validation loss.
    """
    trainer.quiet()
    torch.set_num_threads(hardware.threads)
    folder, tokenizer = start.open_tokenizer(recipe, here)
    asked = watch.questions(recipe.watch, here, tokenizer, hardware) if recipe.watch else []
    rows, validation, dropped, cut = gather(recipe, here, tokenizer)
    if dropped:
        here.say(f"dropped: {mixture.said(dropped)}")
    where = f"{here.path}: {recipe.stage}"
    found = doctor.rows(rows, validation, cut, dropped, tokenizer, where, overlong=recipe.overlong)
    counts = doctor.gate(found, here)
    model = build.load(folder, hardware, recipe.max_length, base=recipe.adapter and recipe.adapter.base)
    pad = model.config.pad_token_id
    learner, items = make_learner(model, tokenizer, rows, recipe, here, hardware)
    here.say(f"{counts['rows']:,} rows, {counts['learnt_tokens']:,} of {counts['tokens']:,} tokens are learnt")
    ends = epoch_ends(len(rows), recipe.optim)

    told: dict[int, dict[str, float]] = {}  # what was found after which update

    def ask() -> dict[str, float]:
        step = learner.state.global_step
        told[step] = watch.ask(learner, tokenizer, here, asked, recipe.watch.max_new_tokens) if recipe.watch else {}
        return told[step]

    def beside(state: Any, control: Any) -> dict[str, float]:
        found = choose(learner, validation, ends, here, state, control) if validation else {}
        every = recipe.watch.every if recipe.watch else None
        due = state.global_step == max(ends) or (state.global_step % every == 0 if every else state.global_step in ends)
        return found | (ask() if due else {})

    def before() -> dict[str, float]:
        found = ask() | ({"validation_loss": loss(learner, validation)} if validation else {})
        return {f"{name}_before": value for name, value in found.items()}

    learner.add_callback(Before(before))
    measured = sizes(rows, tokenizer, learner.model)
    of_items = [report.total(measured[i] for i in item) for item in items]
    with report.reporting(learner, here, hardware, "sft", of_items, {"mean_token_accuracy": "accuracy"}) as log:
        log.measure = beside
        trainer.train(learner, here, hardware)
    numbers: dict[str, float | int | str] = {**known_before(learner), **log.closing("loss")}
    kept = learner.state.global_step
    if validation:
        trainer.take_best(learner)
        kept = learner.state.best_global_step
        numbers["validation_loss"] = learner.state.best_metric
        numbers["best_epoch"] = ends[learner.state.best_global_step]
    if recipe.watch:  # the model that is kept, which may have been asked before
        most = recipe.watch.max_new_tokens
        numbers |= told.get(kept) or watch.ask(learner, tokenizer, here, asked, most, step=kept)
    seconds = log.seconds
    trainer.save(learner, tokenizer, pad, folder, here)
    return {**numbers, "updates": learner.state.global_step, **counts, "train_seconds": seconds}


def make_learner(
    model: PreTrainedModel, tokenizer: Any, rows: Rows, recipe: SFT, here: Run, hardware: Hardware
) -> tuple[SFTTrainer, list[list[int]]]:
    """Make TRL's trainer of a model; name the rows of each item that it takes in turn."""
    optimizer = trainer.masters(model, recipe, hardware)
    packed = packing.possible(model, hardware)
    items, batches = lay(rows, recipe, hardware, packed=packed)
    arguments = trainer.arguments(recipe, here, hardware, sequences=1, autocast=optimizer is None) | batches
    learner = SFTTrainer(
        model,
        args=say(arguments),
        train_dataset=dataset(rows, items, packed=packed),
        data_collator=packing.collate if packed else None,
        processing_class=tokenizer,
        optimizers=(optimizer, None),
        peft_config=adapter.config(recipe.adapter, model),
    )
    (packing.attach if packed else trainer.score_learnt_only)(learner)
    if recipe.neftune:
        neftune.attach(learner.model, model.get_input_embeddings(), recipe.neftune)
    return learner, items


class Before(TrainerCallback):  # type: ignore[misc]
    """Measures the start model when the trainer has placed it on the devices, or sharded it over them.

    The trainer's state keeps the numbers, so that a resumed training, whose model has learnt already, knows them.
    """

    def __init__(self, measure: Callable[[], dict[str, float]]) -> None:
        self.measure = measure

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if not state.global_step:
            state.log_history.append({"step": 0, "before": self.measure()})


def known_before(learner: SFTTrainer) -> dict[str, float]:
    """What `Before` measured, in this process or in the one that this one resumes."""
    return next((row["before"] for row in learner.state.log_history if "before" in row), {})


def say(arguments: dict[str, Any]) -> SFTConfig:
    """Add what only SFT says in TRL's words to what the stages have in common."""
    return SFTConfig(
        **arguments,
        max_length=None,  # rows that are too long were dropped: TRL would cut their end marks off
        packing=False,  # TRL's fills rows whatever the update; ours is in packing.py
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},  # rows are tokenised
        remove_unused_columns=False,
        loss_type="nll",
    )


def examine(recipe: SFT, here: Run) -> Diagnosis:
    """Let the doctor look at the rows that this recipe would learn from."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    rows, validation, dropped, cut = gather(recipe, here, tokenizer)
    return doctor.rows(rows, validation, cut, dropped, tokenizer, recipe.stage, overlong=recipe.overlong)


def gather(recipe: SFT, here: Run, tokenizer: Any) -> Gathered:
    """Read tokenised rows of mixture runs with their validation splits; tokenise those of other runs and cards."""
    rows: Rows = []
    validation: Rows = []
    plain: list[Source] = []
    for source in recipe.data:
        found = here.inputs[source.run] if source.run else None
        if found is None or found.manifest["stage"] != "mixture":
            plain.append(source)
            continue
        mixture.check_tokenizer(found.path, tokenizer)
        taken = list(islice(mixture.load(found.path / "rows.jsonl"), source.rows))
        if any(len(row["input_ids"]) > recipe.max_length for row in taken):
            raise DataError(f"{found.path}: rows are longer than max_length {recipe.max_length}. Build it with this length.")
        rows += taken
        validation += mixture.load(found.path / "validation.jsonl")
    dropped: Counter[str] = Counter()
    read = [row for source in plain for row in mixture.read(source, here, dropped)]
    fresh, too_bad, cut = mixture.tokenise(read, tokenizer, recipe.max_length)
    return Gathered(rows + fresh, validation, dropped + too_bad, cut)


def lay(rows: Rows, recipe: SFT, hardware: Hardware, *, packed: bool) -> tuple[list[list[int]], dict[str, int]]:
    """Name the rows of each item that the trainer takes in turn, with what its batches then are in TRL's words.

    Packed, an item is a forward pass; else a row.
    """
    lengths, size = [len(row["input_ids"]) for row in rows], recipe.optim.batch_size
    order = trainer.order(lengths, recipe.optim, recipe.seed)
    if not packed:
        return [[i] for i in order], {}
    items = packing.passes(lengths, order, size, hardware.micro_tokens, hardware.processes)
    passes = len(items) // (len(order) // size) // hardware.processes
    return items, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": passes}


def dataset(rows: Rows, items: list[list[int]], *, packed: bool) -> Dataset:
    """The items as TRL takes them; tokens are looked up when they are needed, however many epochs there are."""

    def read(batch: dict[str, list[list[int]]]) -> dict[str, list[Any]]:
        found = [packing.row([rows[i] for i in item]) for item in batch["rows"]]
        names = ("input_ids", "labels", "seq_lengths") if packed else ("input_ids", "labels")
        return {name: [item[name] for item in found] for name in names}

    return Dataset.from_dict({"rows": items}).with_transform(read)


def sizes(rows: Rows, tokenizer: Any, model: Any) -> list[report.Size]:
    """Measure rows; the bytes are those of the answers' text, without end marks."""
    learnt = [[label for label in row["labels"] if label != -100] for row in rows]
    texts = tokenizer.batch_decode(learnt, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    work = report.operations(model)
    return [
        report.Size(len(row["input_ids"]), len(labels), work(len(row["input_ids"]), len(labels)), len(text.encode()))
        for row, labels, text in zip(rows, learnt, texts, strict=True)
    ]


def epoch_ends(rows: int, optim: Optim) -> dict[int, int]:
    """Map the update after which an epoch has ended to the epoch's number, from 1; the last update ends the last one."""
    size, updates = optim.batch_size, int(rows * optim.epochs) // optim.batch_size
    return {min(rows * epoch // size, updates): epoch for epoch in range(1, math.ceil(optim.epochs) + 1)}


def choose(
    learner: SFTTrainer, validation: Rows, ends: Mapping[int, int], here: Run, state: Any, control: Any
) -> dict[str, float]:
    """At the end of an epoch, score the validation rows; mark the best model so far and have its checkpoint written."""
    if state.global_step not in ends:
        return {}
    found = loss(learner, validation)
    here.say(f"epoch {ends[state.global_step]}: validation loss {found:.4f}")
    if state.best_metric is None or found < state.best_metric:
        state.best_metric, state.best_global_step = found, state.global_step
        control.should_save = True  # the library keeps the best checkpoint and the newest
    return {"validation_loss": found}


@torch.no_grad()
def loss(learner: SFTTrainer, rows: Rows) -> float:
    """Mean loss per learnt token over all rows, whatever the batches and ranks."""
    plain = [packing.row([row]) for row in rows]
    total = torch.zeros(2, dtype=torch.float64, device=learner.accelerator.device)  # nats, tokens
    learner.model.eval()
    for inputs, counts in trainer.batches(learner, sorted(plain, key=lambda row: len(row["input_ids"]))):
        with learner.accelerator.autocast():
            scored = learner.model(**inputs, use_cache=False, fused_lm_head=True)
        if counts:
            total += torch.stack([-scored.log_probs.double().sum(), scored.label_mask.sum()])
    learner.model.train()
    nats, tokens = learner.accelerator.reduce(total, "sum").tolist()
    return float(nats / tokens)
