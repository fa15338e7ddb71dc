from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from alignment.corpus import filters, measures, ngrams
from alignment.corpus.documents import Document
from alignment.corpus.reading import Reading
from alignment.sieve import Filters

OFF = {"min_characters": 1, "max_symbol_share": 1.0, "max_repeated_line_share": 1.0, "min_letter_share": 0.0}
TEXTS = st.text("ab 文字。-._\n9é", max_size=60)
GOOD = "The river runs to the sea and that is all we have to say of it.\n"
CHINESE = "河水向东流去，这是我们都知道的事。人在岸上看着它，什么也没有说。\n"


def document(text, domain="prose", **meta):
    return Document("1", text, domain, "en", "here", meta)


def broken(text, **words):
    return filters.refused(document(text), filters.rules(Filters(**OFF | words)))


@pytest.mark.parametrize(
    ("words", "goes", "stays"),
    [
        ({"min_characters": 5}, "abcd", "abcde"),
        ({"max_characters": 5}, "abcdef", "abcde"),
        ({"min_letter_share": 0.5}, "12 34 ab", "12 abc 3"),
        ({"min_letter_share": 0.5}, "", "中文，也是字母"),
        ({"max_symbol_share": 0.3}, "a_b-c=", "abc def."),
        ({"max_repeated_line_share": 0.4}, "same line\nsame line\n", "same line\nother line\n\n\n"),
        ({"min_words": 3}, "two words .", "three words here"),
        ({"min_words": 3}, "五个汉字了", "六个汉字了啊"),
        ({"max_words": 3}, "no more than three", "one two three"),
        ({"min_word_length": 3}, "a bc de f", "abc defg"),
        ({"max_word_length": 10}, "incomprehensibilities", "words of this"),
        ({"max_word_length": 1}, "words", CHINESE),
        ({"max_clause_length": 8}, "一二三四五六七八九十没有标点的文字", "一二三四五，六七八九十。"),
        ({"max_clause_length": 1}, CHINESE, GOOD),
        ({"min_clause_length": 3}, "买，卖，租，换", CHINESE),
        ({"max_hash_ratio": 0.1}, "#a #b #c", GOOD),
        ({"max_ellipsis_ratio": 0.1}, "more ... and more…", GOOD),
        ({"max_bullet_lines": 0.9}, "- a\n • b\n- c", "- a\nb\n\n"),
        ({"max_ellipsis_lines": 0.3}, "read more...\nand more… \nend", "read on.\nand on.\nand on.\nend..."),
        ({"min_alphabetic_words": 0.8}, "12 34 56 words", "all of these are words, 7 too"),
        ({"min_stop_words": 2}, "buy cheap the watches", GOOD),
        ({"min_stop_words": 2}, "商品价格优惠促销", CHINESE),
        ({"max_duplicate_lines": 0.3}, "a\na\nb", "a\nb\nc\n\n\n"),
        ({"max_duplicate_line_characters": 0.2}, "long line here\nlong line here\nx", "x\nx\nlong line here and there"),
        ({"max_duplicate_paragraphs": 0.3}, "a\nb\n\na\nb\n\nc", "a\n\nb\n\nc\na"),
        ({"max_duplicate_paragraph_characters": 0.2}, "long one\n\nlong one", "x\n\nx\n\nlong one is here to stay"),
        ({"forbidden": ("lorem ipsum",)}, "Lorem Ipsum dolor", GOOD),
        ({"min_sentences": 3}, "One. Two at 1.5 each.", 'One. "Two." Three!'),
        ({"min_sentences": 2}, "只有一句。", "一句。两句！"),
        ({"min_finished_lines": 0.12}, "Home\nAbout\nContact", "Home\n" + GOOD),
        ({"max_short_lines": 0.67}, "Home\nAbout\nContact", "Home\n" + GOOD),
        ({"max_short_lines": 0.67}, "首页\n关于\n联系", "首页\n" + CHINESE),
        ({"max_newline_ratio": 0.3}, "a\nb\nc\nd", GOOD),
        ({"max_top_grams": {2: 0.2}}, "buy now " * 8, GOOD),
        ({"max_top_grams": {2: 0.2}}, "立刻购买" * 8, CHINESE),
        ({"max_duplicate_grams": {5: 0.15}}, "one two three four five six " * 3, GOOD),
        ({"max_duplicate_grams": {5: 0.15}}, "欢迎来到我们的网上商店。" * 3, CHINESE),
        ({"languages": ("en",)}, CHINESE, GOOD),
        ({"languages": ("zh", "en")}, "Der Fluss fließt ins Meer, und das ist alles, was wir dazu sagen.", CHINESE),
    ],
)
def test_a_rule_takes_what_it_names_and_nothing_else(words, goes, stays):
    assert broken(goes, **words)
    assert broken(stays, **words) is None


