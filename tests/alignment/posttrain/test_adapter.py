"""Adapters: what is adapted is what was named, a merge computes the same, and 4-bit bases survive an eval pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, DeepseekV3Config

from alignment.errors import ModelError, RecipeError
from alignment.hardware import _cpu_flags
from alignment.models import build, quantised
from alignment.posttrain import adapter
from alignment.recipe import Adapter
from tests import tiny
from tests.tiny import CPU

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
IDS = torch.arange(48).reshape(2, 24) * 37 % 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model whose matrices are whole blocks of 64, as 4-bit quantisation wants them."""
    root = tmp_path_factory.mktemp("start")
    tiny.write_start(root, width=64)
    return root / "model"


@pytest.fixture(scope="module")
def experts() -> Any:
    """DeepSeek-V3 in small: a dense layer, then one with a router, experts and a shared expert."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        DeepseekV3Config(
            vocab_size=64, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
            first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
            num_mtp_layers=0,
        )
    )  # fmt: skip


def learnt(folder: Path, **words: Any) -> PeftModel:
    """A model with an adapter whose weights are those of no start."""
    model = build.load(folder, CPU, base=words.get("base"))
    made = get_peft_model(model, adapter.config(Adapter(rank=4, alpha=8, **words), model))
    adapter.widen(made)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5) if "magnitude" in name else parameter.normal_(std=0.2)
    return made


def logits(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def gradient(model: PeftModel) -> torch.Tensor:
    model.train()
    model.zero_grad()
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


# -- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("targets", "names"), [(ATTENTION[:2], ATTENTION[:2]), ("all-linear", ATTENTION + FEED_FORWARD)])
def test_every_layer_is_adapted_where_it_was_named(folder: Path, targets: Any, names: tuple[str, ...]) -> None:
    model = build.load(folder, CPU)
    made = get_peft_model(model, adapter.config(Adapter(targets=targets), model))
    parts = {"self_attn": ATTENTION, "mlp": FEED_FORWARD}
    wanted = {f"model.layers.{i}.{part}.{n}" for i in (0, 1) for part, known in parts.items() for n in names if n in known}
    assert set(adapter.adapted(made)) == wanted
    assert f"at {len(wanted)} modules ({', '.join(sorted(names))})" in adapter.said(made)


def test_a_target_that_the_model_does_not_have_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"no linear layer 'q_prok'.*Did you mean 'q_proj'"):
        adapter.config(Adapter(targets=("q_prok", "k_proj")), build.load(folder, CPU))
    with pytest.raises(RecipeError, match="no linear layer 'lm_head'"):
        adapter.config(Adapter(targets=("lm_head",)), build.load(folder, CPU))


def test_the_router_and_the_experts_of_deepseek_v3_are_never_adapted(experts: Any) -> None:
    with pytest.raises(RecipeError, match="gate chooses experts"):
        adapter.config(Adapter(targets=("q_b_proj", "gate")), experts)
    for targets in ("all-linear", FEED_FORWARD):
        with pytest.raises(ModelError, match=r"peft would adapt model.layers.1.mlp.*leave out model.layers.*gate_proj"):
            adapter.config(Adapter(targets=targets), experts)
    attention = Adapter(targets=("q_a_proj", "q_b_proj", "kv_b_proj", "o_proj"))
    made = get_peft_model(experts, adapter.config(attention, experts))
    assert len(adapter.adapted(made)) == 8
    assert all(".self_attn." in name for name in adapter.adapted(made))
    made.unload()


def test_the_names_mean_what_the_papers_call_so(folder: Path) -> None:
    """rsLoRA scales by alpha / sqrt(rank); DoRA learns a magnitude per row beside the direction."""
    model = build.load(folder, CPU)
    said = {kind: adapter.config(Adapter(kind=kind, rank=4, alpha=8), model) for kind in ("lora", "rslora", "dora")}
    scaling = {}
    for kind, words in said.items():
        made = get_peft_model(build.load(folder, CPU), words)
        layer = made.get_base_model().model.layers[0].self_attn.q_proj
        scaling[kind] = layer.scaling["default"]
        assert bool(layer.lora_magnitude_vector) == (kind == "dora")
    assert scaling == {"lora": 2.0, "rslora": 4.0, "dora": 2.0}


# -- merging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_merged_model_computes_what_base_and_adapter_do(folder: Path, kind: str) -> None:
    made = learnt(folder, kind=kind, targets="all-linear")
    before = logits(made)
    merged, gap = adapter.merge(made, build.read(folder))
    assert not isinstance(merged, PeftModel)
    assert gap * before.abs().max() < 1e-4
    torch.testing.assert_close(logits(merged), before, atol=1e-4, rtol=0)
    assert (before - logits(build.read(folder))).abs().max() > 0.1  # the adapter does something
    torch.testing.assert_close(logits(made), before)  # and still does


def test_a_merge_that_computes_something_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learnt(folder)
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    with pytest.raises(ModelError, match="merged model differs from base and adapter by"):
        adapter.merge(made, build.read(folder))


# -- four bits --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_4_bit_base_is_nf4_with_its_scales_quantised_and_the_rest_as_it_was(folder: Path) -> None:
    whole, held = build.load(folder, CPU), build.load(folder, CPU, base="nf4")
    layers = quantised.layers(held)
    assert len(layers) == 14
    assert {(layer.weight.quant_state.quant_type, layer.weight.quant_state.nested) for layer in layers} == {("nf4", True)}
    assert held.get_input_embeddings().weight.dtype == torch.float32
    matrices = sum(layer.in_features * layer.out_features for layer in layers)
    saved = quantised.weight_bytes(whole) - quantised.weight_bytes(held)
    assert 3.4 * matrices < saved < 3.5 * matrices  # 4 bytes each before, half a byte and a share of the scales after
    assert 0 < (logits(held) - logits(whole)).abs().max() < 0.5 * logits(whole).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_gradients_and_merge_are_the_same_after_an_eval_pass(folder: Path, kind: str) -> None:
    made = learnt(folder, kind=kind, base="nf4", targets="all-linear")
    before = gradient(made)
    logits(made)  # where bitsandbytes repacks
    torch.testing.assert_close(gradient(made), before, atol=1e-7, rtol=1e-6)
    merged, _ = adapter.merge(made, build.read(folder))
    assert not quantised.layers(merged)
    whole = learnt(folder, kind=kind, targets="all-linear")
    whole.load_state_dict({n: p for n, p in made.named_parameters() if p.requires_grad}, strict=False)
    torch.testing.assert_close(logits(merged), logits(whole), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif("avx512_bf16" not in _cpu_flags(), reason="bitsandbytes repacks on CPUs with AVX512-BF16 only")
def test_without_the_guard_an_eval_pass_spoils_the_gradients(folder: Path) -> None:
    """If this fails, bitsandbytes has mended it, and the guard can go."""
    made = learnt(folder, base="nf4", targets="all-linear")
    before = gradient(made)
    for layer in quantised.layers(made):
        layer.support_avx512bf16_for_cpu = True
    logits(made)
    assert torch.cosine_similarity(gradient(made), before, dim=0) < 0.999


@pytest.mark.slow
def test_small_updates_of_an_adapter_on_a_4_bit_base_are_not_lost(folder: Path) -> None:
    """TRL rounds such adapters to bfloat16."""
    made = learnt(folder, base="nf4")
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    adapter.widen(made)
    assert {p.dtype for p in made.parameters() if p.requires_grad} == {torch.float32}
