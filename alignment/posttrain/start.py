"""Where a model to start from lies: a neighbouring run, the hub at a pinned revision, or a folder."""

from __future__ import annotations

from pathlib import Path

from alignment import data_card
from alignment.errors import ModelError
from alignment.recipe import Start
from alignment.run import Run

WANTED = ("*.safetensors", "*.json", "*.jinja")  # never pickles, never code


def locate(start: Start, here: Run, *, weights: bool = True) -> Path:
    """Name the folder of a start model; with `weights=False` a tokenizer alone is enough."""
    if start.run:
        found = here.inputs[start.run]
        folders = [found.path / "model"] if weights else [found.path / "model", found.path / "tokenizer"]
        for folder in folders:
            if folder.is_dir():
                return folder
        raise ModelError(f"{found.path}: a {found.manifest['stage']} run holds no {folders[-1].name}/. Name another run.")
    if start.folder:
        return Path(start.folder)
    from huggingface_hub import snapshot_download

    patterns = WANTED if weights else WANTED[1:]
    with data_card.asking_hub(f"start: {start.hub}@{start.revision}"):
        return Path(snapshot_download(str(start.hub), revision=start.revision, allow_patterns=list(patterns)))
