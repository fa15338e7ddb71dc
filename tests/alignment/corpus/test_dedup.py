import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.corpus import dedup, ledger, minhash, ngrams
from alignment.corpus.documents import Document
from alignment.errors import DataError, RecipeError

NEAR = {"shingle": 5, "hashes": 128, "bands": 32, "seed": 1}


def document(name, text, domain="prose", dump="one"):
    return Document(name, text, domain, "en", dump)


class Held:
    """A store in memory."""

    def __init__(self, found):
        self.counts, self.bands = found.counts, found.keys.shape[1]
        self.keys = lambda band: found.keys[:, band]
        self.sets = [ngrams.distinct(part) for part in np.split(found.grams, np.cumsum(found.counts)[:-1])]

    def grams(self, position):
        return self.sets[position]


def near(found, threshold=0.7, **changes):
    """Cluster some documents: who stays instead of those that go, the longest, and the clusters."""
    texts = [each.text for each in found]
    sketch = minhash.sketch(texts, [dedup.CODE in each.domain for each in found], **NEAR | changes)
    clusters = dedup.cluster(Held(sketch), threshold)
    stays = dedup.survivors(clusters, "longest", lengths=np.array([len(text) for text in texts], np.float64))
    return {place: other for place, other in enumerate(stays.tolist()) if place != other}, clusters


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 8))
@settings(deadline=None)
def test_windows_are_equal_exactly_where_the_tokens_are(tokens, length):
    doubled = np.array(tokens + tokens, np.uint64)
    found = ngrams.Windows(doubled).of(length)
    real = [tuple(doubled[i : i + length].tolist()) for i in range(max(len(doubled) - length + 1, 0))]
    assert len(found) == len(real)
    assert len(set(found.tolist())) == len(set(real))
    assert found.tolist() == ngrams.Windows(doubled).at(np.arange(len(real)), length).tolist()


def test_tokens_are_words_characters_and_signs():
    assert ngrams.words("Tom's 4+2，中文word") == ["tom", "s", "4", "+", "2", "中", "文", "word"]
    assert ngrams.words("f(x)=1", marks=True) == ["f", "(", "x", ")", "=", "1"]


def test_equal_text_is_found_over_all_dumps_and_the_first_stays():
    digests = b"".join(map(dedup.digest, ["One  two", "other", "one\ntwo", "Other", "ONE TWO "]))
    assert dedup.first_equal(np.frombuffer(digests, np.uint64).reshape(-1, 2)).tolist() == [0, 1, 0, 1, 0]


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=25), min_size=2, max_size=8))
@settings(deadline=None, max_examples=60)
def test_no_pair_is_joined_below_the_exact_similarity(texts):
    """With two documents a pair is all there is, so a join is a statement about its exact Jaccard similarity."""
    for left, right in pairwise(texts):
        grams = [{tuple(t[i : i + 5]) for i in range(max(len(t) - 4, 0))} or {tuple(t)} for t in (left, right)]
        real = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        pair = [document("a", " ".join(left)), document("b", " ".join(right))]
        assert dedup.jaccard(*(dedup.shingles(each, 5) for each in pair)) == pytest.approx(real)
        assert bool(near(pair)[0]) <= (real >= 0.7)


@pytest.mark.parametrize("kind", ["english", "chinese", "code"])
def test_near_duplicates_above_the_threshold_are_found_in_every_script(kind):
    """Recall against all pairs, exactly: 32 bands of 4 find 99.98 % of the pairs at 0.7."""
    draw = random.Random(3)
    tokens = {
        "english": [f"word{i} " for i in range(300)],
        "chinese": [chr(0x4E00 + i) for i in range(300)],
        "code": ["x = ", "(", ")", "+= 1\n", *[f"name{i}." for i in range(200)]],
    }[kind]
    found = []
    for number in range(40):
        base = [draw.choice(tokens) for _ in range(120)]
        for copy in range(3):
            changed = [draw.choice(tokens) if draw.random() < 0.03 * copy else token for token in base]
            found.append(document(f"{number}-{copy}", "".join(changed), domain="code" if kind == "code" else "prose"))
    grams = [dedup.shingles(each, 5) for each in found]
    close = [(i, j) for j in range(len(found)) for i in range(j) if dedup.jaccard(grams[i], grams[j]) >= 0.7]
    survivor, _ = near(found)
    assert len(close) > 30
    assert all(survivor.get(i, i) == survivor.get(j, j) for i, j in close)
    assert len(survivor) < 80


def test_the_longest_stays_and_of_equals_the_first():
    text = " ".join(f"w{i}" for i in range(100))
    assert near([document("b", text), document("c", text + " end"), document("a", text)])[0] == {0: 1, 2: 1}
    assert near([document("b", text), document("a", text.upper())])[0] == {1: 0}


def test_texts_without_a_word_and_no_texts_at_all_are_no_duplicates():
    assert near([document("a", "!!!"), document("b", "???")])[0] == {}
    assert near([])[0] == {}


def test_bands_that_do_not_divide_the_hashes_are_refused():
    with pytest.raises(RecipeError, match="equal bands"):
        near([], bands=7)


