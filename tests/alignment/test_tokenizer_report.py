"""The stage `tokenizer` and its report."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from alignment import tokenizer
from alignment.chat import BOS
from alignment.corpus import documents
from alignment.corpus.documents import Document
from alignment.errors import DataError, ModelError, RecipeError
from alignment.recipe import Tokenizer as Recipe
from alignment.run import Run
from alignment.tokenizer import counting, report

TEXT = "The river runs past 12 stone houses; \u6211\u60f3\u5728apple\u5de5\u4f5c1314\u5929\u3002 def area(width): return 2\n"
WORDS = {"stage": "tokenizer", "data": "corpus", "vocab_size": 320, "sample_bytes": 10_000}


@pytest.fixture
def here(tmp_path):
    (tmp_path / "corpus").mkdir()
    found = [Document(str(i), TEXT * 3, "prose", "en", "here") for i in range(5)]
    documents.write(tmp_path / "corpus/documents.jsonl", found)
    documents.write(tmp_path / "corpus/heldout.jsonl", [*found[:1], Document("n", "1234", "sums", "und", "here")])
    (tmp_path / "tokenizer").mkdir()
    return Run(tmp_path / "tokenizer", {"corpus": SimpleNamespace(path=tmp_path / "corpus")}, {}, True, False, {})


def test_the_stage_writes_a_loadable_tokenizer_and_says_how_well_it_compresses(here):
    numbers = tokenizer.train(Recipe(**WORDS), here, None)
    assert numbers["vocab_size"] == 320
    assert numbers["sample_bytes"] == 5 * 3 * len(TEXT.encode())
    assert numbers["bytes_per_token_prose"] > numbers["bytes_per_token"] > 1 == numbers["bytes_per_token_sums"]
    settings = json.loads((here.path / "tokenizer/tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["bos_token"] == BOS
    assert "padded_vocab_size" not in settings


def test_the_report_stands_in_the_run_beside_a_reference(here, tmp_path):
    tokenizer.write(tokenizer.learn([TEXT * 5], 272, "deepseek-llm", "merged"), tmp_path / "small", "deepseek-llm")
    tokenizer.train(Recipe(**WORDS, padded_vocab_size=352, beside={"small": str(tmp_path / "small")}), here, None)
    found = json.loads((here.path / "tokenizer-report.json").read_text(encoding="utf-8"))
    ours, small = found["tokenizers"]["ours"], found["tokenizers"]["small"]
    assert ours["bytes_per_token"] > small["bytes_per_token"] > 1
    assert set(ours["by_domain"]) == {"prose", "sums"}
    assert set(ours["by_language"]) == {"en", "und"}
    assert ours["digits_per_token"] == 1
    assert (ours["unknown"], ours["changed"], ours["vocab_size"]) == (0, 0, 320)
    training = found["training"]
    assert (training["conventional_tokens"], training["special_tokens"], training["embedding_rows"]) == (305, 15, 352)
    assert training["unused_tokens"] > 100  # most of the 256 bytes, and halves of longer tokens
    assert training["forgotten_share"] == 0
    assert tokenizer.rows(here.path / "tokenizer", 320) == 352
    page = (here.path / "tokenizer-report.md").read_text(encoding="utf-8")
    assert f"| prose | {ours['by_domain']['prose']:.3f} | {small['by_domain']['prose']:.3f} |" in page
    assert "| sums | 1.000 | 1.000 |" in page
    assert "| embedding rows | 352 |" in page


def test_lost_characters_and_merged_digits_are_counted():
    alphabet = {symbol: number for number, symbol in enumerate(["<unk>", "a", "1", "2", "12"])}
    encoder = Tokenizer(models.BPE(vocab=alphabet, merges=[("1", "2")], unk_token="<unk>"))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.decoder = decoders.ByteLevel()
    found = report.measure({"poor": encoder}, [Document("0", "12a", "d", "en", "x"), Document("1", "axa", "d", "en", "x")])
    poor = found["tokenizers"]["poor"]
    assert (poor["unknown"], poor["changed"], poor["used"]) == (1, 1, 3)
    assert poor["by_domain"] == {"d": 6 / 5}
    assert poor["digits_per_token"] > 1


def test_usage_counts_what_encoding_the_text_counts():
    encoder = tokenizer.learn([TEXT * 5], 320, "deepseek-llm")
    ids = encoder.encode(TEXT * 4, add_special_tokens=False).ids
    usage = report.usage(encoder, counting.count([TEXT * 4]).words)
    assert usage["unused_tokens"] == 305 - len(set(ids))
    assert usage["bytes_per_token"] == pytest.approx(4 * len(TEXT.encode()) / len(ids), abs=1e-4)
    assert usage["rare_tokens"] == len(set(ids))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"vocab_size": 321}, RecipeError, "vocab_size: 321 is not a multiple of 16"),
        ({"vocab_size": 321, "padded_vocab_size": 330}, RecipeError, "padded_vocab_size: 330 is not a multiple"),
        ({"padded_vocab_size": 304}, RecipeError, "304 is below vocab_size 320"),
        ({"vocab_size": 3200}, DataError, "vocab_size: the sample gives"),
        ({"shares": {"code": 1.0}}, DataError, "no domain 'code'"),
        ({"beside": {"theirs": "nowhere"}}, ModelError, r"nowhere: no usable tokenizer\.json"),
    ],
)
def test_what_cannot_be_is_refused(here, changed, error, message):
    with pytest.raises(error, match=message):
        tokenizer.train(Recipe(**(WORDS | changed)), here, None)
    assert not (here.path / "tokenizer").exists()


def test_a_corpus_without_held_out_text_is_refused(here):
    documents.write(here.inputs["corpus"].path / "heldout.jsonl", [])
    with pytest.raises(DataError, match="no held-out text"):
        tokenizer.train(Recipe(**WORDS), here, None)
