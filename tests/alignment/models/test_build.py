"""Building, saving and loading: counts, first weights, a vocabulary that does not fit."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from alignment import tokenizer
from alignment.errors import ModelError
from alignment.hardware import SHORT_KERNEL, Hardware
from alignment.models import build, presets
from alignment.models.presets import PRESETS, Shape

CPU = Hardware("cpu", "cpu", "float32", "test", "sdpa", 4096, False, 1, 1)
SHAPE = Shape(layers=2, width=64, heads=4, kv_heads=2, ffn=172, vocab=320, max_positions=64, tie=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A byte-level tokenizer of 288 tokens."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write(
        tokenizer.learn(["the cat sat on the mat with the other cats. " * 9], 288, "deepseek-llm"), path, "deepseek-llm"
    )
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_the_library_builds_as_many_parameters_as_we_count(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(build.config(PRESETS[name]))
    assert isinstance(model, LlamaForCausalLM)
    assert model.num_parameters() == presets.parameters(PRESETS[name])
    assert build.matrices(model) == presets.matrices(PRESETS[name])


@pytest.mark.parametrize("kind", ["qwen3", "olmo2", "mistral"])
def test_another_decoder_is_built_by_name_and_loads_without_our_code(kind, folder, tmp_path):
    model = build.build(replace(SHAPE, kind=kind), build.read_tokenizer(folder), CPU, seed=0).eval()
    build.save(model, folder, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True).eval()
    assert loaded.config.model_type == kind
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids).logits, loaded(ids).logits)


@pytest.mark.parametrize(("kind", "complaint"), [("mixtral", "dense decoder"), ("llamma", "Did you mean 'llama'")])
def test_a_kind_that_is_no_dense_decoder_or_none_at_all_is_refused(kind, complaint, folder):
    with pytest.raises(ModelError, match=complaint):
        build.build(replace(SHAPE, kind=kind), build.read_tokenizer(folder), CPU, seed=0)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_attention_kernels_that_run_here_agree_in_value_and_gradient(kv_heads, folder):
    shape, words = replace(SHAPE, kv_heads=kv_heads), build.read_tokenizer(folder)
    ids = torch.randint(0, len(words), (3, 48), generator=torch.Generator().manual_seed(0))
    found = {}
    for kernel in ("eager", "sdpa", SHORT_KERNEL):
        model = build.build(shape, words, replace(CPU, attention=kernel), seed=0, init_std=0.2)
        logits = model(ids, use_cache=False).logits
        logits.logsumexp(-1).sum().backward()
        found[kernel] = logits.detach(), model.model.layers[0].self_attn.k_proj.weight.grad
    for kernel in ("sdpa", SHORT_KERNEL):
        for plain, other in zip(found["eager"], found[kernel], strict=True):
            torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-4)


def test_first_weights_have_the_papers_spread_and_come_from_the_seed(folder):
    words = build.read_tokenizer(folder)
    model = build.build(SHAPE, words, CPU, seed=1)
    for name, tensor in model.named_parameters():
        if tensor.dim() > 1:
            assert tensor.std().item() == pytest.approx(0.006, rel=0.05), name
    again, other = (build.build(SHAPE, words, CPU, seed=seed) for seed in (1, 2))
    assert torch.equal(model.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_the_embedding_of_the_end_mark_is_trained_when_it_is_also_the_pad(folder):
    words = build.read_tokenizer(folder)
    words.pad_token = words.eos_token
    model = build.build(SHAPE, words, CPU, seed=0)
    assert model.get_input_embeddings().weight[words.eos_token_id].abs().sum() > 0


def test_a_saved_model_comes_back_equal_with_its_tokenizer_and_its_cache(folder, tmp_path):
    model = build.build(SHAPE, build.read_tokenizer(folder), CPU, seed=0).eval()
    model.config.use_cache = False
    build.save(model, folder, tmp_path / "model")
    loaded = build.load(tmp_path / "model", CPU).eval()
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids).logits, loaded(ids).logits)
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (saved["model_type"], saved["use_cache"], saved["rms_norm_eps"]) == ("llama", True, 1e-6)
    assert build.read_tokenizer(tmp_path / "model").chat_template
    assert not list(tmp_path.glob("*.part"))


def test_a_tokenizer_larger_than_the_embedding_is_refused_with_the_remedy(folder, tmp_path):
    build.save(build.build(SHAPE, build.read_tokenizer(folder), CPU, seed=0), folder, tmp_path / "model")
    settings = tmp_path / "model" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"vocab_size": 100}))
    with pytest.raises(ModelError, match=r"resize_token_embeddings\(288\)"):
        build.load(tmp_path / "model", CPU)


def test_weights_of_another_shape_than_the_configuration_are_refused(folder, tmp_path):
    build.save(build.build(SHAPE, build.read_tokenizer(folder), CPU, seed=0), folder, tmp_path / "model")
    settings = tmp_path / "model" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"vocab_size": 400}))
    with pytest.raises(ModelError, match="do not fit"):
        build.load(tmp_path / "model", CPU)


def test_a_shape_with_too_few_rows_is_refused(folder):
    with pytest.raises(ModelError, match="Raise vocab"):
        build.build(Shape(1, 64, 4, 4, 172, vocab=100), build.read_tokenizer(folder), CPU, seed=0)


def test_weights_that_can_run_code_are_not_read(folder, tmp_path):
    build.save(build.build(SHAPE, build.read_tokenizer(folder), CPU, seed=0), folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        build.load(tmp_path / "model", CPU)


@pytest.mark.parametrize("attention", ["eager", "sdpa", SHORT_KERNEL])
def test_packed_documents_give_the_logits_of_separate_ones(folder, attention):
    from alignment.pretrain import batches

    model = build.build(SHAPE, build.read_tokenizer(folder), replace(CPU, attention=attention), seed=0, init_std=0.2)
    bos = 7
    documents = [torch.tensor([bos, 1, 2, 3, 4]), torch.tensor([bos, 5, 6]), torch.tensor([bos, 9, 8, 3])]
    packed = torch.cat(documents)[None]
    places = torch.from_numpy(batches.positions(packed.numpy(), bos))
    together = model(packed, position_ids=places, use_cache=False).logits[0]
    apart = torch.cat([model(document[None], use_cache=False).logits[0] for document in documents])
    assert torch.allclose(together, apart, atol=1e-5)
    leaking = model(packed, use_cache=False).logits[0]
    assert not torch.allclose(leaking, apart, atol=1e-2)
