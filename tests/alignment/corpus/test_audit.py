import random

import numpy as np
import pytest
from scipy.stats import binomtest

from alignment.corpus import audit, dedup, minhash
from alignment.errors import DataError

WORDS = {"shingle": 5, "hashes": 112, "bands": 14, "seed": 3}


@pytest.fixture
def store(tmp_path):
    draw = random.Random(2)
    found = []
    for _ in range(30):
        base = [f"w{draw.randrange(300)}" for _ in range(120)]
        for share in (0, 0.01, 0.03, 0.06):
            found.append(" ".join("new" if draw.random() < share else word for word in base))
    minhash.write(tmp_path / "0", [minhash.sketch([*found, "!"], [False] * (len(found) + 1), **WORDS)])
    return minhash.Store([tmp_path / "0"])


def test_the_join_finds_exactly_the_similar_pairs(store):
    places = audit.sample(store, 1, 50)
    pairs = audit.join(store, places, 0.7)
    sets = [set(store.grams(place).tolist()) for place in range(len(store))]
    real = {
        (int(a), b): len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        for a in places
        for b in range(len(store) - 1)
        if a != b and len(sets[a] & sets[b]) >= 0.7 * len(sets[a] | sets[b])
    }
    assert len(real) > 50
    assert (
        dict(zip(zip(pairs.sampled.tolist(), pairs.other.tolist(), strict=True), pairs.similarity.tolist(), strict=True))
        == real
    )


def test_recall_falls_with_what_is_missed_and_precision_with_what_should_stay(store):
    places = audit.sample(store, 1, 200)
    pairs = audit.join(store, places, 0.7)
    clusters = dedup.cluster(store, 0.8)
    gone = dedup.survivors(clusters, "first") != np.arange(len(store))
    right = audit.judge(pairs, places, gone, 0.8)
    assert right["precision"]["share"] == 1.0
    assert right["recall"]["share"] > 0.9
    none = audit.judge(pairs, places, np.zeros_like(gone), 0.8)
    assert none["recall"]["share"] == 0.0
    assert none["precision"]["share"] is None
    everything = audit.judge(pairs, places, np.ones_like(gone), 0.8)
    assert everything["recall"]["share"] == 1.0
    assert everything["precision"]["share"] < 1.0


@pytest.mark.parametrize(("hits", "number"), [(0, 10), (7, 10), (10, 10), (950, 1000)])
def test_the_interval_is_wilsons(hits, number):
    found, oracle = audit.share(hits, number), binomtest(hits, number).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((oracle.low, oracle.high), abs=1e-6)


def test_a_run_is_audited_from_its_index(tmp_path, store):
    (tmp_path / "index").mkdir()
    for part in minhash.PARTS:
        (tmp_path / f"0.{part}").rename(tmp_path / "index" / f"00000.{part}")
    gone = dedup.survivors(dedup.cluster(minhash.Store([tmp_path / "index/00000"]), 0.7), "first") != np.arange(len(store))
    np.save(tmp_path / "index/fate.npy", gone.astype(np.uint8))
    np.save(tmp_path / "index/sought.npy", np.arange(len(store)) < 100)
    found = audit.of_run(tmp_path, size=60)
    assert (found["documents"], found["sought"], found["sampled"]) == (121, 100, 60)
    sought = np.arange(len(store)) < 100
    places = audit.sample(minhash.Store([tmp_path / "index/00000"]), 0, 60, sought)
    assert places.max() < 100
    pairs = audit.join(minhash.Store([tmp_path / "index/00000"]), places, 0.7, sought)
    assert found["findings"] == [audit.judge(pairs, places, gone, threshold) for threshold in (0.7, 0.8)]
    assert 0.5 < found["findings"][0]["recall"]["share"] < found["findings"][1]["recall"]["share"]  # 14 bands of 8 rows
    said = "\n".join(audit.lines(found))
    assert "60 of 100 documents, each compared with all, exactly (seed 0)" in said
    assert "J >= 0.7: precision " in said


def test_a_run_without_an_index_is_refused(tmp_path):
    with pytest.raises(DataError, match="keep_index"):
        audit.of_run(tmp_path)
