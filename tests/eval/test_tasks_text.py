"""Bits per byte, against ten lines of plain torch."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment import terminal
from alignment.errors import DataError
from alignment.generate.engine import Engine
from eval import __main__ as command
from eval import text


@pytest.fixture(scope="module")
def loaded():
    core = Tokenizer(
        models.BPE({letter: i for i, letter in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"])}, [])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=64, **sizes))
    return Engine(model, tokenizer), model


@pytest.fixture(scope="module")
def engine(loaded):
    return loaded[0]


def plain(engine, model, document, width):
    """Sum of -log2 p over a document's tokens, window by window."""
    ids = engine.encode(document)
    total = 0.0
    for start in range(0, len(ids), width):
        end = min(start + width, len(ids))
        seen = ids[max(0, end - width - 1) : end] if start else [engine.tokenizer.eos_token_id, *ids[:end]]
        with torch.no_grad():
            logps = model(torch.tensor([seen[:-1]])).logits[0].log_softmax(-1)
        kept = range(len(seen) - (end - start), len(seen))
        total -= sum(float(logps[i - 1, seen[i]]) for i in kept)
    return total / math.log(2)


@pytest.mark.parametrize("width", [8, 16, 64])
def test_bits_per_byte_are_those_of_plain_torch(loaded, width):
    engine, model = loaded
    documents = ["The cat sat on the mat, and then it left.", "天冷", "x"]
    found = text.bits_per_byte(engine, documents, width)
    size = sum(len(document.encode()) for document in documents)
    assert found["bytes"] == found["tokens"] == size
    assert found["bits_per_byte"] == pytest.approx(sum(plain(engine, model, d, width) for d in documents) / size, abs=1e-4)


def test_the_interval_holds_the_score_and_few_windows_have_none(engine):
    found = text.bits_per_byte(engine, ["abcdefgh" * 20], 8)
    assert found["interval"][0] <= found["bits_per_byte"] <= found["interval"][1]
    assert text.bits_per_byte(engine, ["abc"], 8)["interval"] is None


def test_a_window_never_exceeds_the_models_context(engine):
    assert text.bits_per_byte(engine, ["a" * 200], 2048)["window"] == 64


@given(st.integers(1, 60), st.integers(2, 20))
def test_every_token_is_predicted_once_from_at_most_a_window(count, width):
    ids = list(range(count))
    pieces = list(text.windows(ids, [-1], width))
    assert [token for _, after in pieces for token in after] == ids
    for before, after in pieces:
        assert before
        assert len(before) + len(after) <= width + 1
        assert before[-1] == after[0] - 1


def test_the_command_reads_files_and_writes_numbers(engine, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("some text", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    monkeypatch.setattr("alignment.generate.engine.load", lambda *_: engine)
    words = ["text", "org/model@main", str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"), "--out", str(tmp_path / "o.json")]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 0
    found = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["texts"]
    assert [part["documents"] for part in found.values()] == [1, 2]
    assert all(part["bits_per_byte"] > 0 for part in found.values())


def test_a_file_without_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no text"):
        text._texts(tmp_path / "a.txt", None)
