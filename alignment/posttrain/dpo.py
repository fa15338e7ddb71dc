"""Direct preference optimisation (paper 4): TRL's DPOTrainer against the start model, its losses by name, and ORPO.

The reference is the start model as it lies on disk; its log-probabilities are computed once, before the first update,
and kept (`reference.py`). Policy and reference are equal then, so the first loss must be ln 2 and the KL 0. Pairs are
tokenised by `chat.encode`; on CPUs both answers share one pass over their prompt (`shared.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from alignment.hardware import Hardware
from alignment.models import build
from alignment.posttrain import adapter, doctor, mixture, objective, reference, report, shared, start, trainer
from alignment.posttrain import pairs as preference
from alignment.posttrain.diagnosis import Diagnosis
from alignment.posttrain.health import FirstLoss, Monitor, Seen
from alignment.posttrain.pairs import Pair
from alignment.posttrain.reference import Reference
from alignment.recipe import DPO
from alignment.run import Run

NAMES = {
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "logps/chosen": "chosen_logprob",
    "logps/rejected": "rejected_logprob",
}
IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


class Tokenised(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on pairs that are tokenised already, against a reference that is kept; TRL has a switch for neither.

    Its own tokenising renders prompt and answer as one text, which lets user text become control tokens and may merge
    across the border between prompt and answer.
    """

    def __init__(self, *given: Any, weights: Mapping[str, float], kept: Mapping[str, Reference], **words: Any) -> None:
        self.weights, self.kept = weights, kept
        self.monitor: Monitor | None = None
        super().__init__(*given, **words)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Attach the reference's numbers; TRL computes those that nobody has, a pair once however often it is learnt."""
        shared.attach(self)
        if name not in self.kept:
            return dataset
        library = super()._precompute_ref_logps

        def compute(places: Sequence[int]) -> reference.Table:
            found = library(dataset.select(places), name, batch_size)
            return np.stack([found["ref_chosen_logps"], found["ref_rejected_logps"]], axis=1)

        chosen, rejected = self.kept[name].of(dataset["pair"][:], compute, main=self.accelerator.is_main_process).T
        return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any], return_outputs: bool) -> Any:
        if objective.ORPO in self.weights:
            return self._orpo(model, inputs)
        outputs: list[Any] = []
        listening = model.register_forward_hook(lambda *seen: outputs.append(seen[-1]))
        try:
            loss = super()._compute_loss(model, inputs, return_outputs)
        finally:
            listening.remove()
        chosen, rejected = outputs[0].log_probs.sum(1).chunk(2)
        lengths = _lengths(inputs)
        if objective.SFT in self.weights:
            loss = loss + self.weights[objective.SFT] * objective.likelihood(chosen, lengths[0])
        if self.monitor and self.model.training:
            gains = chosen.detach() - inputs["ref_chosen_logps"], rejected.detach() - inputs["ref_rejected_logps"]
            columns = (part.tolist() for part in (*lengths, *gains))
            self.monitor.note([Seen(*row) for row in zip(*columns, strict=True)])
        return loss

    def _orpo(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        chosen, rejected = _logprobs(model, inputs)
        lengths = _lengths(inputs)
        per_token = chosen / lengths[0], rejected / lengths[1]
        odds = objective.log_odds(per_token[0].detach()) - objective.log_odds(per_token[1].detach())
        said = ((odds > 0).float(), self.beta * odds, chosen.detach(), rejected.detach())
        for name, values in zip(NAMES, said, strict=True):
            self._metrics["train"][name].append(self.accelerator.gather(values).mean().item())
        return objective.likelihood(chosen, lengths[0]) + self.beta * objective.odds_ratio(*per_token)

    def margins(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """By how much each pair's chosen answer is preferred: the implicit reward's margin; for ORPO the log odds ratio."""
        with self.accelerator.autocast():
            chosen, rejected = _logprobs(self.model, inputs)
        if objective.ORPO in self.weights:
            lengths = _lengths(inputs)
            return self.beta * (objective.log_odds(chosen / lengths[0]) - objective.log_odds(rejected / lengths[1]))
        return self.beta * ((chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"]))


@trainer.process_group()
def train(recipe: DPO, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write the aligned model to `model/`; return the loss, how often the chosen answer wins, and the margins."""
    trainer.quiet()
    torch.set_num_threads(hardware.threads)
    folder, tokenizer = start.open_tokenizer(recipe, here)
    (pairs, dropped, cut, shortened), unseen = preference.gather(recipe, here, tokenizer)
    here.say(f"{len(pairs):,} pairs, {shortened} with a shortened prompt; dropped: {mixture.said(dropped)}")
    where = f"{here.path}: {recipe.stage}"
    doctor.gate(doctor.pairs(pairs, unseen, cut, dropped, tokenizer, where, overlong=recipe.overlong), here)
    lengths = [2 * len(pair["prompt_ids"]) + len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
    order = trainer.order(lengths, recipe.optim, recipe.seed)
    model = build.load(folder, hardware, recipe.max_length, base=recipe.adapter and recipe.adapter.base)
    pad = model.config.pad_token_id
    optimizer = trainer.masters(model, recipe, hardware)
    args = DPOConfig(
        **trainer.arguments(recipe, here, hardware, sequences=2, autocast=optimizer is None),
        max_length=None,  # pairs that are too long were dropped: TRL would cut their end marks off
        loss_type=[name for name in recipe.weights if name not in objective.OWN] or ["sigmoid"],
        loss_weights=[weight for name, weight in recipe.weights.items() if name not in objective.OWN] or None,
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        disable_dropout=True,
        precompute_ref_log_probs=True,
    )
    kept: dict[str, Reference] = {}
    if objective.ORPO not in recipe.weights:
        scorer = reference.scorer(recipe, folder, tokenizer, here, hardware, cast=optimizer is not None)
        parts = {"train": pairs} | ({"eval": unseen} if unseen else {})
        kept = {name: scorer.over([[pair[ids] for ids in IDS] for pair in part]) for name, part in parts.items()}
    here.say(kept["train"].said if kept else "reference: none (ORPO)")
    files = here.path / "checkpoints"
    learner = Tokenised(
        model,
        weights=recipe.weights,
        kept=kept,
        args=args,
        train_dataset=trainer.on_disk(_rows(pairs, order), files / "pairs", args),
        eval_dataset=trainer.on_disk(_rows(unseen, range(len(unseen))), files / "heldout", args) if unseen else None,
        processing_class=tokenizer,
        optimizers=(optimizer, None),
        peft_config=adapter.config(recipe.adapter, model),
    )
    measured = sizes(pairs, learner.model)
    if recipe.loss == "sigmoid":
        learner.add_callback(FirstLoss(math.log(2), "ln 2", hardware))
    with report.reporting(learner, here, hardware, "dpo", [measured[i] for i in order], NAMES) as log:
        if objective.ORPO not in recipe.weights:
            answers = [len(pair["chosen_ids"]) + len(pair["rejected_ids"]) for pair in pairs]
            learner.monitor = log.measure = Monitor(here, answers, recipe.beta, hardware.dtype)
        trainer.train(learner, here, hardware)
    numbers = log.closing("loss", "accuracy", "margin")
    if unseen:
        numbers |= heldout(learner)
    seconds = log.seconds
    trainer.save(learner, tokenizer, pad, folder, here)
    return {
        **numbers,
        "updates": learner.state.global_step,
        "pairs": len(pairs),
        "dropped": dropped.total(),
        **({"alarms": len(learner.monitor.alarms)} if learner.monitor else {}),
        "train_seconds": seconds,
    }


def examine(recipe: DPO, here: Run) -> Diagnosis:
    """Let the doctor look at the pairs that this recipe would learn from."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    (pairs, dropped, cut, _), unseen = preference.gather(recipe, here, tokenizer)
    return doctor.pairs(pairs, unseen, cut, dropped, tokenizer, recipe.stage, overlong=recipe.overlong)


@torch.no_grad()
def heldout(learner: Tokenised) -> dict[str, float]:
    """How often held-out pairs have a positive margin (a tie counts half), and the mean margin.

    Beside it, how often the longer answer is the chosen one, and the share won where it is not: what length alone would
    win. TRL's own evaluation averages batch means, and counts some pairs twice where the ranks cannot share them evenly.
    """
    rows = sorted(learner.eval_dataset, key=lambda row: len(row["prompt_ids"]))
    total = torch.zeros(5, dtype=torch.float64, device=learner.accelerator.device)
    learner.model.eval()
    for inputs, counts in trainer.batches(learner, rows):
        margins = learner.margins(inputs)
        chosen, rejected = _lengths(inputs)
        won, longer = (torch.sign(margins) + 1) / 2, (torch.sign(chosen - rejected) + 1) / 2
        shorter = (chosen < rejected).double()
        if counts:
            total += torch.stack([part.double().sum() for part in (won, margins, longer, shorter, shorter * won)])
    won, margin, longer, shorter, won_shorter = learner.accelerator.reduce(total, "sum").tolist()
    n = len(rows)
    found = {"heldout_pairs": n, "heldout_accuracy": won / n, "heldout_margin": margin / n}
    found |= {"heldout_length_accuracy": longer / n}
    return found | ({"heldout_accuracy_shorter": won_shorter / shorter} if shorter else {})


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


def _logprobs(model: Any, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the chosen and of the rejected answers."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    chosen, rejected = model(**read, labels=labels, use_cache=False, fused_lm_head=True).log_probs.sum(1).chunk(2)
    return chosen, rejected


def _lengths(inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, rejected = inputs["completion_mask"].sum(1).chunk(2)
    return chosen, rejected


def _rows(pairs: Sequence[Pair], order: Sequence[int]) -> list[dict[str, Any]]:
    """Pairs in the order in which they are learnt, by number."""
    return [{"pair": i, **{name: pairs[i][name] for name in IDS}} for i in order]
