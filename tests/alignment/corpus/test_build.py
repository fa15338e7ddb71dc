import json
from types import SimpleNamespace

import pytest

from alignment.corpus import build, documents
from alignment.corpus.documents import Document
from alignment.errors import DataError
from alignment.recipe import Corpus
from alignment.run import Run

WORDS = ["river", "stone", "house", "garden", "window", "market", "teacher", "letter", "morning", "summer", "apple"]


def page(number, words=80):
    return " ".join(WORDS[(number * 7 + i * i * (number + 3) + i) % len(WORDS)] + str(number) for i in range(words))


def recipe(**changes):
    base = {
        "stage": "corpus",
        "data": [{"run": "made", "dedup": False}, {"card": "web"}],
        "filters": {"min_characters": 50},
        "shares": {"made": 0.5, "web": 0.5},
        "bytes": 1_000_000,
        "held_out": 0.2,
    }
    return Corpus.model_validate(base | changes)


@pytest.fixture
def here(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "made/heldout/mini-gsm8k").mkdir(parents=True)
    question = " ".join(page(3).split()[:30])
    (tmp_path / "made/heldout/mini-gsm8k/test.jsonl").write_text(json.dumps({"question": question}) + "\n")
    made = [Document(f"m{i}", page(50, 70) + f" {i}", "made", "en", "made") for i in range(30)]
    documents.write(tmp_path / "made/documents.jsonl", made)
    web = [Document(f"w{i}", page(i), "web", "en", f"dump{i % 2}") for i in range(30)]
    web += [Document("copy", page(4), "web", "en", "dump1"), Document("near", page(5) + " end", "web", "en", "dump1")]
    web += [Document("short", "tiny", "web", "en", "dump0")]
    inputs = {"made": SimpleNamespace(path=tmp_path / "made")}
    cards = {"web": SimpleNamespace(documents=lambda: iter(web))}
    return Run(tmp_path / "corpus", inputs, cards, True, False, {})


def test_every_step_takes_what_it_should_and_the_ledger_says_so(here):
    numbers = build.build(recipe(against="made"), here, None)
    assert [numbers[n] for n in ("exact_duplicates", "near_duplicates", "filtered", "contaminated")] == [1, 1, 1, 1]
    ledger = json.loads((here.path / "ledger.json").read_text())
    steps = {step["step"]: step for step in ledger["steps"]}
    for before, after in zip(ledger["steps"], ledger["steps"][1:], strict=False):
        assert before["out"] == after["in"]
    assert steps["near duplicates"]["reasons"]["near duplicate"]["samples"][0]["instead"] == "near"
    assert steps["filters"]["reasons"]["shorter than 50 characters"]["samples"][0]["id"] == "short"
    assert ledger["decontamination"]["groups"]["seen"]["exact"] == 1
    assert [row["joined"] for row in ledger["removed_as_dumps_are_joined"]] == ["made", "dump0", "dump1"]
    assert [row["removed"] for row in ledger["removed_as_dumps_are_joined"]] == [0, 0, 2]


def test_templated_text_keeps_its_near_duplicates_and_nothing_is_on_both_sides(here):
    build.build(recipe(), here, None)
    train = list(documents.read(here.path / "documents.jsonl"))
    held_out = list(documents.read(here.path / "heldout.jsonl"))
    assert sum(document.domain == "made" for document in train + held_out) == 30
    assert {document.id for document in train}.isdisjoint(document.id for document in held_out)


def test_the_same_recipe_builds_the_same_bytes(here):
    build.build(recipe(), here, None)
    first = (here.path / "documents.jsonl").read_bytes()
    build.build(recipe(), here, None)
    assert first == (here.path / "documents.jsonl").read_bytes()


def test_an_empty_corpus_is_an_error(here):
    here.cards["web"].documents = lambda: iter(())
    with pytest.raises(DataError, match="web gave no document"):
        build.build(recipe(), here, None)


def test_a_corpus_in_which_everything_is_filtered_out_names_the_rule(here):
    with pytest.raises(DataError, match=r"all 61 documents were filtered out \(shorter than 100000 characters: 61\)"):
        build.build(recipe(filters={"min_characters": 100_000}), here, None)
    assert not list(here.path.iterdir())