def test_joining_dumps_counts_what_each_removes():
    texts = [" ".join(f"{name}{i}" for i in range(60)) for name in "pqr"]
    found = [document(f"{dump}{i}", text, dump=dump) for dump in ("one", "two") for i, text in enumerate(texts)]
    found.insert(3, document("one3", texts[0] + " more", dump="one"))
    _, clusters = near(found)
    lost = Counter(document.dump for document, gone in zip(found, clusters.joins, strict=True) if gone)
    rows = ledger.joined(Counter(document.dump for document in found), lost)
    assert [(row["joined"], row["documents"], row["removed"]) for row in rows] == [("one", 4, 1), ("two", 7, 4)]
    assert rows[1]["rate"] == pytest.approx(4 / 7, abs=1e-4)


def noisy(groups, seed, shares=(0, 0.01, 0.02, 0.04)):
    """Texts in families of copies, in a random order."""
    draw = random.Random(seed)
    found = []
    for _ in range(groups):
        base = [f"w{draw.randrange(500)}" for _ in range(100)]
        found += [" ".join("new" if draw.random() < share else word for word in base) for share in shares]
    draw.shuffle(found)
    return found


def store(folder, texts, **words):
    near = {"shingle": 5, "hashes": 112, "bands": 28, "seed": 1} | words
    folder.mkdir()
    half = len(texts) // 2
    for number, part in enumerate((texts[:half], texts[half:])):
        minhash.write(folder / f"{number}", [minhash.sketch(part, [False] * len(part), **near)])
    return minhash.Store([folder / "0", folder / "1"])


def plain(found, threshold, among):
    """What clusters should be: candidates by comparing keys, joined one by one in the order of their later member."""
    size = len(found.counts)
    keys = np.stack([found.keys(band) for band in range(found.bands)], axis=1)
    root, joins = list(range(size)), [0] * size
    for later in range(size):
        for earlier in range(later):
            if among[later] and among[earlier] and (keys[later] == keys[earlier]).any() and root[later] != root[earlier]:
                sets = [set(found.grams(place).tolist()) for place in (earlier, later)]
                if len(sets[0] & sets[1]) >= threshold * len(sets[0] | sets[1]):
                    low, high = sorted((root[later], root[earlier]))
                    root = [low if each == high else each for each in root]
                    joins[later] += 1
    return root, joins


def test_clusters_are_those_of_comparing_all_pairs_one_by_one(tmp_path, monkeypatch):
    found = store(tmp_path / "s", noisy(12, 3))
    among = np.arange(48) % 7 != 0
    root, joins = plain(found, 0.75, among)
    clusters = dedup.cluster(found, 0.75, among)
    assert (clusters.root.tolist(), clusters.joins.tolist()) == (root, joins)
    assert clusters.verified == sum(joins) > 10
    monkeypatch.setattr(dedup, "BLOCK", 5)
    monkeypatch.setattr(dedup, "HELD", 300)
    again = dedup.cluster(found, 0.75, among, scratch=tmp_path)
    assert (again.root.tolist(), again.joins.tolist(), again.candidates) == (root, joins, clusters.candidates)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_the_joins_up_to_any_document_are_what_deduplication_of_so_many_removes(tmp_path):
    texts = noisy(10, 5)
    whole = dedup.cluster(store(tmp_path / "all", texts), 0.75)
    for count in (8, 17, 30):
        part = dedup.cluster(store(tmp_path / f"{count}", texts[:count]), 0.75)
        assert int(whole.joins[:count].sum()) == int((part.root != np.arange(count)).sum())


@pytest.mark.parametrize("before", [0, 13, 25, 39, 40])
def test_a_new_dump_against_a_kept_index_loses_what_it_loses_among_all(tmp_path, before):
    found = store(tmp_path / "s", noisy(10, 7))
    position = np.arange(40)
    whole = dedup.cluster(found, 0.75)
    old = dedup.cluster(found, 0.75, among=position < before)
    new = dedup.cluster(found, 0.75, kept=old.root[:before])
    gone = [dedup.survivors(clusters, "first")[before:] != position[before:] for clusters in (whole, new)]
    assert gone[0].tolist() == gone[1].tolist()
    assert new.root.tolist() == whole.root.tolist()


def test_each_rule_keeps_its_own():
    clusters = dedup.Clusters(np.array([0, 0, 0, 3, 3, 5]), np.zeros(6, np.int64), 0, 0)
    values = np.array([1.0, 3.0, 3.0, np.nan, 0.0, np.nan])
    assert dedup.survivors(clusters, "first").tolist() == [0, 0, 0, 3, 3, 5]
    for rule, name in (("longest", "lengths"), ("newest", "dates"), ("best", "quality")):
        assert dedup.survivors(clusters, rule, **{name: values}).tolist() == [1, 1, 1, 4, 4, 5]
    with pytest.raises(DataError, match="nothing to tell it by"):
        dedup.survivors(clusters, "best")


def test_a_bucket_of_many_equal_keys_costs_no_square(monkeypatch):
    monkeypatch.setattr(dedup, "WINDOW", 4)
    texts = [" ".join(f"w{i}" for i in range(60))] * 50
    survivor, clusters = near([document(f"{i}", text) for i, text in enumerate(texts)])
    assert clusters.candidates == 4 * 50 - (4 + 3 + 2 + 1)
    assert len(survivor) == 49
