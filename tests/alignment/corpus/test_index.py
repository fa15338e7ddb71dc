from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from alignment import manifest, run
from alignment.corpus import index, ngrams, trained
from alignment.corpus.index import Index
from alignment.errors import DataError, RunError

ENGLISH = "A farmer has 12 cows and buys 7 more at the market on Monday. How many cows has he now?"
CHINESE = "小明有十二个苹果，妈妈又给了他七个苹果，现在他一共有多少个苹果呢？"


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def seal(path, stage, files, **words):
    """A finished run of these files."""
    plan = manifest.compose(words={"stage": stage, "seed": 0, **words}, inputs={}, cards={}, hardware={})
    live = run.begin(path, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
    for name, rows in files.items():
        jsonl(path / name, rows)
    run.finish(live, {})
    return path


def document(text, name="d"):
    return {"id": name, "text": text, "domain": "prose", "language": "en", "dump": "here", "meta": {}}


@pytest.fixture
def corpus(tmp_path):
    texts = ["Nothing to see here.", f"Before. {ENGLISH} After.", f"前言。{CHINESE}后语。", "The end."]
    return seal(tmp_path / "runs/corpus", "corpus", {"documents.jsonl": [document(text) for text in texts]})


@pytest.fixture
def opened(corpus, tmp_path):
    index.write([corpus], tmp_path / "index")
    return Index(tmp_path / "index")


@pytest.mark.parametrize("question", [ENGLISH, CHINESE])
def test_a_question_that_was_trained_on_is_found_whole(opened, question):
    found = opened.matches(question)
    assert found.share == 1.0
    (span,) = found.spans
    assert question.lower()[span.begin : span.end] == question.lower().rstrip("?？")
    assert span.source.startswith("corpus/documents.jsonl, byte ")


def test_case_and_marks_do_not_hide_a_question(opened):
    assert opened.matches(ENGLISH.upper().replace(".", " ,")).share == 1.0
    assert opened.matches(CHINESE.replace("，", " ")).share == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "A gardener waters nine roses every morning before the sun is high.",
        "小红每天早上在公园里跑步，然后去学校上课，晚上回家。",
    ],
)
def test_another_text_is_clean(opened, text):
    found = opened.matches(text)
    assert (found.share, found.spans) == (0.0, ())


def test_a_part_is_found_with_its_place_and_its_share(opened):
    text = f"Listen! {ENGLISH[:61]} Who knows how this story might possibly have continued on Tuesday?"
    found = opened.matches(text)
    (span,) = found.spans
    assert text.lower()[span.begin : span.end] == ENGLISH[:61].lower().rstrip(".")
    assert found.share == pytest.approx(14 / 26)


def test_a_text_too_short_for_an_n_gram_is_not_called_clean(opened):
    assert opened.matches("What is 4 + 2?").share is None
    assert opened.matches("哪个？").share is None


def test_eight_words_find_nothing_in_chinese_and_thirteen_characters_do():
    words, characters = (index.KINDS[kind].grams(CHINESE)[0] for kind in ("word", "character"))
    assert len(words) == 0
    assert len(characters) == len(ngrams.words(CHINESE)) - 12


def test_runs_of_numbers_and_signs_are_no_n_grams():
    assert len(index.KINDS["word"].grams("def f(1, 2, 3, 4, 5, 6, 7, 8, 9) = 10 + 11 - 12 * 13")[0]) == 0
    assert len(index.KINDS["word"].grams("Which?\nA. 1\nB. 2\nC. 3\nD. 4\nA. 1\nB. 2\nC. 3\nD. 4")[0]) == 0
    assert len(index.KINDS["character"].grams("1234567890 1234567890 一二三")[0]) == 0


def test_a_hash_alone_is_no_match(opened, monkeypatch):
    """Two texts with one hash: the source is read again and does not hold the words."""
    monkeypatch.setattr(Index, "_candidates", lambda *_: iter([(0, (0, 0))]))
    assert opened.matches(ENGLISH).spans == ()