def test_the_first_reason_counts_and_says_name_and_threshold():
    rules = filters.rules(Filters(**OFF | {"min_characters": 3, "min_letter_share": 0.5}))
    kept, dropped = filters.keep(map(document, ["ab", "12345678", "letters"]), rules)
    assert [found.text for found in kept] == ["letters"]
    assert {reason: len(lost) for reason, lost in dropped.items()} == {
        "shorter than 3 characters": 1,
        "letter share below 0.5": 1,
    }
    assert ("min_letter_share", 0.5) in [(rule.name, rule.threshold) for rule in rules]


def test_rules_for_prose_pass_over_code_and_those_for_everything_do_not():
    rules = filters.rules(Filters(min_stop_words=2, forbidden=("{",), languages=("zh",), max_characters=1000))
    code = document("int main(void) { return 0; }\n" * 10, domain="code-c")
    assert filters.refused(code, rules) == "repeated line share above 0.3"
    rules = filters.rules(Filters(**OFF | {"min_stop_words": 2, "forbidden": ("{",), "languages": ("zh",)}))
    assert filters.refused(code, rules) is None
    assert filters.refused(replace(code, domain="prose"), rules)


@pytest.mark.parametrize(
    ("meta", "stays"),
    [
        ({"licence": "MIT"}, True),
        ({"license": "cc-by-4.0"}, True),
        ({"license": ["mit", "CC-BY-4.0"]}, True),
        ({"license": ["mit", "GPL"]}, False),
        ({"licence": ""}, False),
        ({}, False),
        ({"licence": "mit", "robots": "index, noai"}, False),
        ({"licence": "mit", "robots_txt": False}, False),
        ({"licence": "mit", "robots": "index, follow"}, True),
    ],
)
def test_what_a_row_says_of_licence_and_robots_is_honoured(meta, stays):
    rules = filters.rules(Filters(**OFF | {"licences": ("MIT", "CC-BY-4.0")}))
    assert (filters.refused(document(GOOD, **meta), rules) is None) is stays


def test_a_threshold_without_its_examples_is_refused_and_the_other_way_round():
    with pytest.raises(ValidationError, match="min_quality needs quality"):
        Filters(min_quality=0.5)
    with pytest.raises(ValidationError, match="fluent needs max_perplexity_rank"):
        Filters(fluent=({"card": "wiki"},))


# -- the reading against plain Python ----------------------------------------------------------------------------------


@given(TEXTS)
@example("")
def test_tokens_are_those_of_the_expression(text):
    reading = Reading(document(text))
    starts, ends = reading.tokens
    assert [text[a:b] for a, b in zip(starts, ends, strict=True)] == ngrams.WORDS_AND_MARKS.findall(text)
    same = dict(zip(ngrams.WORDS_AND_MARKS.findall(text), reading.hashes.tolist(), strict=True))
    assert len(set(same.values())) == len(same)


@given(st.lists(st.sampled_from(["a", "bc", "def", "-"]), max_size=40), st.integers(2, 4))
def test_repeated_runs_are_those_that_a_walk_finds(words, length):
    """Gopher's own walk: a run that was seen before counts and is passed over, another is remembered."""
    seen, characters, place = set(), 0, 0
    while place + length <= len(words):
        run = tuple(words[place : place + length])
        if run in seen:
            characters += sum(map(len, run))
            place += length
        else:
            seen.add(run)
            place += 1
    text = " ".join(words)
    found = measures.repeated_runs(Reading(document(text)), length, enough=-1.0)
    assert found == characters / max(len(text), 1)
    assert measures.repeated_runs(Reading(document(text)), length, enough=0.3) >= found or found <= 0.3


@given(st.lists(st.sampled_from(["a", "bc", "def", "-"]), min_size=1, max_size=40), st.integers(2, 4))
def test_the_most_frequent_run_is_counted_with_its_spaces(words, length):
    runs = Counter(" ".join(words[place : place + length]) for place in range(len(words) - length + 1))
    text = " ".join(words)
    expected = 0.0
    if runs and max(runs.values()) > 1:
        run, count = runs.most_common(1)[0]  # of equally frequent ones the first
        expected = len(run) * count / len(text)
    reading = Reading(document(text))
    for shorter in range(2, length):  # asked in order, as rules do: what is known of shorter runs is used
        measures.top_run(reading, shorter)
    assert measures.top_run(reading, length) == pytest.approx(expected)
