import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from alignment import chat, tokenizer
from alignment.chat import BOS, EOS
from alignment.corpus import documents
from alignment.corpus.documents import Document
from alignment.errors import DataError, ModelError, RecipeError
from alignment.recipe import Tokenizer as Recipe
from alignment.run import Run

TEXT = "The river runs past 12 stone houses; 我想在apple工作1314天。 def area(width): return width * 2\n"
ENCODER = tokenizer.learn([TEXT * 5], 320, "deepseek-llm")


def pieces(text):
    return [text[start:stop] for _, (start, stop) in tokenizer.pre_tokenizer().pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Hello, world!", "Hello|,| world|!"),
        ("  Hello\n\n\tx", " | Hello|\n|\n|\tx"),
        ("333 4", "3|3|3| |4"),
        ("我想在apple工作1314天。", "我想在|apple|工作|1|3|1|4|天|。"),
        ("f(x)=x^2+1", "f|(|x|)=|x|^|2|+|1"),
        ("don't", "don|'|t"),
    ],
)
def test_text_is_cut_as_the_family_cuts_it(text, cut):
    assert pieces(text) == cut.split("|")


def test_the_letters_are_the_2729_cased_ones_and_in_escapes():
    letter = re.compile(f"[{tokenizer.LETTERS}]")
    assert sum(bool(letter.match(chr(code))) for code in range(0x110000)) == 2729
    assert Path(tokenizer.__file__).read_text(encoding="utf-8").isascii()
    normalised = normalizers.NFC().normalize_str(letter.pattern)
    with pytest.raises(Exception, match="empty range"):
        pre_tokenizers.Split(Regex(normalised), behavior="isolated")


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_unchanged(text):
    assert ENCODER.decode(ENCODER.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


@given(st.text(alphabet="0123456789", max_size=30))
@settings(deadline=None)
def test_every_digit_is_one_token(digits):
    assert ENCODER.encode(digits, add_special_tokens=False).tokens == list(digits)


def test_special_tokens_stand_on_top_and_are_never_read_from_text():
    assert ENCODER.get_vocab_size() == 320
    assert (ENCODER.token_to_id(BOS), ENCODER.token_to_id(EOS)) == (305, 306)
    assert len(set(tokenizer.special_tokens("chatml"))) == len(set(tokenizer.special_tokens("deepseek-llm"))) == 15
    assert max(ENCODER.encode(f"{BOS}{EOS}", add_special_tokens=False).ids) < 305


@pytest.mark.parametrize("template", ["deepseek-llm", "chatml"])
def test_the_library_loads_it_and_gives_the_same_ids(tmp_path, template):
    from transformers import AutoTokenizer

    encoder = tokenizer.learn([TEXT * 5], 320, template)
    tokenizer.write(encoder, tmp_path, template)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, "  two  spaces\r\n\n", "don't 333 ü", ""):
        ids = encoder.encode(text, add_special_tokens=False).ids
        assert loaded(text)["input_ids"] == ids
        assert loaded.decode(ids) == text
        assert tokenizer.load(tmp_path).encode(text).ids == ids
    assert loaded.chat_template == chat.TEMPLATES[template]
    assert (loaded.bos_token, loaded.pad_token, len(loaded)) == (BOS, tokenizer.PAD, 320)
    chat.check_template(loaded, template, "here")
    assert loaded.eos_token_id in chat.end_ids(loaded)
    assert tokenizer.digest(tokenizer.load(tmp_path)) == tokenizer.digest(encoder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no usable tokenizer\.json"):
        tokenizer.load(tmp_path)


def test_the_sample_holds_every_domain_in_its_share():
    found = [Document(f"{d}{i}", "x" * 100, d, "en", "here") for d, n in (("a", 90), ("b", 10)) for i in range(n)]
    sample = tokenizer.stratified(found, 2000, seed=0)
    assert [sum(document.domain == name for document in sample) for name in "ab"] == [18, 2]
    assert {document.id for document in sample} != {document.id for document in tokenizer.stratified(found, 2000, 1)}


@pytest.fixture
def here(tmp_path):
    (tmp_path / "corpus").mkdir()
    found = [Document(str(i), TEXT * 3, "prose", "en", "here") for i in range(5)]
    documents.write(tmp_path / "corpus/documents.jsonl", found)
    documents.write(tmp_path / "corpus/heldout.jsonl", found[:1])
    (tmp_path / "tokenizer").mkdir()
    return Run(tmp_path / "tokenizer", {"corpus": SimpleNamespace(path=tmp_path / "corpus")}, {}, True, False, {})


def test_the_stage_writes_a_loadable_tokenizer_and_says_how_well_it_compresses(here):
    recipe = Recipe(stage="tokenizer", data="corpus", vocab_size=320, sample_bytes=10_000)
    numbers = tokenizer.train(recipe, here, None)
    assert numbers["vocab_size"] == 320
    assert 1 < numbers["bytes_per_token_prose"] == numbers["bytes_per_token"]
    assert json.loads((here.path / "tokenizer/tokenizer_config.json").read_text())["bos_token"] == BOS


@pytest.mark.parametrize(("size", "error"), [(321, RecipeError), (3200, DataError)])
def test_a_vocabulary_that_cannot_be_is_refused(here, size, error):
    with pytest.raises(error, match="vocab_size"):
        tokenizer.train(Recipe(stage="tokenizer", data="corpus", vocab_size=size, sample_bytes=10_000), here, None)
    assert not (here.path / "tokenizer").exists()


def test_the_alphabet_is_whole_without_any_text():
    empty = Tokenizer(models.BPE())
    assert len(pre_tokenizers.ByteLevel.alphabet()) == 256
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(ENCODER.get_vocab()) > set(empty.get_vocab())
