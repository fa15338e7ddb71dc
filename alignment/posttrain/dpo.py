"""Direct preference optimisation (paper 4): TRL's DPOTrainer against the start model.

The reference is the start model as it lies on disk; its log-probabilities are computed once, before the first update.
Policy and reference are equal then, so the first loss must be ln 2. Pairs are tokenised by `chat.encode`.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from alignment import chat
from alignment.errors import DataError, ModelError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.posttrain import doctor, mixture, report, start, trainer
from alignment.posttrain.diagnosis import Cut, Diagnosis
from alignment.recipe import DPO
from alignment.run import Run

NAMES = {
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "logps/chosen": "chosen_logprob",
    "logps/rejected": "rejected_logprob",
}
IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
Pair = dict[str, Any]  # a pair as it was read, and its tokens


class Pairs(NamedTuple):
    """Pairs that can be learnt from, with what was left out by reason, and what cutting the long ones would have lost."""

    pairs: list[Pair]
    dropped: Counter[str]
    cut: Cut


class Tokenised(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on pairs that are tokenised already; TRL has no switch for it.

    Its own tokenising renders prompt and answer as one text, which lets user text become control tokens and may merge
    across the border between prompt and answer.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        trainer.score_learnt_only(self)
        return super()._precompute_ref_logps(dataset, name, batch_size)


@trainer.process_group()
def train(recipe: DPO, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write the aligned model to `model/`; return the loss, how often the chosen answer wins, and the margins."""
    trainer.quiet()
    torch.set_num_threads(hardware.threads)
    folder, tokenizer = start.open_tokenizer(recipe, here)
    pairs, unseen, dropped, cut = gather(recipe, here, tokenizer)
    here.say(f"{len(pairs):,} pairs; dropped: {mixture.said(dropped)}")
    where = f"{here.path}: {recipe.stage}"
    doctor.gate(doctor.pairs(pairs, unseen, cut, dropped, tokenizer, where, overlong=recipe.overlong), here)
    lengths = [2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
    order = trainer.order(lengths, recipe.optim, recipe.seed)
    model = build.load(folder, hardware, recipe.max_length)
    pad = model.config.pad_token_id
    optimizer = trainer.masters(model, recipe, hardware)
    args = DPOConfig(
        **trainer.arguments(recipe, here, hardware, sequences=2, autocast=optimizer is None),
        max_length=None,  # pairs that are too long were dropped: TRL would cut their end marks off
        loss_type=["sigmoid"],
        beta=recipe.beta,
        disable_dropout=True,
        precompute_ref_log_probs=True,
    )
    learner = Tokenised(
        model,
        args=args,
        train_dataset=_dataset([pairs[i] for i in order], here.path / "checkpoints" / "pairs", args),
        eval_dataset=_dataset(unseen, here.path / "checkpoints" / "heldout", args) if unseen else None,
        processing_class=tokenizer,
        optimizers=(optimizer, None),
        peft_config=trainer.lora(recipe.adapter),
    )
    began = time.monotonic()
    measured = sizes(pairs, learner.model)
    with report.reporting(learner, here, hardware, "dpo", [measured[i] for i in order], NAMES) as log:
        learner.add_callback(FirstLoss())
        trainer.train(learner, here, hardware)
    numbers = log.closing("loss", "accuracy", "margin")
    if unseen:
        numbers |= heldout(learner)
    seconds = round(time.monotonic() - began, 1)
    trainer.save(learner, tokenizer, pad, folder, here)
    return {
        **numbers,
        "updates": learner.state.global_step,
        "pairs": len(pairs),
        "dropped": dropped.total(),
        "train_seconds": seconds,
    }


def examine(recipe: DPO, here: Run) -> Diagnosis:
    """Let the doctor look at the pairs that this recipe would learn from."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    pairs, unseen, dropped, cut = gather(recipe, here, tokenizer)
    return doctor.pairs(pairs, unseen, cut, dropped, tokenizer, recipe.stage, overlong=recipe.overlong)


def gather(recipe: DPO, here: Run, tokenizer: Any) -> tuple[list[Pair], list[Pair], Counter[str], Cut]:
    """Read and tokenise pairs, with the held-out ones that lie beside them; what is left out is that of the former."""
    raw, raw_unseen, dropped = read(recipe, here)
    pairs, too_bad, cut = tokenise(raw, tokenizer, recipe.max_length)
    return pairs, tokenise(raw_unseen, tokenizer, recipe.max_length).pairs, dropped + too_bad, cut


def read(recipe: DPO, here: Run) -> tuple[list[Mapping[str, str]], list[Mapping[str, str]], Counter[str]]:
    """Read pairs of runs (with the held-out ones beside them) and of cards; count what a card's reader leaves out."""
    pairs: list[Mapping[str, str]] = []
    heldout: list[Mapping[str, str]] = []
    dropped: Counter[str] = Counter()
    for source in recipe.data:
        if source.run:
            folder = here.inputs[source.run].path
            if not (folder / "pairs.jsonl").exists():
                raise DataError(f"{folder}: no pairs.jsonl. Name a preferences run, or a card with pairs.")
            pairs += islice(mixture.load(folder / "pairs.jsonl"), source.rows)
            heldout += mixture.load(folder / "heldout_pairs.jsonl")
        elif source.card:
            card = here.cards[source.card]
            pairs += islice(card.pairs(), source.rows)
            dropped.update(card.dropped)
        else:
            raise DataError("data: pairs come from a run or a card. Name one.")
    return pairs, heldout, dropped


def tokenise(pairs: Iterable[Mapping[str, str]], tokenizer: Any, max_length: int) -> Pairs:
    """Encode pairs as they are asked and answered, end marks included; count by reason what cannot be learnt from."""
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    cut = Cut(max_length)
    for number, pair in enumerate(pairs, 1):
        if pair["chosen"] == pair["rejected"]:
            dropped["equal answers"] += 1
        elif not (pair["chosen"].strip() and pair["rejected"].strip()):
            dropped["empty answer"] += 1
        else:
            prompt = chat.encode(tokenizer, [_turn("user", pair["prompt"])], answer=False).input_ids
            chosen, rejected = (_answer(tokenizer, pair, side, prompt) for side in ("chosen", "rejected"))
            longer = max(chosen, rejected, key=len)
            if len(prompt) + len(longer) > max_length:
                dropped[f"longer than {max_length} tokens"] += 1
                cut.add(pair.get("id", f"pair {number}"), prompt + longer, [-100] * len(prompt) + longer)
            else:
                kept.append({**pair, "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return Pairs(kept, dropped, cut)


@torch.no_grad()
def heldout(learner: DPOTrainer) -> dict[str, float]:
    """How often held-out pairs have a positive implicit reward margin (a tie counts half), and the mean margin.

    TRL's own evaluation averages batch means, and counts some pairs twice where the ranks cannot share them evenly.
    """
    rows = sorted(learner.eval_dataset, key=lambda row: len(row["prompt_ids"]))
    total = torch.zeros(2, dtype=torch.float64, device=learner.accelerator.device)  # pairs won, margins
    learner.model.eval()
    for inputs, counts in trainer.batches(learner, rows):
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with learner.compute_loss_context_manager():
            logps = learner.model(**read, labels=labels, use_cache=False, fused_lm_head=True).log_probs.double().sum(1)
        chosen, rejected = logps.chunk(2)
        margins = (chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"])
        if counts:
            total += torch.stack([(torch.sign(margins) + 1).sum() / 2, learner.args.beta * margins.sum()])
    won, margin = (learner.accelerator.reduce(total, "sum") / len(rows)).tolist()
    return {"heldout_accuracy": won, "heldout_margin": margin}


def sizes(pairs: list[Pair], model: Any) -> list[report.Size]:
    """Measure pairs: the policy learns from two sequences, the reference was scored before.

    No bytes: the loss says how surely one answer is preferred, not how well a text is predicted.
    """
    work, found = report.operations(model), []
    for pair in pairs:
        learnt = [len(pair[side]) for side in ("chosen_ids", "rejected_ids")]
        tokens = [len(pair["prompt_ids"]) + n for n in learnt]
        found.append(report.Size(sum(tokens), sum(learnt), sum(map(work, tokens, learnt))))
    return found


class FirstLoss(TrainerCallback):  # type: ignore[misc]
    """Stop if policy and reference are not one model before the first update."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        if state.global_step == 1 and "loss" in logs and abs(logs["loss"] - math.log(2)) > 1e-3:
            raise ModelError(
                f"the first DPO loss is {logs['loss']:.4f}, not ln 2 = 0.6931: policy and reference are not one model. "
                "This is a fault of the stage or of the libraries; nothing was trained."
            )


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _answer(tokenizer: Any, pair: Mapping[str, str], side: str, prompt: list[int]) -> list[int]:
    """The ids of an answer, up to and with its end mark."""
    whole = chat.encode(tokenizer, [_turn("user", pair["prompt"]), _turn("assistant", pair[side])], answer=True)
    return whole.input_ids[len(prompt) : max(i for i, learnt in enumerate(whole.learnt) if learnt) + 1]


def _dataset(pairs: list[Pair], folder: Path, args: DPOConfig) -> Dataset:
    """A data set on disk: every rank reads it, and TRL keeps the reference's log-probabilities beside it."""
    with args.main_process_first(local=False):
        if args.process_index == 0:
            shutil.rmtree(folder, ignore_errors=True)
            Dataset.from_list([{name: pair[name] for name in IDS} for pair in pairs]).save_to_disk(str(folder))
    return Dataset.load_from_disk(str(folder))
