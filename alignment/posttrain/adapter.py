"""Adapters: LoRA, rsLoRA, DoRA and, on a 4-bit base, QLoRA, in peft's words; merged into the base at full precision.

What a name in `targets` means is resolved here, module by module, and tried on an empty copy of the model: peft rewrites
names on mixture-of-experts models, and would adapt DeepSeek-V3's router and experts where its dense layers were meant.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from alignment import schema
from alignment.errors import ModelError, RecipeError
from alignment.models import quantised
from alignment.recipe import Adapter

ROUTERS = ("gate", "router", "shared_expert_gate")  # linear layers that choose experts
MERGED = 1e-4  # by how much a merged model's logits may differ, in shares of the largest
LOOK = 64  # tokens that a merge is checked on


def config(words: Adapter | None, model: PreTrainedModel) -> LoraConfig | None:
    """Say an adapter in peft's words, every adapted module by its full name.

    Raises RecipeError for a target that the model does not have or that is a router, ModelError where peft would adapt
    other modules.
    """
    if words is None:
        return None
    wanted = resolve(words.targets, model)
    said = LoraConfig(
        r=words.rank,
        lora_alpha=words.alpha,
        lora_dropout=words.dropout,
        target_modules=wanted,
        use_rslora=words.kind == "rslora",
        use_dora=words.kind == "dora",
        bias="none",
        task_type="CAUSAL_LM",
    )
    if (found := _tried(said, model)) != set(wanted):
        raise ModelError(
            f"adapter.targets: of {model.config.model_type}, peft would adapt {_some(found - set(wanted))} and leave out "
            f"{_some(set(wanted) - found)}: it takes the names of feed-forward layers for those of experts and router. "
            "Name projections of the attention only."
        )
    return said


def resolve(targets: Sequence[str], model: nn.Module) -> list[str]:
    """Name the linear layers that targets mean: by their last name, or all but the head and routers (`all-linear`)."""
    head = model.get_output_embeddings()
    layers = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head}
    linear = {name: name.rpartition(".")[2] for name in layers}
    if targets == "all-linear":
        return [name for name, last in linear.items() if last not in ROUTERS]
    if routers := set(targets).intersection(ROUTERS):
        raise RecipeError(f"adapter.targets: {min(routers)} chooses experts and is never adapted. Leave it out.")
    for target in targets:
        if target not in linear.values():
            raise RecipeError(
                f"adapter.targets: the model has no linear layer {target!r} (an output head is not adapted). "
                f"{schema.nearest(target, sorted(set(linear.values())))}"
            )
    return [name for name, last in linear.items() if last in targets]


def _tried(said: LoraConfig, model: PreTrainedModel) -> set[str]:
    """What peft adapts, seen on a copy of the model without weights."""
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(_plain(model.config))
        return set(adapted(get_peft_model(bare, copy.deepcopy(said))))


def _plain(config: Any) -> Any:
    """The configuration of the same model in full precision."""
    plain = copy.deepcopy(config)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    return plain


def adapted(model: PeftModel) -> list[str]:
    """Name the modules that carry an adapter, as the bare model calls them."""
    inner = model.get_base_model()
    return [name for name, part in inner.named_modules() if isinstance(part, BaseTunerLayer)]


def said(model: PeftModel) -> str:
    """Say in one line what is trained, and on what."""
    modules = adapted(model)
    names = sorted({name.rpartition(".")[2] for name in modules})
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    text = f"adapter: {trained:,} weights at {len(modules)} modules ({', '.join(names)})"
    if not (four_bit := quantised.layers(model)):
        return text
    return f"{text}; {len(four_bit)} layers in 4 bits, {quantised.weight_bytes(model) / 2**20:,.1f} MiB of weights in all"


def widen(model: PeftModel) -> None:
    """Hold the adapter in float32: TRL rounds that of a quantised base to bfloat16, where small updates are lost."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@torch.no_grad()
def merge(
    model: PeftModel, base: PreTrainedModel, weights: dict[str, torch.Tensor] | None = None
) -> tuple[PreTrainedModel, float]:
    """Merge an adapter into `base`, its model in full precision; `weights` where the model's own are sharded.

    Returns the merged model and by how much its logits differ from those of base and adapter, in shares of the largest.

    A quantised base cannot take it (rounding to 4 bits would swallow the difference). Raises ModelError if the merged
    model does not compute what base and adapter do.
    """
    said = copy.deepcopy(model.peft_config["default"])
    said.inference_mode = True
    apart = get_peft_model(base, said)
    learnt = {name: value.float().cpu() for name, value in _weights(model, weights).items()}
    assert learnt.keys() == _weights(apart).keys(), "the adapter and its base have other modules"
    set_peft_model_state_dict(apart, learnt)
    apart.eval()
    ids = torch.arange(LOOK)[None] * 7919 % base.config.vocab_size
    before = apart(ids, use_cache=False).logits
    merged: PreTrainedModel = apart.merge_and_unload()
    after = merged(ids, use_cache=False).logits
    gap = float((after - before).abs().max() / before.abs().max())
    if not gap <= MERGED:
        raise ModelError(
            f"the merged model differs from base and adapter by {gap:.1e} of the largest logit, {MERGED:g} is allowed. "
            "Nothing was written; the checkpoints hold the adapter."
        )
    return merged, gap


def _weights(model: PeftModel, weights: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    return dict(get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False))


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "") if names else "nothing"
