"""Build, save and load models through transformers: the Llama class, or another dense decoder by name.

Weights are float32 masters everywhere; a lower precision is a matter of the hardware profile's autocast. A saved model
is one folder: config.json, safetensors, the tokenizer's files. It appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from alignment import hardware as machine
from alignment import tokenizer as vocabulary
from alignment.errors import ModelError
from alignment.hardware import Hardware
from alignment.models import attention, norm, presets, quantised, recompute
from alignment.models.presets import Shape
from alignment.schema import nearest

RESHAPED = ("final_logit_softcapping", "logits_scaling", "logit_scale")  # of the library's configs: Gemma, Granite, Cohere
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def config(shape: Shape, init_std: float = 0.006, **ids: int | None) -> PreTrainedConfig:
    """Say a shape in the library's words. `ids`: bos_token_id, eos_token_id, pad_token_id."""
    if shape.kind not in CONFIG_MAPPING:
        raise ModelError(f"model.kind: the library has no {shape.kind!r}. {nearest(shape.kind, CONFIG_MAPPING)}")
    return AutoConfig.for_model(
        shape.kind,
        vocab_size=shape.vocab,
        hidden_size=shape.width,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tie,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        attention_bias=False,
        mlp_bias=False,
        initializer_range=init_std,  # 0.006 in the paper (2.3); the library's default is 0.02
        **ids,
    )


def build(
    shape: Shape,
    tokenizer: PreTrainedTokenizerFast,
    hardware: Hardware,
    *,
    seed: int,
    init_std: float = 0.006,
    length: int | None = None,
) -> PreTrainedModel:
    """Draw a model's first weights: float32, the same on every rank and machine for one seed.

    `length`: of the longest sequences that it is trained on.

    Raises ModelError where another kind of model is not what the arithmetic of shapes (`presets`) says it is.
    """
    if len(tokenizer) > shape.vocab:
        raise ModelError(f"the tokenizer has {len(tokenizer)} tokens, the model {shape.vocab} rows. Raise vocab.")
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    pad = None if tokenizer.pad_token_id in marks else tokenizer.pad_token_id  # the library never trains the pad's row
    settings = config(
        shape, init_std, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad
    )
    settings._attn_implementation = machine.attention(hardware, length)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(settings)
    prepare(model, hardware)
    if (found := matrices(model)) != presets.matrices(shape):
        raise ModelError(
            f"model.kind {shape.kind}: its layers' matrices hold {found:,} weights, {presets.matrices(shape):,} are "
            "expected of a dense decoder with a gated feed-forward part. Only such decoders are trained here."
        )
    return model


def check_logits(settings: PreTrainedConfig) -> None:
    """Raise ModelError where a model's logits are more than hidden states times the head."""
    for name in RESHAPED:
        if getattr(settings, name, None) not in (None, 1, 1.0):
            raise ModelError(f"{settings.model_type}: its {name} changes the logits. Use a model without it.")


def matrices(model: PreTrainedModel) -> int:
    """Count the weights of the layers' matrices: what a token is multiplied with between embedding and output."""
    return sum(layer.weight.numel() for layer in model.model.modules() if isinstance(layer, nn.Linear))


def save(model: PreTrainedModel, tokenizer: Path, out: Path, weights: dict[str, Any] | None = None) -> None:
    """Write the model with the tokenizer's files to a new folder; `weights` where the model's own are sharded."""
    draft = out.with_name(out.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    caching = model.config.use_cache
    model.config.use_cache = True  # training switches it off; whoever loads the folder wants it
    model.save_pretrained(draft, state_dict=weights)
    model.config.use_cache = caching
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, draft / name)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(draft, out)


def load(folder: Path, hardware: Hardware, length: int | None = None, *, base: str | None = None) -> PreTrainedModel:
    """Load float32 weights from a model folder, to be trained on sequences of up to `length` tokens.

    With base `nf4` the layers' matrices are held in 4 bits, frozen, for an adapter (Dettmers et al., 2023).
    Refuses pickled weights and a tokenizer that does not fit.
    """
    kernel = machine.attention(hardware, length)
    model = read(folder, kernel) if base is None else quantised.harmless(read(folder, kernel, **quantised.nf4(hardware)))
    prepare(model, hardware)
    return model


def prepare(model: PreTrainedModel, hardware: Hardware) -> None:
    """Fit a model that is to be trained to the machine."""
    if hardware.recompute == "selective":
        recompute.spare_attention(model)
    if (hardware.device, hardware.dtype, hardware.compile) == ("cpu", "bfloat16", False):  # a compiler fuses by itself
        norm.attach(model)
        attention.attach(model)


def read(folder: Path, attention: str = "sdpa", **words: Any) -> PreTrainedModel:
    """Load float32 weights; `words` say to the library what else is asked of it."""
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder}: no config.json here. Name the model/ folder of a finished run.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: no .safetensors weights here; other formats can run code and are not read.")
    check_vocabulary(folder)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **words,
        )
    except RuntimeError as error:
        raise ModelError(f"{folder}: the weights do not fit config.json. Copy the folder again. ({error})") from error
    return model


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer beside a model (or alone) as the byte-level pipeline that its file describes."""
    if not (folder / "tokenizer.json").exists():
        raise ModelError(f"{folder}: no tokenizer.json here. Copy the tokenizer that the model was trained with.")
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer


def check_vocabulary(folder: Path) -> None:
    """Refuse a model with fewer embedding rows than its tokenizer has tokens (and reserve), before its weights are read."""
    rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    tokens = vocabulary.rows(folder, len(read_tokenizer(folder)))
    if tokens > rows:
        raise ModelError(
            f"{folder}: the tokenizer needs {tokens} rows of the embedding, which has {rows}. Use the tokenizer it was "
            f"trained with, or grow the embedding: model.resize_token_embeddings({tokens}), then save both."
        )
