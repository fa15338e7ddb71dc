"""DeepSeek LLM's own tokenizer, rebuilt from its public vocabulary, gives the published ids."""

from __future__ import annotations

import pytest

from alignment import tokenizer, unpack
from alignment.chat import BOS, EOS
from alignment.errors import ModelError

FILE = "tokenizers/ggml-vocab-deepseek-llm.gguf"
SINGLES = "\u00f8\u00f6\u00fa\u00ff\u00f5\u00f7\u00fb\u00fd\u00c0\u00f9\u00c1\u00fe\u00fc"


@pytest.fixture(scope="module")
def rebuilt(request, tmp_path_factory):
    root = request.config.getoption("--data-root")
    if root is None:
        pytest.skip("needs --data-root")
    return unpack.unpack_deepseek_llm(root / FILE, tmp_path_factory.mktemp("tokenizers") / "deepseek-llm")


@pytest.mark.data
@pytest.mark.slow
def test_every_golden_vector_matches(rebuilt, data_root):
    """llama.cpp's vectors: texts between marks, and their ids line by line."""
    from transformers import AutoTokenizer

    texts = (data_root / f"{FILE}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = (data_root / f"{FILE}.out").read_text(encoding="utf-8").split("\n")
    assert len(texts) == len(lines) > 40
    encoder, loaded = tokenizer.load(rebuilt), AutoTokenizer.from_pretrained(rebuilt)
    for text, line in zip(texts, lines, strict=True):
        ids = [int(number) for number in line.split()]
        assert encoder.encode(text, add_special_tokens=False).ids == ids, text
        assert loaded(text)["input_ids"] == ids, text
        assert loaded.decode(ids) == text


@pytest.mark.data
@pytest.mark.slow
def test_its_places_are_the_published_ones(rebuilt):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(rebuilt)
    assert (len(loaded), tokenizer.rows(rebuilt, len(loaded))) == (100_015, 102_400)
    assert (loaded.bos_token, loaded.bos_token_id) == (BOS, 100_000)
    assert (loaded.eos_token, loaded.eos_token_id, loaded.pad_token_id) == (EOS, 100_001, 100_001)
    assert loaded.convert_tokens_to_ids(list(SINGLES)) == list(range(100_002, 100_015))
    text = f"M\u00fcller{SINGLES} \u00fcber"
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.data
@pytest.mark.slow
def test_another_vocabulary_is_refused(data_root, tmp_path):
    with pytest.raises(ModelError, match="its pre-tokenizer is 'gpt-2'"):
        unpack.unpack_deepseek_llm(data_root / "tokenizers/ggml-vocab-gpt-2.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_vocabulary_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"no vocabulary at all, but long enough to be read")
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        unpack.unpack_deepseek_llm(tmp_path / "x.gguf", tmp_path / "out")
    with pytest.raises(ModelError, match="exists"):
        unpack.unpack_deepseek_llm(tmp_path / "x.gguf", tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        unpack.unpack_deepseek_llm(tmp_path / "none.gguf", tmp_path / "out")
