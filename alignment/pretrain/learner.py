"""One update of pre-training: the recipe's batch, in as many forward passes as the machine needs.

The loss is the sum over all tokens divided by their number over all passes and ranks, so that neither changes the
gradient. Weights and moments are float32. Where the profile says bfloat16, a GPU computes under autocast, and a CPU with
a bfloat16 copy of the weights (`models.masters`).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn
from torch.distributed.tensor import DTensor

from alignment import hardware as machine
from alignment.hardware import Hardware
from alignment.models.masters import MasterAdamW
from alignment.pretrain import batches
from alignment.pretrain.guard import Guard
from alignment.recipe import Pretrain, PretrainOptim


class Update(NamedTuple):
    """What came of an update."""

    loss: float  # nats per token, without the z-term
    norm: float  # of the gradient, before clipping
    refusal: str | None  # why it was not made


@dataclass(frozen=True)
class Learner:
    """What one update needs. The model's forward pass ends in its loss (`loss.attach`)."""

    recipe: Pretrain
    hardware: Hardware
    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    bos: int
    guard: Guard

    def update(self, batch: NDArray[np.int64], rate: float, where: str) -> Update:
        """Learn from one global batch (B, T + 1) at one learning rate, unless the guard refuses it."""
        accelerator = self.accelerator
        _, passes = machine.split(self.hardware, len(batch), batch.shape[1] - 1)
        mine = batches.share(batch, accelerator.process_index, accelerator.num_processes)
        tokens = batch[:, 1:].size
        total = torch.zeros((), device=accelerator.device)
        masters = self.optimizer if isinstance(self.optimizer, MasterAdamW) else None
        for number, part in enumerate(np.split(mine, passes), start=1):
            # without sums between passes, sharded gradients would be whole on every GPU
            summing = masters or accelerator.is_fsdp2 or number == passes
            with nullcontext() if summing else accelerator.no_sync(self.model):
                summed, nats = self._forward(part)
                accelerator.backward(summed * (accelerator.num_processes / tokens))  # ranks are averaged: undo it
            if masters:
                masters.collect()  # every pass is averaged over the ranks, and added up in float32
            total += nats
        loss: float = accelerator.reduce(total, "sum").item() / tokens
        norm = masters.shorten(self.recipe.optim.clip) if masters else self._shorten()
        refusal = self.guard.refusal(where, loss, norm)
        if refusal is None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad()
        return Update(loss, norm, refusal)

    def _shorten(self) -> float:
        """Clip the gradient and return the norm that it had."""
        norm: Any = self.accelerator.clip_grad_norm_(list(self.model.parameters()), self.recipe.optim.clip)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _forward(self, part: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed loss of a forward pass, with and without the z-term."""
        places = None if self.recipe.attend_across_documents else batches.positions(part[:, :-1], self.bos)
        ids, targets = part[:, :-1], part[:, 1:]
        if places is not None and "flash" in self.hardware.attention:  # its kernels see documents in a single row only
            ids, targets, places = ids.reshape(1, -1), targets.reshape(1, -1), places.reshape(1, -1)
        device = self.accelerator.device
        summed, nats = self.model(
            input_ids=torch.from_numpy(ids).to(device),
            targets=torch.from_numpy(targets).to(device),
            position_ids=None if places is None else torch.from_numpy(places).to(device),
            z=self.recipe.optim.z_loss,
        )
        return summed, nats


def keep_float32(accelerator: Accelerator) -> None:
    """Where weights are sharded (FSDP2), add gradients up over the ranks, and give losses, in float32.

    accelerate would do both in the dtype that computes.
    """
    if accelerator.is_fsdp2:
        plugin = accelerator.state.fsdp_plugin
        words = {"reduce_dtype": torch.float32, "output_dtype": torch.float32}
        plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, **words)


def masters(model: nn.Module, optim: PretrainOptim, dtype: torch.dtype) -> MasterAdamW:
    """AdamW as in the paper (2.3) for a CPU: a copy of the weights in `dtype` computes, float32 masters are updated."""
    return MasterAdamW(model, dtype, lr=optim.learning_rate, betas=optim.betas, weight_decay=optim.weight_decay)


def adamw(model: nn.Module, optim: PretrainOptim) -> torch.optim.AdamW:
    """AdamW as in the paper (2.3); norms are not decayed. One kernel updates all tensors."""
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    groups = [
        {"params": [tensor for tensor in trained if tensor.dim() > 1], "weight_decay": optim.weight_decay},
        {"params": [tensor for tensor in trained if tensor.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas, fused=True)
