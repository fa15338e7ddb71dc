"""Where an interrupted run goes on: weights and optimizer moments as safetensors, the step as JSON. No pickle.

Nothing is random after the first weights and batches are a function of the step, so this is the whole state. Tensors
are stored whole and by name: any number of processes can read what any other number wrote. A folder appears under
its name when it is complete; the older ones then go.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from alignment.models.masters import MasterAdamW

Tensors = dict[str, torch.Tensor]


def write(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, *, main: bool) -> None:
    """Store the state after `step` updates. Every rank calls it (sharded tensors are gathered); `main` writes."""
    trained = _trained(model, optimizer)
    weights = {name: _whole(tensor) for name, tensor in trained.items()}
    moments = {
        f"{name}/{key}": _whole(value) for name, tensor in trained.items() for key, value in optimizer.state[tensor].items()
    }
    if not main:
        return
    draft = folder / f"step-{step}.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file(weights, draft / "weights.safetensors")
    save_file(moments, draft / "optimizer.safetensors")
    (draft / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    done = folder / f"step-{step}"
    os.replace(draft, done)
    for old in folder.iterdir():
        if old != done:
            shutil.rmtree(old)


def read(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put the newest complete state into model and optimizer and return its step; 0 where there is none."""
    steps = [int(path.name.removeprefix("step-")) for path in folder.glob("step-*") if path.suffix != ".part"]
    if not steps:
        return 0
    newest = folder / f"step-{max(steps)}"
    weights = load_file(newest / "weights.safetensors")
    moments: dict[str, Tensors] = {}
    for path, value in load_file(newest / "optimizer.safetensors").items():
        name, _, key = path.rpartition("/")
        moments.setdefault(name, {})[key] = value
    with torch.no_grad():
        for name, tensor in _trained(model, optimizer).items():
            tensor.copy_(_as(tensor, weights[name]))
            optimizer.state[tensor] = {key: _as(tensor, value) for key, value in moments[name].items()}
    if isinstance(optimizer, MasterAdamW):
        optimizer.spread()
    step: int = json.loads((newest / "state.json").read_text(encoding="utf-8"))["step"]
    return step


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """What the optimizer updates, by name: float32 masters where the model holds rounded copies."""
    names = [name for name, _ in model.named_parameters()]
    tensors = optimizer.masters() if isinstance(optimizer, MasterAdamW) else model.parameters()
    return dict(zip(names, tensors, strict=True))


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    whole: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu().contiguous()


def _as(like: torch.Tensor, value: torch.Tensor) -> Any:
    if value.dim() == 0:  # the optimizer's own step counter
        return value.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device)
