import pytest

from alignment.corpus import filters
from alignment.corpus.documents import Document


def document(text):
    return Document("1", text, "prose", "en", "here")


@pytest.mark.parametrize(
    ("rule", "goes", "stays"),
    [
        (filters.shorter_than(5), "abcd", "abcde"),
        (filters.longer_than(5), "abcdef", "abcde"),
        (filters.letters_below(0.5), "12 34 ab", "12 abc 3"),
        (filters.symbols_above(0.3), "a_b-c=", "abc def."),
        (filters.repeated_lines_above(0.4), "same line\nsame line\n", "same line\nother line\n\n\n"),
        (filters.letters_below(0.5), "", "中文，也是字母"),
    ],
)
def test_a_rule_takes_what_it_names_and_nothing_else(rule, goes, stays):
    assert rule(document(goes))
    assert rule(document(stays)) is None


def test_the_first_reason_counts():
    kept, dropped = filters.keep(
        map(document, ["ab", "12345678", "letters"]), [filters.shorter_than(3), filters.letters_below(0.5)]
    )
    assert [found.text for found in kept] == ["letters"]
    assert {reason: len(lost) for reason, lost in dropped.items()} == {
        "shorter than 3 characters": 1,
        "letters below 50%": 1,
    }
