"""Where a model to start from lies (a neighbouring run, the hub at a pinned revision, a folder), and how it is spoken to."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from alignment import chat, data_card
from alignment.errors import ModelError
from alignment.models import build
from alignment.recipe import DPO, KTO, SFT, Mixture, Start
from alignment.run import Run

WANTED = ("*.safetensors", "*.json", "*.jinja")  # never pickles, never code


def open_tokenizer(recipe: Mixture | SFT | DPO | KTO, here: Run) -> tuple[Path, PreTrainedTokenizerFast]:
    """Name the folder of the start model, read its tokenizer, and note its chat template in the manifest.

    Raises ModelError for a template that cannot be used, or is not the recipe's.
    """
    folder = locate(recipe.start, here, weights=not isinstance(recipe, Mixture))
    tokenizer = build.read_tokenizer(folder)
    chat.check_template(tokenizer, recipe.template, str(folder))
    note_template(tokenizer, here)
    return folder, tokenizer


def note_template(tokenizer: PreTrainedTokenizerFast, here: Run) -> None:
    """Write the chat template into the manifest: by name if it is one of ours, else by digest."""
    known = {text: name for name, text in chat.TEMPLATES.items()}
    text = str(tokenizer.chat_template)
    here.manifest["chat_template"] = known.get(text) or f"sha256:{sha256(text.encode()).hexdigest()}"


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
