"""KTO: answers judged good or bad, each by itself (Ethayarajh et al. 2024), by TRL's KTOTrainer against the start model.

The loss compares what an answer gained with what an answer gains by the way: z0, the mean gain of answers that belong to
other prompts. TRL estimates it in every forward pass, so how a machine cuts the batch would change what is learnt; here
z0 is that of the whole update. The reference is computed once and kept, as for DPO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from alignment import chat, rows
from alignment.errors import DataError, HardwareError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.posttrain import adapter, doctor, mixture, reference, report, start, trainer
from alignment.posttrain import pairs as preference
from alignment.posttrain.diagnosis import Cut, Diagnosis
from alignment.posttrain.health import FirstLoss
from alignment.posttrain.reference import Reference
from alignment.recipe import KTO
from alignment.run import Run

NAMES = {"kl": "kl", "rewards/chosen": "reward_good", "rewards/rejected": "reward_bad"}
IDS = ("prompt_ids", "completion_ids", "KL_completion_ids")
Row = dict[str, Any]


class Tokenised(KTOTrainer):  # type: ignore[misc]
    """TRL's trainer on answers that are tokenised already, against a reference that is kept, with z0 of whole updates."""

    def __init__(self, *given: Any, kept: Reference, **words: Any) -> None:
        self.kept, self.zero = kept, (-1, 0.0)  # the update that it is of, and z0
        super().__init__(*given, **words)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        trainer.score_learnt_only(self)
        library = super()._precompute_ref_logps

        def compute(places: Sequence[int]) -> reference.Table:
            found = library(dataset.select(places), name, batch_size)
            return np.stack([found["ref_logps"], found["ref_KL_logps"]], axis=1)

        own, others = self.kept.of(range(len(dataset)), compute, main=self.accelerator.is_main_process).T
        return dataset.add_column("ref_logps", own).add_column("ref_KL_logps", others)

    @torch.no_grad()
    def _compute_kl_logps(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """z0 of the update, said as TRL reads it: added to the reference's numbers, which TRL takes off again."""
        if self.zero[0] != self.state.global_step:
            self.zero = self.state.global_step, self._gain(model)
        return batch["ref_KL_logps"] + self.zero[1]

    def _gain(self, model: Any) -> float:
        """By how many nats answers to other prompts gained, on average over the coming update."""
        size = report.batch_size(self)
        at = self.state.global_step * size
        total = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        for inputs, counts in trainer.batches(self, [self.train_dataset[i] for i in range(at, at + size)]):
            logps = super()._compute_kl_logps(model, inputs)
            if counts:
                gains = (logps - inputs["ref_KL_logps"]).double()
                total += torch.stack([gains.sum(), torch.ones_like(gains).sum()])
        gained, n = self.accelerator.reduce(total, "sum").tolist()
        return float(gained / n)


@trainer.process_group()
def train(recipe: KTO, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write the aligned model to `model/`; return the loss and what good and bad answers gained."""
    trainer.quiet()
    torch.set_num_threads(hardware.threads)
    folder, tokenizer = start.open_tokenizer(recipe, here)
    found, dropped, cut = gather(recipe, here, tokenizer)
    good = sum(row["good"] for row in found)
    here.say(f"{good:,} good and {len(found) - good:,} bad answers; dropped: {mixture.said(dropped)}")
    where = f"{here.path}: {recipe.stage}"
    doctor.gate(doctor.rows(found, [], cut, dropped, tokenizer, where, overlong=recipe.overlong), here)
    model = build.load(folder, hardware, recipe.max_length, base=recipe.adapter and recipe.adapter.base)
    pad = model.config.pad_token_id
    optimizer = trainer.masters(model, recipe, hardware)
    given = trainer.arguments(recipe, here, hardware, sequences=1, autocast=optimizer is None)
    if given["per_device_train_batch_size"] < 2:
        raise HardwareError(
            f"profile {hardware.name}: TRL's KTO takes at least two answers a forward pass, and with max_length "
            f"{recipe.max_length} micro_tokens {hardware.micro_tokens} are for one. Use a smaller max_length."
        )
    args = KTOConfig(
        **given,
        max_length=None,  # answers that are too long were dropped
        loss_type="kto",
        beta=recipe.beta,
        desirable_weight=recipe.desirable,
        undesirable_weight=recipe.undesirable,
        disable_dropout=True,
        precompute_ref_log_probs=True,
    )
    order = trainer.order([len(row["input_ids"]) for row in found], recipe.optim, recipe.seed)
    ordered = list(beside([found[i] for i in order], recipe.optim.batch_size))
    scorer = reference.scorer(recipe, folder, tokenizer, here, hardware, cast=optimizer is not None)
    kept = scorer.over([[row[ids] for ids in IDS] for row in ordered])
    here.say(kept.said)
    learner = Tokenised(
        model,
        kept=kept,
        args=args,
        train_dataset=trainer.on_disk(
            ({name: row[name] for name in (*IDS, "label")} for row in ordered), here.path / "checkpoints" / "answers", args
        ),
        processing_class=tokenizer,
        optimizers=(optimizer, None),
        peft_config=adapter.config(recipe.adapter, model),
    )
    work = report.operations(learner.model)
    sizes = [_size(row, work) for row in ordered]
    weights = [recipe.desirable if row["label"] else recipe.undesirable for row in ordered[: recipe.optim.batch_size]]
    learner.add_callback(FirstLoss(0.5 * sum(weights) / len(weights), "half the mean weight", hardware))
    with report.reporting(learner, here, hardware, "kto", sizes, NAMES) as log:
        trainer.train(learner, here, hardware)
    seconds = log.seconds
    trainer.save(learner, tokenizer, pad, folder, here)
    return {
        **log.closing("loss", *NAMES.values()),
        "updates": learner.state.global_step,
        "answers": len(found),
        "good": good,
        "dropped": dropped.total(),
        "train_seconds": seconds,
    }


def examine(recipe: KTO, here: Run) -> Diagnosis:
    """Let the doctor look at the answers that this recipe would learn from."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    found, dropped, cut = gather(recipe, here, tokenizer)
    return doctor.rows(found, [], cut, dropped, tokenizer, recipe.stage, overlong=recipe.overlong)


def gather(recipe: KTO, here: Run, tokenizer: Any) -> tuple[list[Row], Counter[str], Cut]:
    """Read and tokenise answers; a pair of a run is one good and one bad answer."""
    raw: list[Row] = []
    dropped: Counter[str] = Counter()
    for source in recipe.data:
        if source.run:
            path = here.inputs[source.run].path / "pairs.jsonl"
            if not path.exists():
                raise DataError(f"{path}: no such file. Name a preferences run, or a card with judged answers or pairs.")
            raw += islice((side for pair in mixture.load(path) for side in rows.split(pair)), source.rows)
        else:
            card = here.cards[str(source.card)]
            raw += islice(card.judged(), source.rows)
            dropped.update(card.dropped)
    found, too_bad, cut = tokenise(raw, tokenizer, recipe.max_length)
    if len({row["good"] for row in found}) < 2:
        raise DataError(
            f"{here.path}: all {len(found)} answers that can be learnt from are judged alike (dropped: "
            f"{mixture.said(dropped + too_bad)}). KTO needs good ones and bad ones: name data that has both."
        )
    return found, dropped + too_bad, cut


def tokenise(answers: Iterable[Row], tokenizer: Any, max_length: int) -> tuple[list[Row], Counter[str], Cut]:
    """Encode answers as they are asked and said, end marks included; one that is too long is left out and counted."""
    kept, dropped, cut = [], Counter[str](), Cut(max_length)
    for row in answers:
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = chat.encode(tokenizer, turns, answer=False).input_ids
        said = preference.answer(tokenizer, row, "answer", prompt)
        ids, labels = prompt + said, [-100] * len(prompt) + said
        if len(ids) > max_length:
            dropped[f"longer than {max_length} tokens"] += 1
            cut.add(row["id"], ids, labels)
        else:
            turns.append({"role": "assistant", "content": row["answer"]})
            tokens = {"prompt_ids": prompt, "completion_ids": said, "input_ids": ids, "labels": labels}
            kept.append({**row, **tokens, "label": row["good"], "messages": turns})
    return kept, dropped, cut


def beside(ordered: Sequence[Row], size: int) -> Iterable[Row]:
    """Give every row an answer to another prompt: that of the row before it in its update."""
    for at in range(0, len(ordered), size):
        update = ordered[at : at + size]
        for row, other in zip(update, [*update[-1:], *update[:-1]], strict=True):
            yield {**row, "KL_completion_ids": other["completion_ids"]}


def _size(row: Row, work: Any) -> report.Size:
    learnt, tokens = len(row["completion_ids"]), len(row["input_ids"])
    return report.Size(tokens, learnt, work(tokens, learnt))
