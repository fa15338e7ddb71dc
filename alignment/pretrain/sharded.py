"""Checkpoints of a model whose tensors are sharded: each process writes its own part, and any number can read it.

torch's distributed checkpoint does the work: it takes copies and returns, and a thread writes. Its coordination has a
process group of its own, so that it cannot mix with the gradients'.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor

INDEX = ".metadata"  # which process wrote what: the last file to appear


def is_sharded(tensors: dict[str, torch.Tensor]) -> bool:
    """Whether this process holds only a part of them."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def save(draft: Path, tensors: dict[str, torch.Tensor]) -> Future[Any]:
    """Begin to write this process's part; the future is done when all parts are. Every rank calls it."""
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}  # what is on a CPU is not copied there
    begun: Any = dcp.async_save(copies, checkpoint_id=draft, process_group=_group())
    return getattr(begun, "upload_completion", begun)


def load(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Fill tensors, however they are sharded now, with what was saved under their names."""
    dcp.load(tensors, checkpoint_id=path)


@cache
def _group() -> dist.ProcessGroup | None:
    return dist.new_group(backend="gloo")
