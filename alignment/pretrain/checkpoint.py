"""Where an interrupted run goes on: weights and optimizer moments as safetensors, the rest as JSON.

    checkpoints/step-N/
        tensors.safetensors   NAME (float32), NAME/exp_avg, NAME/exp_avg_sq, NAME/step; sharded: *.distcp and .metadata
        state.json            step, fingerprint of the run, what the guard remembers, bytes and sha256 of the others

Nothing is random after the first weights and batches are a function of the step, so this is the whole state, and any
number of processes can read what any other number wrote. `save` copies it and returns; a thread writes, hashes, and
gives the folder its name last. Reading takes the newest folder that is whole. There is no pickle but torch's `.metadata` of
a sharded checkpoint: go on with runs of your own only.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from alignment.errors import RunError
from alignment.models.masters import MasterAdamW, bare
from alignment.pretrain import sharded
from alignment.run import sha256

FORMAT = "plumbline-checkpoint-1"
KEPT = 2  # should the newest turn out to be corrupt, the one before it counts
SPARE = 64 << 20  # bytes that stay free beside a checkpoint
TENSORS, STATE = "tensors.safetensors", "state.json"
Tensors = dict[str, torch.Tensor]


class Checkpoints:
    """The checkpoints of one run: written by a thread of the main process, one at a time."""

    def __init__(self, folder: Path, fingerprint: str | None, *, main: bool) -> None:
        self.folder, self.fingerprint, self.main = folder, fingerprint, main
        self.begun = time.monotonic()  # when the latest was copied; before the first: when the run began
        self._written = self.begun  # when the latest was whole
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    @property
    def age(self) -> float:
        """Seconds since the latest checkpoint was whole."""
        return time.monotonic() - self._written

    def check_space(self, parameters: int) -> None:
        """Refuse to begin a run whose checkpoints the disk cannot hold."""
        missing = KEPT + 1 - len(_steps(self.folder))  # the old ones go after the new one has come
        check_space(self.folder, missing * 12 * parameters)  # float32: the weight and two moments

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, extra: Mapping[str, Any]) -> None:
        """Copy the state after `step` updates and write it behind the training. Every rank calls it.

        Waits for the previous one, and raises what went wrong with it. Raises RunError where the disk has no space.
        """
        self.wait()
        self.begun = time.monotonic()
        tensors = _tensors(model, optimizer)
        draft = self.folder / f"step-{step}.part"
        if self.main:
            check_space(self.folder, sum(tensor.nbytes for tensor in tensors.values()))
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        write: Callable[[], Any]
        if sharded.is_sharded(tensors):
            dist.barrier()  # the folder is there
            write = sharded.save(draft, tensors).result
        elif self.main:
            copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
            write = partial(save_file, copies, draft / TENSORS)
        else:
            return
        state = {"format": FORMAT, "step": step, "fingerprint": self.fingerprint, **extra}
        self._thread = Thread(target=self._guarded, args=(write, draft, state), name=f"checkpoint-{step}")
        self._thread.start()

    def wait(self) -> None:
        """Return once nothing is being written; raise what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _guarded(self, write: Callable[[], Any], draft: Path, state: dict[str, Any]) -> None:
        try:
            write()
            if self.main:
                self._seal(draft, state)
            self._written = time.monotonic()
        except BaseException as failure:  # noqa: BLE001 (carried to the thread that trains, by wait)
            self._failure = failure

    def _seal(self, draft: Path, state: dict[str, Any]) -> None:
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(draft.iterdir())}
        (draft / STATE).write_text(json.dumps(state | {"files": files}), encoding="utf-8")
        for path in (*draft.iterdir(), draft):
            _to_disk(path)
        done = draft.with_suffix("")
        shutil.rmtree(done, ignore_errors=True)  # a corrupt one that was passed over on the way back
        os.replace(draft, done)
        _to_disk(self.folder)
        keep = {done.name, *sorted(_steps(self.folder), key=_number)[-KEPT:]}
        for old in self.folder.iterdir():
            if old.name not in keep:
                shutil.rmtree(old)

    def newest(self, say: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is whole; says why others were passed over.

        Raises RunError for a folder with checkpoints of another run, and where there are some but none is whole.
        """
        names = sorted(_steps(self.folder), key=_number, reverse=True)
        for name in names:
            fault = self._fault(self.folder / name)
            if fault is None:
                return self.folder / name
            say(f"checkpoint {name} is passed over: {fault}")
        if names:
            raise RunError(f"{self.folder}: no checkpoint is whole. Remove the folder to begin the run again.")
        return None

    def _fault(self, path: Path) -> str | None:
        try:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            if state["format"] != FORMAT:
                return f"its format is {state['format']}, not {FORMAT}"
            if state["fingerprint"] != self.fingerprint:
                raise RunError(f"{path}: a checkpoint of another run. Move {self.folder} away, or put the right one back.")
            for name, sealed in state["files"].items():
                if (size := (path / name).stat().st_size) != sealed["bytes"]:
                    return f"{name} has {size} bytes, {sealed['bytes']} were written"
                if sha256(path / name) != sealed["sha256"]:
                    return f"the sha256 of {name} is not the one that was written"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{STATE} cannot be read ({error})" if not isinstance(error, OSError) else str(error)
        return None


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint into model and optimizer, sharded or not; return its state.json."""
    state = bare(optimizer).state
    for tensor in _trained(model, optimizer).values():
        zeros = {key: torch.zeros_like(tensor) for key in ("exp_avg", "exp_avg_sq")}
        state[tensor] = {"step": torch.zeros((), device=tensor.device), **zeros}
    tensors = _tensors(model, optimizer)
    with torch.no_grad():
        if (path / sharded.INDEX).exists():
            sharded.load(path, tensors)
        else:
            for name, value in load_file(path / TENSORS).items():
                tensors[name].copy_(_as(tensors[name], value))
    if isinstance(optimizer, MasterAdamW):
        optimizer.spread()
    found: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
    return found


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin a checkpoint that the disk cannot hold."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed + SPARE:
        raise RunError(
            f"{folder}: a checkpoint takes {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. "
            "Free some space, then go on with --resume."
        )


def _steps(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]


def _number(name: str) -> int:
    return int(name.removeprefix("step-"))


def _to_disk(path: Path) -> None:
    """Ask the system to put a file, or a folder's names, on the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """What the optimizer updates, by name: float32 masters where the model holds rounded copies."""
    names = [name.removeprefix("module.") for name, _ in model.named_parameters()]  # the prefix is DDP's
    tensors = optimizer.masters() if isinstance(optimizer, MasterAdamW) else model.parameters()
    return dict(zip(names, tensors, strict=True))


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Weights and moments under one roof; no moments before the first update."""
    found = _trained(model, optimizer)
    state = bare(optimizer).state
    moments = {f"{name}/{key}": value for name, tensor in found.items() for key, value in state.get(tensor, {}).items()}
    return found | moments


def _as(like: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole tensor as the part that this process holds of `like`."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value
