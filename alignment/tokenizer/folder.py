"""A tokenizer as a folder: what AutoTokenizer reads without any code of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tokenizers import Tokenizer as Encoder

from alignment import chat
from alignment.chat import BOS, EOS
from alignment.errors import ModelError
from alignment.tokenizer.learning import PAD

PADDED = "padded_vocab_size"  # in tokenizer_config.json: rows of the embedding, where they are more than the tokens


def write(encoder: Encoder, folder: Path, template: str, padded: int | None = None, pad: str = PAD) -> None:
    """Write the folder. BOS is not added by the tokenizer: stages that want it put it there."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # LlamaTokenizerFast would replace the pre-tokenizer
        "bos_token": BOS,
        "eos_token": "<|im_end|>" if template == "chatml" else EOS,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    } | ({PADDED: padded} if padded else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat.TEMPLATES[template], encoding="utf-8")


def load(folder: Path) -> Encoder:
    """Load tokenizer.json for text that is not ours: a control token spelt in it stays text."""
    try:
        encoder = Encoder.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise ModelError(f"{folder}: no usable tokenizer.json ({error}). Run the `tokenizer` stage first.") from None
    encoder.encode_special_tokens = True
    return encoder


def rows(folder: Path, tokens: int) -> int:
    """Say how many rows the embedding beside this tokenizer has: the padded size where one is written, else `tokens`."""
    settings = folder / "tokenizer_config.json"
    padded = json.loads(settings.read_text(encoding="utf-8")).get(PADDED) if settings.exists() else None
    if padded is not None and padded < tokens:
        raise ModelError(f"{settings}: {PADDED} {padded} is below the {tokens} tokens there are. Raise it, or remove it.")
    return padded or tokens


def digest(encoder: Encoder) -> str:
    """Identify a tokenizer by its contents."""
    return hashlib.sha256(encoder.to_str().encode()).hexdigest()
