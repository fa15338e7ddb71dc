"""Open a model for sampling: a run directory, a model folder, or ORG/NAME@REVISION on the hub.

Only safetensors are read and no code of a repository is run. A hub name needs a revision: a score of "whatever is
there today" cannot be repeated. A plain Llama folder goes straight into the lean forward, without transformers' model
classes, whose import takes longer than reading a small model.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from alignment import chat, run
from alignment.errors import HubError, ModelError
from alignment.generate import llama
from alignment.hardware import Hardware

PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # wholly described by tokenizer.json
LLAMA_WORDS = frozenset({
    "model_type", "hidden_act", "hidden_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
})  # fmt: skip


def open_model(argument: str | Path, hardware: Hardware) -> tuple[Any, Any]:
    """Load model and tokenizer for inference: float32 on a CPU, the profile's dtype on a GPU."""
    place, revision = locate(argument)
    dtype = torch.float32 if hardware.device == "cpu" else getattr(torch, hardware.dtype)
    found = _open_llama(Path(place), hardware.device, dtype) if not revision else None
    model, tokenizer = found or _open_any(argument, place, revision, hardware, dtype)
    rows = (model.embedding if found else model.get_input_embeddings().weight).shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"{argument}: the tokenizer has {len(tokenizer)} ids, the model {rows} embedding rows. They do not belong "
            "together, or tokens were added after training: resize the embeddings and train them, or drop the tokens."
        )
    return model, tokenizer


def _open_llama(place: Path, device: str, dtype: torch.dtype) -> tuple[llama.Llama, Any] | None:
    """Open a folder that says all the lean forward must know; None for any other."""
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return None  # transformers says what is broken
    words = place / "tokenizer_config.json"
    files = sorted(place.glob("*.safetensors"))
    if not (config.keys() >= LLAMA_WORDS and words.exists() and (place / "tokenizer.json").exists() and files):
        return None
    kind = json.loads(words.read_text(encoding="utf-8")).get("tokenizer_class")
    if kind not in PLAIN_TOKENIZERS or not llama.supports(SimpleNamespace(**config)):
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast

    try:
        weights = {name: weight.to(dtype) for file in files for name, weight in load_file(file, device=device).items()}
        return llama.Llama(SimpleNamespace(**config), weights), PreTrainedTokenizerFast.from_pretrained(place)
    except (SafetensorError, KeyError):
        return None  # transformers says what is broken or missing


def _open_any(
    argument: str | Path, place: str, revision: str | None, hardware: Hardware, dtype: torch.dtype
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"revision": revision} if revision else {"local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
        model = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            attn_implementation=hardware.attention,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, ImportError) as error:
        raise _complaint(argument, revision, error) from error
    return model.to(hardware.device).eval(), tokenizer


def locate(argument: str | Path) -> tuple[str, str | None]:
    """Say where a model lies: (folder, None), or (hub name, revision)."""
    path = Path(argument)
    if run.is_run(path):
        folder = run.read(path).path / "model"
        if not folder.is_dir():
            raise ModelError(f"{path}: this run holds no model/. Name a pretrain, sft or dpo run.")
        return str(folder), None
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"{path}: neither a run (no run.json) nor a model folder (no config.json).")
        return str(path), None
    name, _, revision = str(argument).partition("@")
    if isinstance(argument, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"{argument}: no such folder. Give a run directory, a model folder, or ORG/NAME@REVISION.")
    if not revision:
        raise HubError(f"{argument}: no such folder; as a hub name it needs a revision: {argument}@COMMIT (or a tag).")
    return name, revision


def opening(tokenizer: Any) -> list[int]:
    """The ids that text begins with: BOS where the tokenizer puts it by itself, or where it is DeepSeek's (and ours).

    Not every BOS is meant so: SmolLM2-Instruct's is `<|im_start|>`, the mark of a chat turn.
    """
    bos = tokenizer.bos_token_id
    if bos is None:
        return []
    by_itself = tokenizer("x")["input_ids"][:1] == [bos]
    return [bos] if by_itself or tokenizer.bos_token == chat.BOS else []


def context(config: Any, name: str) -> int:
    """Positions the model can see. Within a sliding window all attention is full, so the window bounds it too."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"}:
        raise ModelError(f"{name}: layers of kind {', '.join(sorted(kinds))}; this engine has attention layers only.")
    slides = "sliding_attention" in kinds or (not getattr(config, "layer_types", None))
    window = getattr(config, "sliding_window", None) if slides else None
    return min(config.max_position_embeddings, window or config.max_position_embeddings)


def _complaint(argument: str | Path, revision: str | None, error: Exception) -> HubError | ModelError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if revision:
        return HubError(
            f"{argument}: not loaded from the hub ({first}). Check the name, the revision and the network "
            "(HF_ENDPOINT, HF_TOKEN), or download it and give the folder. Only safetensors are read."
        )
    return ModelError(f"{argument}: not loadable ({first}). It needs config.json, *.safetensors and a tokenizer.")