def test_the_index_is_sorted_and_says_where_each_n_gram_stands(opened, corpus, tmp_path):
    hashes, places = (np.load(tmp_path / f"index/word-{part}.npy", mmap_mode="r") for part in ("hashes", "places"))
    assert hashes.dtype == np.uint64
    assert bool(np.all(hashes[1:] > hashes[:-1]))
    assert len(hashes) == opened.about["grams"]["word"]["count"] > 10
    documents = list(trained.texts(corpus / "documents.jsonl"))
    for value, (number, place) in zip(hashes[:5], places[:5], strict=True):
        pieces = ngrams.words(documents[number][1])[place : place + 8]
        assert ngrams.Windows(ngrams.hashes(pieces)).of(8)[0] == value
    assert not list((tmp_path / "index").glob("*.part"))


def test_batches_and_repeated_texts_make_no_difference(corpus, tmp_path, monkeypatch):
    whole = index.write([corpus], tmp_path / "whole")
    monkeypatch.setattr(index, "BATCH", 5)
    parts = index.write([corpus], tmp_path / "parts")
    twice = index.write([corpus, corpus], tmp_path / "twice")
    assert whole == parts
    assert twice["grams"] == whole["grams"]
    for name in ("word-hashes", "word-places", "character-hashes", "character-places"):
        same = [np.load(tmp_path / folder / f"{name}.npy") for folder in ("whole", "parts", "twice")]
        assert np.array_equal(same[0], same[1])
        assert np.array_equal(same[0], same[2]), "the first place of an n-gram is kept"


def test_what_was_held_out_is_not_indexed_and_all_else_is(tmp_path):
    turns = [{"role": "user", "content": ENGLISH}, {"role": "assistant", "content": CHINESE}]
    problem = {"id": "p", "kind": "number", "target": "1"}
    held = "Seven grey geese walk slowly over the old stone bridge to the mill."
    kept = "Nine brown ducks swim quickly under the new wooden bridge to the lake."
    files = {
        "documents.jsonl": [document("Six white swans sleep quietly beside the cold mountain river at night.")],
        "instructions.jsonl": [{"messages": turns}],
        "problems.jsonl": [problem | {"split": "heldout", "prompt": held}, problem | {"split": "train", "prompt": kept}],
    }
    index.write([seal(tmp_path / "runs/curriculum", "curriculum", files)], tmp_path / "index")
    found = Index(tmp_path / "index")
    assert [found.matches(text).share for text in (ENGLISH, CHINESE, kept, held)] == [1.0, 1.0, 1.0, 0.0]


def test_the_rows_of_a_mixture_are_read_as_text(tmp_path):
    core = Tokenizer(models.BPE({mark: i for i, mark in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    (tmp_path / "runs/tokenizer/tokenizer").mkdir(parents=True)
    core.save(str(tmp_path / "runs/tokenizer/tokenizer/tokenizer.json"))
    rows = [{"input_ids": core.encode(f"User: {text}").ids, "labels": []} for text in (ENGLISH, CHINESE)]
    mixture = seal(tmp_path / "runs/mixture", "mixture", {"rows.jsonl": rows}, start={"run": "tokenizer"})
    index.write([mixture], tmp_path / "index")
    found = Index(tmp_path / "index")
    assert [found.matches(text).share for text in (ENGLISH, CHINESE)] == [1.0, 1.0]


def test_a_folder_that_cannot_be_indexed_is_refused(corpus, opened, tmp_path):
    with pytest.raises(DataError, match="not empty"):
        index.write([corpus], tmp_path / "index")
    with pytest.raises(DataError, match="a tokenizer run holds no text"):
        index.write([seal(tmp_path / "runs/tokenizer", "tokenizer", {})], tmp_path / "other")
    with pytest.raises(RunError, match=r"no run\.json"):
        index.write([tmp_path], tmp_path / "other")
    assert opened.about["documents"] == 4


def test_a_source_that_changed_is_refused(corpus, opened, tmp_path):  # noqa: ARG001
    jsonl(corpus / "documents.jsonl", [document("Something else.")])
    with pytest.raises(DataError, match="gone or changed"):
        Index(tmp_path / "index")
    with pytest.raises(DataError, match="no index"):
        Index(tmp_path)
