"""A pre-training checkpoint as a model folder: what was learnt so far, to be scored or shared while the training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from alignment import recipe, run
from alignment.errors import RunError
from alignment.hardware import Hardware
from alignment.models import build, presets

TENSORS, SHARDED = "tensors.safetensors", ".metadata"  # of a checkpoint: whole, or what torch calls its index


def write(path: Path, step: int, machine: Hardware, out: Path) -> None:
    """Write the model that the run at `path` had after `step` updates, with its tokenizer, to a new folder.

    Raises FileNotFoundError where the checkpoint is gone, RunError where it is another model's.
    """
    words = recipe.validate(run.read_manifest(path)["recipe"], str(path / run.MANIFEST))
    assert isinstance(words, recipe.Pretrain), f"{path}: {words.stage}"
    folder = path / "checkpoints" / f"step-{step}"
    tokenizer = path.parent / words.data / "tokenizer"
    found = weights(folder)
    shape = presets.resolve(words.model, len(found["model.embed_tokens.weight"]), words.sequence_length)
    model = build.build(shape, build.read_tokenizer(tokenizer), machine, seed=0)
    missing = model.load_state_dict(found, strict=False).missing_keys
    if set(missing) - ({"lm_head.weight"} if shape.tie else set()):
        raise RunError(f"{folder}: has no {missing[0]}. It is not a checkpoint of this run's model.")
    build.save(model, tokenizer, out)


def weights(folder: Path) -> dict[str, Any]:
    """The weights of a checkpoint, float32, by name; sharded ones are put together."""
    if not (folder / SHARDED).exists():
        with safe_open(folder / TENSORS, framework="pt") as file:
            names = [name for name in list(file.keys()) if "/" not in name]  # the others are moments
            return {name: file.get_tensor(name) for name in names}
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    known = FileSystemReader(folder).read_metadata().state_dict_metadata
    sizes = {name: about.size for name, about in known.items() if isinstance(about, TensorStorageMetadata)}
    tensors = {name: torch.empty(size) for name, size in sizes.items() if "/" not in name}
    load(tensors, checkpoint_id=folder, no_dist=True)
    return tensors
