"""What may be opened as a model, and what is said when it may not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from alignment.errors import HubError, ModelError
from alignment.generate import engine, weights
from alignment.generate.engine import Settings

CPU = SimpleNamespace(device="cpu", dtype="bfloat16", attention="sdpa")


def test_a_saved_model_answers_as_it_did_in_memory(llama, tokenizer, tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked, settings = ["one", "two"], Settings(max_new_tokens=6)
    loaded = engine.load(tmp_path, CPU)
    assert loaded.forward.dtype == torch.float32
    assert loaded.generate(asked, settings) == engine.Engine(model, tokenizer).generate(asked, settings)


def test_a_tokenizer_larger_than_the_embedding_is_refused(llama, tokenizer, tmp_path):
    model = llama()
    model.resize_token_embeddings(200)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="258 ids, the model 200 embedding rows"):
        engine.load(tmp_path, CPU)


def test_weights_that_are_no_safetensors_are_refused(llama, tokenizer, tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="not loadable"):
        engine.load(tmp_path, CPU)


def test_a_hub_name_needs_a_revision():
    with pytest.raises(HubError, match="needs a revision"):
        weights.locate("somebody/model")
    assert weights.locate("somebody/model@abc123") == ("somebody/model", "abc123")


@pytest.mark.parametrize("argument", ["nowhere", "./runs/x", "/no/where", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(argument):
    with pytest.raises(ModelError, match="no such folder"):
        weights.locate(argument)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="neither a run"):
        weights.locate(tmp_path)


def test_a_hub_that_does_not_answer_is_a_hub_error(monkeypatch):
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(HubError, match="no route"):
        engine.load("somebody/model@abc123", CPU)
