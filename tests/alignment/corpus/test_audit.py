import json
import random

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from alignment import data_card, manifest, run
from alignment.corpus import audit, build, dedup, minhash
from alignment.errors import DataError
from alignment.recipe import Corpus
from tests.alignment.corpus.test_build import CARD, machine

WORDS = {"shingle": 5, "hashes": 112, "bands": 14, "seed": 3}
REST = {"shares": {"web": 1.0}, "bytes": 10**6, "held_out": 0.1}


def texts(seed):
    draw = random.Random(seed)
    for _ in range(30):
        base = [f"w{draw.randrange(300)}" for _ in range(120)]
        for share in (0, 0.01, 0.03, 0.06):
            yield " ".join("new" if draw.random() < share else word for word in base)


@pytest.fixture
def store(tmp_path):
    found = list(texts(2))
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


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make and seal a corpus run over what lies there."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data_cards", "web"):
        (tmp_path / folder).mkdir()
    head = {**CARD, "name": "web", "hub": "none"}
    (tmp_path / "data_cards/web.md").write_text(f"---\n{yaml.safe_dump(head)}---\n")
    for number in range(2):
        rows = [{"text": text} for text in texts(number)]
        (tmp_path / f"web/{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(name, **changes):
        recipe = Corpus.model_validate({"stage": "corpus", "data": [{"card": "web"}], **REST, **changes})
        cards = {"web": data_card.open_card("web", tmp_path / "web", training=True)}
        said = {name: card.about() for name, card in cards.items()}
        plan = manifest.compose(words=recipe.model_dump(), inputs={}, cards=said, hardware={})
        live = run.begin(tmp_path / name, plan, inputs={}, cards=cards, main=True, resume=False, recipe_text="")
        run.finish(live, build.build(recipe, live, machine()))
        return tmp_path / name

    return make


def test_any_run_is_audited_with_an_index_or_without(tmp_path, made):
    found = audit.of_run(made("plain"), tmp_path / "web", size=60)
    assert (found["documents"], found["sought"], found["sampled"]) == (240, 240, 60)
    assert audit.of_run(made("kept", keep_index=True), size=60) == found
    assert 0.5 < found["findings"][0]["recall"]["share"] <= found["findings"][1]["recall"]["share"]
    assert found["findings"][0]["precision"]["share"] == 1.0
    said = "\n".join(audit.lines(found))
    assert "60 of 240 documents, each compared with all, exactly (seed 0)" in said
    assert "J >= 0.7: precision " in said
    assert {path.name for path in tmp_path.iterdir()} == {"data_cards", "web", "plain", "kept"}


def test_only_documents_whose_duplicates_were_sought_are_judged(tmp_path, made):
    split = [{"card": "web", "files": ["0*"], "dedup": False}, {"card": "web", "files": ["1*"]}]
    found = audit.of_run(made("half", data=split), tmp_path / "web", size=1000)
    assert (found["documents"], found["sought"], found["sampled"]) == (240, 120, 120)


def test_sources_that_changed_or_went_are_refused(tmp_path, made):
    finished = made("plain")
    with (tmp_path / "web/1.jsonl").open("a") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")
    with pytest.raises(DataError, match="web is not what the run has read"):
        audit.of_run(finished, tmp_path / "web")
    with pytest.raises(DataError, match="no --data-root was given"):
        audit.of_run(finished)
