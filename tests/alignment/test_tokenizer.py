import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from alignment import chat, tokenizer
from alignment.chat import BOS, EOS
from alignment.errors import ModelError
from alignment.models import build
from alignment.tokenizer import pretokens

TEXT = "The river runs past 12 stone houses; 我想在apple工作1314天。 def area(width): return width * 2\n"
ENCODER = tokenizer.learn([TEXT * 5], 320, "deepseek-llm")

KINDS = {"letter": "abcd\u0431\u0434", "mark": "(),;。", "han": "中文字", "digit": "0123", "newline": "\r\n"}
CLASSES = "".join(KINDS.values()) + "  "
BYTES = {chr(symbol): byte for byte, symbol in pretokens.SYMBOLS.items()}


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
    letter = re.compile(f"[{pretokens.LETTERS}]")
    assert sum(bool(letter.match(chr(code))) for code in range(0x110000)) == 2729
    assert Path(pretokens.__file__).read_text(encoding="utf-8").isascii()
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


@given(st.integers())
@settings(max_examples=20, deadline=None)
def test_no_merge_crosses_a_class(seed):
    """Whatever it was trained on: no digit and no newline in a merged token, and no two classes of characters."""
    encoder = tokenizer.learn(["".join(Random(seed).choices(CLASSES, k=3000))], 336, "deepseek-llm")
    merged = [token for token in encoder.get_vocab(with_added_tokens=False) if len(token) > 1]
    assert len(merged) == 336 - 256 - 15
    for token in merged:
        text = bytes(BYTES[symbol] for symbol in token).decode(errors="ignore")  # a token may end within a character
        kinds = {kind for kind, members in KINDS.items() if set(text) & set(members)}
        assert len(kinds) <= 1, token
        assert not kinds & {"digit", "newline"}, token


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


def test_the_reserve_is_checked_against_the_embedding(tmp_path):
    tokenizer.write(ENCODER, tmp_path, "deepseek-llm")
    assert tokenizer.rows(tmp_path, 320) == 320
    tokenizer.write(ENCODER, tmp_path, "deepseek-llm", padded=336)
    assert tokenizer.rows(tmp_path, 320) == 336
    for rows, fits in ((336, True), (352, True), (320, False)):
        (tmp_path / "config.json").write_text(f'{{"vocab_size": {rows}}}')
        if fits:
            build.check_vocabulary(tmp_path)
        else:
            with pytest.raises(ModelError, match="336"):
                build.check_vocabulary(tmp_path)
    with pytest.raises(ModelError, match="padded_vocab_size 336 is below the 340 tokens"):
        tokenizer.rows(tmp_path, 340)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no usable tokenizer\.json"):
        tokenizer.load(tmp_path)


def test_the_alphabet_is_whole_without_any_text():
    empty = Tokenizer(models.BPE())
    assert len(pre_tokenizers.ByteLevel.alphabet()) == 256
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(ENCODER.get_vocab()) > set(empty.get_vocab())
