import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignment.corpus import dedup, ngrams, tokens

TRICKY = "aZ_09 \n\t\u00a0\u3000\x1c\x85\u2028-+*/×÷.,(){}\x00İΣσςαÉéßẞÀⱥȺ"
TRICKY += "中文字ー・가あ々〇²½´`\u0301\ud7af\ud7b0KℓﬁＡａ０Ⅷ😀𝒳𐐀𐐨"
TEXTS = st.lists(st.text(st.sampled_from(TRICKY) | st.characters(exclude_categories=["Cs"]), max_size=40), max_size=5)
LONG = ["x" * 49 + " " + "x" * 50, "Ünterhaltungsmöglichkeit" * 3, "abcdefgh abcdefghi abcdefg", "e\u0301" * 30]


@given(TEXTS, st.booleans())
@settings(deadline=None, max_examples=400)
@example([], False)
@example(["", " ", "a"], True)
@example(["ΑΣ", "ΑΣ Α", "İstanbul", "ÉCOLE"], False)
@example(LONG, False)
def test_the_tokens_are_those_of_the_slow_rule(texts, marks):
    """Same tokens, text by text: equal words have equal hashes, and no two words share one."""
    found = tokens.scan(texts, marks=marks)
    meaning: dict[str, int] = {}
    for text, begin, end in zip(texts, found.offsets[:-1].tolist(), found.offsets[1:].tolist(), strict=True):
        words = ngrams.words(text, marks=marks)
        assert len(words) == end - begin
        for word, value in zip(words, found.hashes[begin:end].tolist(), strict=True):
            assert meaning.setdefault(word, value) == value
    assert len(set(meaning.values())) == len(meaning)


@given(TEXTS)
@settings(deadline=None, max_examples=200)
@example(["  a \n\n b\u3000\u3000c ", "a b c", " ", ""])
def test_the_digests_fold_case_and_white_space(texts):
    assert tokens.scan(texts).digests == [dedup.digest(text) for text in texts]


def test_what_stands_beside_a_text_makes_no_difference():
    alone = [tokens.scan([text]).hashes.tolist() for text in LONG]
    found = tokens.scan(LONG)
    assert [found.hashes[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)] == alone


@pytest.mark.parametrize("marks", [False, True])
def test_every_character_is_of_the_class_that_the_patterns_give_it(marks):
    pattern = ngrams.WORDS_AND_MARKS if marks else ngrams.WORDS
    every = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    in_place = [text for text in every if text != "Σ" and len(text.lower().encode()) == len(text.encode())]
    text = "a " + " ".join(in_place)
    words, found = pattern.findall(text.lower()), tokens.scan([text], marks=marks).hashes
    assert len(in_place) > 1_000_000
    assert len(words) == len(found)
    meaning = dict(zip(words, found.tolist(), strict=True))
    assert [meaning[word] for word in words] == found.tolist()
    assert len(set(meaning.values())) == len(meaning)
