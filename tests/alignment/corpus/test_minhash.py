import random

import numpy as np
import pytest

from alignment.corpus import dedup, minhash, ngrams, tokens
from alignment.errors import DataError, RecipeError

WORDS = {"shingle": 5, "hashes": 112, "bands": 14, "seed": 3}


def texts(number, seed=0, length=150):
    draw = random.Random(seed)
    pieces = [*(f"word{i} " for i in range(200)), *(chr(0x4E00 + i) for i in range(200)), "x = ", "(", ") ", "\n"]
    return ["".join(draw.choice(pieces) for _ in range(draw.choice([0, 3, length]))) for _ in range(number)]


def test_shingles_are_the_n_grams_of_the_slow_rule():
    for text in texts(40):
        words = ngrams.words(text)
        grams = {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, min(len(words), 1)))}
        assert len(ngrams.distinct(minhash.shingles(tokens.scan([text]), 5)[0])) == len(grams)


def test_a_sketch_does_not_depend_on_its_neighbours(monkeypatch):
    found = texts(30)
    code = [number % 3 == 0 for number in range(30)]
    whole = minhash.sketch(found, code, **WORDS)
    monkeypatch.setattr(minhash, "BATCH", 10)
    parts = minhash.sketch(found, code, **WORDS)
    for part in minhash.PARTS:
        assert np.array_equal(getattr(whole, part), getattr(parts, part)), part
    ends = np.cumsum(whole.counts)
    for place in range(30):
        alone = minhash.sketch([found[place]], [code[place]], **WORDS)
        assert np.array_equal(alone.keys[0], whole.keys[place])
        assert np.array_equal(alone.grams, whole.grams[ends[place] - whole.counts[place] : ends[place]])


def test_signatures_agree_as_often_as_the_sets_are_similar():
    """The error of 512 hashes is sqrt(J (1 - J) / 512) <= 0.022; bias would show in the mean over 200 pairs."""
    draw = random.Random(1)
    errors = []
    for share in np.linspace(0.0, 0.3, 200):
        base = texts(1, draw.randrange(10**9), 400)[0] or "a b c d e f g"
        words = base.split(" ")
        other = " ".join("new" + str(draw.random()) if draw.random() < share else word for word in words)
        left, right = (ngrams.distinct(grams) for grams in minhash.shingles(tokens.scan([base, other]), 5))
        signed = minhash.signatures([base, other], [False, False], shingle=5, hashes=512, seed=7)
        errors.append(float(np.mean(signed[0] == signed[1])) - dedup.jaccard(left, right))
    assert abs(np.mean(errors)) < 4 * 0.022 / np.sqrt(200)
    assert np.sqrt(np.mean(np.square(errors))) < 1.25 * 0.022


def test_bands_are_equal_where_their_rows_are():
    rows = np.array([[1, 2, 3, 4], [1, 2, 4, 3], [0, 2, 3, 4]], np.uint32)
    keys = minhash.keys(rows, 2)
    assert (keys[0] == keys[1]).tolist() == [True, False]
    assert (keys[0] == keys[2]).tolist() == [False, True]
    with pytest.raises(RecipeError, match="equal bands"):
        minhash.keys(rows, 3)


def test_shards_on_disk_are_one_row_of_documents(tmp_path):
    found, code = texts(25, 4), [False] * 25
    whole = minhash.sketch(found, code, **WORDS)
    cuts = [(0, 7), (7, 7), (7, 20), (20, 25)]
    for number, (begin, end) in enumerate(cuts):
        middle = (begin + end) // 2
        parts = [minhash.sketch(found[a:b], code[a:b], **WORDS) for a, b in ((begin, middle), (middle, end))]
        assert minhash.write(tmp_path / f"{number}", parts) == end - begin
    store = minhash.Store([tmp_path / f"{number}" for number in range(len(cuts))])
    assert len(store) == 25
    assert np.array_equal(store.digests, whole.digests)
    assert [np.array_equal(store.keys(band), whole.keys[:, band]) for band in range(14)] == [True] * 14
    ends = np.cumsum(whole.counts)
    for place in range(25):
        assert np.array_equal(store.grams(place), np.unique(whole.grams[ends[place] - whole.counts[place] : ends[place]]))
    with pytest.raises(DataError, match="cannot be read"):
        minhash.Store([tmp_path / "none"])
    assert not list(tmp_path.glob("*.part"))
