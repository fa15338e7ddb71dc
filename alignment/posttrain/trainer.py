"""What SFT, DPO and KTO share around TRL's trainers: our words in theirs, the order of the data, the saved model.

Axes: B sequences, T positions, H width, V vocabulary, N learnt positions.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from huggingface_hub import constants
from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from alignment import chat
from alignment import hardware as machine
from alignment.errors import DataError, HardwareError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.models.masters import MasterAdamW, bare
from alignment.posttrain import adapter, head
from alignment.recipe import DPO, KTO, SFT, Optim
from alignment.run import Run

CHECKPOINT_EVERY = 200  # updates
BETAS = (0.9, 0.999)  # the paper gives AdamW's values for pre-training only; these are the library's
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw-8bit": "adamw_8bit",
    "paged-adamw": "paged_adamw_32bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
}


def quiet() -> None:
    """No telemetry (TRL reports each trainer), no bars beside ours, no warnings that the libraries give each other."""
    constants.HF_HUB_DISABLE_TELEMETRY = True
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


@contextmanager
def process_group() -> Iterator[None]:
    """Leave the group of processes when training ends, however it ends: a process that exits inside it may abort."""
    try:
        yield
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def masters(model: PreTrainedModel, recipe: SFT | DPO | KTO, hardware: Hardware) -> MasterAdamW | None:
    """Cast a fully trained model to bfloat16 on a CPU, with an optimizer that holds float32 masters.

    Elsewhere None: the trainer's own AdamW under autocast. Call it before the trainer is made, so that DPO's reference
    is scored by the very model that is trained.
    """
    optim = recipe.optim
    if recipe.adapter is not None or optim.optimizer != "adamw":
        return None
    if (hardware.device, hardware.dtype, hardware.processes) != ("cpu", "bfloat16", 1):
        return None
    return MasterAdamW(
        model, torch.bfloat16, lr=optim.learning_rate, weight_decay=optim.weight_decay, betas=BETAS, clip=optim.clip
    )


class Collect(TrainerCallback):  # type: ignore[misc]
    """Between the forward passes of an update, move the gradient to the float32 masters."""

    def on_substep_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:  # noqa: ARG002
        bare(optimizer).collect()


def arguments(recipe: SFT | DPO | KTO, here: Run, hardware: Hardware, *, sequences: int, autocast: bool) -> dict[str, Any]:
    """Say what the three have in common in TRL's words; `sequences` counts those that one item of a batch is.

    Every default that is relied upon is named: TRL's differ from transformers', and both change.
    """
    if recipe.optim.optimizer != "adamw" and machine.is_sharded(hardware.name):
        raise HardwareError(
            f"profile {hardware.name} shards the optimizer, and {recipe.optim.optimizer} (bitsandbytes) was not tried so. "
            "Use optim.optimizer: adamw, or a profile that does not shard."
        )
    micro, passes = machine.split(hardware, recipe.optim.batch_size, sequences * recipe.max_length)
    return {
        "output_dir": str(here.path / "checkpoints"),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": passes,
        "num_train_epochs": 1,  # order() has laid out all epochs
        "train_sampling_strategy": "sequential",
        "learning_rate": recipe.optim.learning_rate,
        "lr_scheduler_type": SCHEDULES[recipe.optim.schedule],
        "warmup_steps": recipe.optim.warmup,  # a fraction: transformers 5 reads [0, 1) as a share of all updates
        "optim": OPTIMIZERS[recipe.optim.optimizer],
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "adam_epsilon": 1e-8,
        "weight_decay": recipe.optim.weight_decay,
        "max_grad_norm": recipe.optim.clip if autocast else 0.0,  # the masters are clipped by their optimizer
        "average_tokens_across_devices": True,
        "bf16": autocast and hardware.dtype == "bfloat16",
        "use_cpu": hardware.device == "cpu",
        "ddp_backend": "gloo" if hardware.device == "cpu" and hardware.processes > 1 else None,
        "activation_checkpointing": bool(hardware.recompute),  # which parts: models/recompute.py
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": hardware.device == "cuda",
        "eval_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "steps",
        "save_steps": CHECKPOINT_EVERY,
        "save_total_limit": 2,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
    }


def order(lengths: Sequence[int], optim: Optim, seed: int) -> list[int]:
    """Lay out all epochs: a seeded shuffle each, cut into whole updates, long before short inside an update.

    Which items share an update depends on the seed alone; sorting inside it only saves padding.
    """
    items, size = len(lengths), optim.batch_size
    total = int(items * optim.epochs) // size * size
    if not total:
        raise DataError(f"{items} items x {optim.epochs:g} epochs are less than one update of {size}. Add data.")
    epochs = math.ceil(total / items)
    drawn = np.concatenate([np.random.default_rng([seed, epoch]).permutation(items) for epoch in range(epochs)])
    updates = drawn[:total].reshape(-1, size).tolist()
    return [i for update in updates for i in sorted(update, key=lambda i: -lengths[i])]


def on_disk(rows: Iterable[Mapping[str, Any]], folder: Path, args: TrainingArguments) -> Dataset:
    """A data set on disk, written once, which every rank reads."""
    with args.main_process_first(local=False):
        if args.process_index == 0:
            shutil.rmtree(folder, ignore_errors=True)
            Dataset.from_list(list(rows)).save_to_disk(str(folder))
    return Dataset.load_from_disk(str(folder))


def score_learnt_only(trainer: Trainer) -> None:
    """On a CPU, give the model a head that looks at learnt positions only.

    TRL's fused head does so on GPUs; elsewhere it multiplies masked positions with the vocabulary too, twice. Same
    interface, same log-probabilities; without it SFT of the quickstart's model takes 1.3 times as long on a CPU core.
    Only for models whose logits are hidden states times the head.
    """
    model = head.bare(trainer)
    if model.device.type != "cpu" or model.config.model_type != "llama":
        return

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **inputs: Any) -> Any:
        if not fused_lm_head:
            return type(self).forward(self, *args, labels=labels, **inputs)
        hidden_BTH = self.base_model(*args, **inputs).last_hidden_state[:, :-1]
        mask_BT = labels[:, 1:] != -100
        targets_N = labels[:, 1:][mask_BT]
        logits_NV = self.get_output_embeddings()(hidden_BTH[mask_BT]).float()
        log_probs_N = -F.cross_entropy(logits_NV, targets_N, reduction="none")
        return head.scored(mask_BT, log_probs_N, logits_NV.detach().argmax(-1) == targets_N)

    model.forward = MethodType(forward, model)


def train(trainer: Trainer, here: Run, hardware: Hardware) -> None:
    """Run the updates, from the newest whole checkpoint if the run is resumed."""
    machine.check_processes(hardware, trainer.accelerator.num_processes)
    if isinstance(trainer.model, PeftModel):
        adapter.widen(trainer.model)
        here.say(adapter.said(trainer.model))
    found = newest(here.path / "checkpoints") if here.resumed else None
    if found is not None:
        here.rewind(int(found.name.partition("-")[2]))
        here.say(f"resumed from {found.name}")
    if isinstance(trainer.optimizer, MasterAdamW):
        trainer.add_callback(Collect())
    trainer.train(resume_from_checkpoint=str(found) if found else None)


def newest(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written whole (the trainer's state is written last)."""
    whole = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def batches(trainer: Trainer, items: Sequence[Mapping[str, Any]]) -> Iterator[tuple[dict[str, torch.Tensor], bool]]:
    """Cut items into what this rank scores, collated.

    Every rank gets equally many batches, as sharded models need it; False: another rank counts this one.
    """
    size, ranks = trainer.args.per_device_eval_batch_size, trainer.accelerator.num_processes
    parts = [items[at : at + size] for at in range(0, len(items), size)]
    for mine in range(trainer.accelerator.process_index, -(-len(parts) // ranks) * ranks, ranks):
        yield trainer._prepare_inputs(trainer.data_collator(parts[min(mine, len(parts) - 1)])), mine < len(parts)


def take_best(trainer: Trainer) -> None:
    """Go back to the weights of the best checkpoint, if one was chosen and it is not the last."""
    if trainer.state.best_global_step in (None, trainer.state.global_step):
        return
    trainer._load_best_model()
    if isinstance(bare(trainer.optimizer), MasterAdamW):  # the model's own weights were rounded
        trainer._load_optimizer_and_scheduler(trainer.state.best_model_checkpoint)


def save(trainer: Trainer, tokenizer: Any, pad: int | None, folder: Path, here: Run) -> None:
    """Write `model/` whole, an adapter merged into its base; delete the checkpoints. `pad`: config's own pad id."""
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if isinstance(optimizer := bare(trainer.optimizer), MasterAdamW):
        optimizer.restore()
    if here.main:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if isinstance(model, PeftModel):
            (model, gap), weights = adapter.merge(model, build.read(folder), weights), None
            here.say(f"merged: logits differ from those of base and adapter by {gap:.1e} of the largest")
        model.config.pad_token_id = pad  # TRL sets it; a pad that is also the end mark would get no gradient next time
        model.generation_config.eos_token_id = sorted(chat.end_ids(tokenizer))
        build.save(model, folder, here.path / "model", weights)
        shutil.rmtree(here.path / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
