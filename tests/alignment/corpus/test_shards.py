from types import SimpleNamespace

import numpy as np
import pytest

from alignment import recipe as words
from alignment import tokenizer
from alignment.chat import BOS, EOS
from alignment.corpus import documents, shards
from alignment.corpus.documents import Document
from alignment.corpus.shards import Shards
from alignment.errors import DataError
from alignment.run import Run

TEXTS = ["Hello world.", "", f"A document that spells {EOS} stays text.", "中文 123", "def f(x):\n    return x\n"]
FOUND = [Document(str(i), text, "code" if "def" in text else "prose", "en", "here") for i, text in enumerate(TEXTS * 9)]


@pytest.fixture(scope="module")
def encoder():
    return tokenizer.learn(["hello world this is some text " * 3], 280, "deepseek-llm")


@pytest.mark.parametrize("shard_tokens", [1, 50, 10**6])
def test_documents_come_back_between_bos_and_eos_however_the_shards_are_cut(tmp_path, encoder, shard_tokens):
    shards.write_split(tmp_path / "train", FOUND, encoder, shard_tokens)
    read = Shards.open(tmp_path, "train")
    read.verify()
    bos, eos = encoder.token_to_id(BOS), encoder.token_to_id(EOS)
    assert len(read) == len(FOUND)
    for number, document in enumerate(FOUND):
        ids = read[number].tolist()
        assert (ids[0], ids[-1]) == (bos, eos)
        assert eos not in ids[1:-1]
        assert encoder.decode(ids[1:-1]) == document.text
        assert read.domains[read.domain[number]] == document.domain
    assert read.bytes.tolist() == [document.bytes for document in FOUND]
    whole = np.concatenate([read[number] for number in range(len(read))])
    assert read.tokens.tolist() == whole.tolist() == read.tokens[:].tolist()
    for start, stop in [(0, 0), (3, 3), (0, 7), (45, 130), (len(whole) - 5, len(whole) + 9)]:
        assert read.tokens[start:stop].tolist() == whole[start:stop].tolist()
    assert read.about["tokens"] == len(whole) == sum(read.about["domain_tokens"].values())
    assert whole.dtype == np.uint16


def test_a_changed_shard_is_refused(tmp_path, encoder):
    shards.write_split(tmp_path / "train", FOUND, encoder, 50)
    victim = tmp_path / "train/00001.bin"
    data = bytearray(victim.read_bytes())
    data[3] ^= 1
    victim.write_bytes(data)
    with pytest.raises(DataError, match=r"00001\.bin: changed"):
        Shards.open(tmp_path, "train").verify()
    victim.write_bytes(data[:-2])
    with pytest.raises(DataError, match=r"00001\.bin: .* bytes, not"):
        Shards.open(tmp_path, "train")
    victim.unlink()
    with pytest.raises(DataError, match="not a finished split"):
        Shards.open(tmp_path, "train")


def test_a_split_without_documents_is_an_error(tmp_path, encoder):
    with pytest.raises(DataError, match="no documents"):
        shards.write_split(tmp_path / "train", [], encoder, 50)


def test_a_write_that_falls_short_is_an_error(tmp_path):
    class Short(type(tmp_path)):
        def stat(self, **_):
            return SimpleNamespace(st_size=3)

    with pytest.raises(OSError, match=r"3 of 8 bytes written"):
        shards._save(Short(tmp_path / "00000.bin"), np.zeros(4, np.uint16).data)


def test_another_corpus_may_be_the_held_out_split(tmp_path, encoder):
    inputs = {}
    for name, found in (("text", FOUND[:7]), ("other", FOUND[7:10])):
        (tmp_path / name).mkdir()
        documents.write(tmp_path / name / "documents.jsonl", found)
        documents.write(tmp_path / name / "heldout.jsonl", FOUND[:1])
        inputs[name] = SimpleNamespace(path=tmp_path / name, numbers={"documents": len(found), "held_out_documents": 1})
    (tmp_path / "words/tokenizer").mkdir(parents=True)
    encoder.save(str(tmp_path / "words/tokenizer/tokenizer.json"))
    inputs["words"] = SimpleNamespace(path=tmp_path / "words")
    (tmp_path / "shards").mkdir()
    here = Run(tmp_path / "shards", inputs, {}, True, False, {})
    recipe = words.Shards(stage="shards", data="text", tokenizer="words", held_out="other")
    assert recipe.runs() == {"text", "words", "other"}
    numbers = shards.write(recipe, here, None)
    assert (numbers["train_documents"], numbers["heldout_documents"]) == (7, 3)
    read = Shards.open(tmp_path / "shards", "heldout")
    assert [encoder.decode(read[n].tolist()[1:-1]) for n in range(3)] == [document.text for document in FOUND[7:10]]
