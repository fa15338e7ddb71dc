import json
import random
from collections import Counter

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from alignment.corpus import filters, judges, learnt
from alignment.corpus.documents import Document
from alignment.corpus.reading import Reading
from alignment.errors import DataError
from alignment.sieve import Examples, Filters

GOOD = ["河水", "the", "garden", "has", "quiet", "morning", "and", "we", "read", "long", "letters", "文章讲述历史"]
BAD = ["点击", "buy", "cheap", "click", "now", "offer", "free", "winner", "优惠", "免费", "the", "and"]
OFF = {"min_characters": 1, "max_symbol_share": 1.0, "max_repeated_line_share": 1.0, "min_letter_share": 0.0}


def texts(words, count, seed, **meta):
    draw = random.Random(seed)
    return [Document(f"{seed}.{i}", " ".join(draw.choices(words, k=30)), "web", "en", "dump", meta) for i in range(count)]


SOURCES = {
    "labels": texts(GOOD, 80, 1, label="good") + texts(BAD, 80, 2, label="bad"),
    "few": texts(GOOD, 3, 3),
    "list": [Document("l", "click now\n\n点击\nwinner\n", "list", "und", "list")],
    "clean": texts(GOOD, 60, 4),
}
LABELS = {
    "yes": ({"card": "labels", "where": {"label": "good"}},),
    "no": ({"card": "labels", "where": {"label": "bad"}},),
}


def words(**changes):
    return Filters.model_validate(OFF | changes)


def learn(recipe, folder, sample=()):
    return learnt.learn(recipe, lambda source: SOURCES[source.card], sample, folder)


def test_a_classifier_tells_held_out_examples_apart_and_takes_what_is_unlike(tmp_path):
    recipe = words(quality=LABELS, min_quality=0.5)
    facts = learn(recipe, tmp_path)
    assert facts["quality"]["auc"] > 0.95
    assert facts["quality"]["interval"][0] < facts["quality"]["auc"] <= facts["quality"]["interval"][1]
    assert facts["quality"]["examples"] == {"yes": 80, "no": 80}
    rules = filters.rules(recipe, tmp_path)
    assert all(filters.refused(document, rules) is None for document in texts(GOOD, 20, 9))
    assert {filters.refused(document, rules) for document in texts(BAD, 20, 9)} == {"quality below 0.5"}
    with np.load(tmp_path / "quality.npz", allow_pickle=False) as model:  # no pickle in it
        assert set(model) == {"weights", "bias"}


def test_the_same_examples_give_the_same_model(tmp_path):
    recipe = words(quality=LABELS, min_quality=0.5)
    assert json.dumps(learn(recipe, tmp_path / "a")) == json.dumps(learn(recipe, tmp_path / "b"))
    one, two = (judges.load(tmp_path / name, "quality") for name in "ab")
    assert one["weights"].tobytes() == two["weights"].tobytes()


def test_too_few_examples_and_an_unknown_field_are_named(tmp_path):
    few = {"yes": ({"card": "few"},), "no": LABELS["no"]}
    with pytest.raises(DataError, match="3 and 80 examples"):
        learn(words(toxicity=few, max_toxicity=0.5), tmp_path)
    unknown = {"yes": ({"card": "few", "where": {"grade": "A"}},), "no": LABELS["no"]}
    with pytest.raises(DataError, match="no field 'grade'"):
        learn(words(toxicity=unknown, max_toxicity=0.5), tmp_path)


def test_a_model_that_was_not_trained_is_named(tmp_path):
    with pytest.raises(DataError, match=r"quality\.npz: no model here"):
        filters.rules(words(quality=LABELS, min_quality=0.5), tmp_path)


def test_the_area_is_that_of_mann_and_whitney_and_its_interval_covers():
    draw = np.random.default_rng(0)
    yes, no = draw.normal(1, 1, 60), draw.normal(0, 1, 90)
    auc, low, high = learnt.area(yes, no)
    assert auc == pytest.approx(mannwhitneyu(yes, no).statistic / (60 * 90))
    assert low < auc < high
    covered = 0
    for _ in range(200):  # the true area of two normals one deviation apart is 0.7602
        _, low, high = learnt.area(draw.normal(1, 1, 40), draw.normal(0, 1, 40))
        covered += low <= 0.7602 <= high
    assert 0.9 <= covered / 200 <= 0.99
    assert learnt.area([2, 3], [0, 1])[0] == 1
    assert learnt.area([2, 3], [0, 1])[1] < 0.5  # four examples prove little


def test_a_list_counts_its_entries_as_words_and_in_chinese_as_substrings(tmp_path):
    recipe = words(toxic_words=({"card": "list"},), max_toxic_words=0.2)
    assert learn(recipe, tmp_path)["toxic_words"] == {"entries": 3}
    lists = judges.load(tmp_path, "toxic_words")

    def share(text):
        return judges.listed(Reading(Document("", text, "", "", "")), lists)

    assert share("Click now to be a Winner") == 3 / 6
    assert share("请点击这里") == 2 / 5
    assert share("clicks nowhere, winners") == 0
    rules = filters.rules(recipe, tmp_path)
    assert filters.refused(SOURCES["labels"][0], rules) is None
    assert filters.refused(Document("", "winner winner dinner", "web", "en", "x"), rules) == "toxic words above 0.2"


def test_text_unlike_what_the_byte_model_learnt_ranks_last_in_its_language(tmp_path):
    noise = [Document(f"n{i}", random.Random(i).randbytes(60).hex(), "web", "en", "dump") for i in range(30)]
    sample = SOURCES["labels"][:60] + noise
    recipe = words(fluent=({"card": "clean"},), max_perplexity_rank=0.66)
    facts = learn(recipe, tmp_path, sample)["fluent"]
    assert facts["ranked"] == 90
    assert facts["median_bits_per_byte"]["en"] < 8
    rules = filters.rules(recipe, tmp_path)
    assert all(filters.refused(document, rules) for document in noise)
    kept = sum(filters.refused(document, rules) is None for document in SOURCES["labels"][:60])
    assert kept == 60


def test_the_byte_model_is_the_plain_interpolation():
    """Ten lines of plain Python with exact counts; short texts share no cell."""
    seen, text = b"abracadabra abracadabra", b"abra cadabra"
    counts = np.zeros((judges.ORDER, 1 << int(judges.CELLS)), np.uint32)
    for row, cells in zip(counts, judges.runs(seen), strict=True):
        np.add.at(row, cells, 1)

    def padded_runs(data):
        padded = bytes(judges.ORDER) + data
        return [
            [padded[judges.ORDER + i + 1 - n : judges.ORDER + i + 1] for n in range(judges.ORDER + 1)]
            for i in range(len(data))
        ]

    known = Counter(run for runs in padded_runs(seen) for run in runs[1:])
    bits = 0.0
    for place, runs in enumerate(padded_runs(text)):
        chance = 1 / 256
        for n in range(1, judges.ORDER + 1):
            context = len(seen) if n == 1 else known[runs[n][:-1]] if place else 0
            chance = (known[runs[n]] + judges.STRENGTH * chance) / (max(context, known[runs[n]]) + judges.STRENGTH)
        bits -= np.log2(chance)
    found = judges.bits_per_byte(Reading(Document("", text.decode(), "", "", "")), counts)
    assert found == pytest.approx(bits / len(text))


def test_examples_come_from_one_place():
    with pytest.raises(ValueError, match="exactly one"):
        Examples(card="a", run="b")
