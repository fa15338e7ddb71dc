import json
import math
from collections import Counter
from dataclasses import replace
from itertools import accumulate, count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.corpus import deal, documents, ledger, remix
from alignment.corpus.column import Columns
from alignment.corpus.documents import Document
from alignment.errors import DataError


def corpus(**domains):
    return [Document(f"{d}{i}", "x" * 100, d, "en", "here") for d, count in domains.items() for i in range(count)]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1_000, 100_000), min_size=1),
    st.lists(st.floats(0.05, 1), min_size=4, max_size=4),
    st.integers(1_000, 10_000_000),
    st.floats(0.5, 5),
)
def test_shares_hold_and_caps_are_kept(available, weights, budget, max_epochs):
    shares = dict(zip(sorted(available), weights, strict=False))
    plan = remix.plan(available, shares, budget=budget, max_epochs=max_epochs)
    total = sum(plan.take.values())
    assert total <= budget
    for domain, share in shares.items():
        assert plan.take[domain] <= max_epochs * available[domain] + 1
        assert plan.take[domain] == pytest.approx(share / sum(shares.values()) * total, abs=len(shares) + 1)
    assert plan.bound_by is not None or total >= budget - len(shares)


def dealt(folder, found, plan, *, seed=0, max_epochs=1, held_out=0.0, by_language=False):
    """What `deal` makes of documents: those to train on and those held out, each in its order."""
    turns = math.ceil(max_epochs)
    shard, order, out = (folder / f"{len(list(folder.iterdir()))}-{name}" for name in ("shard", "order", "out"))
    for path in (shard, order, out):
        path.mkdir()
    names = {key: {} for key in ledger.KEYS}
    with Columns(shard, deal.KINDS) as columns, (shard / "documents.jsonl").open("wb") as lines:
        rows = [documents.line(document) for document in found]
        lines.writelines(rows)
        hashes = [[remix.key(document, seed, use) for use in deal.uses(turns)] for document in found]
        columns.add(start=[0, *accumulate(map(len, rows))], size=[document.bytes for document in found], hash=hashes)
        for key, seen in names.items():
            columns.add(**{key: [seen.setdefault(getattr(document, key), len(seen)) for document in found]})
    (shard / "said.json").write_text(json.dumps({"names": {key: list(seen) for key, seen in names.items()}}))
    deal.Order((shard,), plan, turns, held_out, by_language)(0, order)
    for part in range(len(np.load(order / "cuts.npy")) - 1):  # those held out are a part of their own
        (out / str(part)).mkdir()
        deal.Deal((shard,), order)(part, out / str(part))
    read = [document for part in sorted(out.iterdir()) for document in documents.read(part / "documents.jsonl")]
    train = json.loads((order / "said.json").read_text())["numbers"]["documents"]
    return read[:train], read[train:]


def plain(found, plan, seed):
    """Take each domain's bytes, pass after pass, and mix: what `deal` does on columns, on a list."""
    taken = []
    for domain, left in plan.take.items():
        pool = [document for document in found if document.domain == domain]
        for turn in count():
            for document in sorted(pool, key=lambda document: remix.key(document, seed, f"take {turn}")):
                if left > 0:
                    taken.append((remix.key(document, seed, f"mix {turn}"), document))
                    left -= document.bytes
            if left <= 0:
                break
    return [document for _, document in sorted(taken, key=lambda entry: entry[0])]


def test_a_small_domain_is_read_again_before_the_total_shrinks(tmp_path):
    found = corpus(math=10, web=100)
    plan = remix.plan({"math": 1000, "web": 10_000}, {"math": 0.5, "web": 0.5}, budget=5000, max_epochs=2)
    assert plan.bound_by == "math"
    assert plan.epochs == {"math": 2.0, "web": 0.2}
    mixed, _ = dealt(tmp_path, found, plan, max_epochs=2)
    assert mixed == plain(found, plan, 0)
    assert Counter(document.domain for document in mixed) == {"math": 20, "web": 20}
    assert set(Counter(document.id for document in mixed if document.domain == "math").values()) == {2}


def test_the_seed_decides_the_mix_and_the_order_of_the_input_does_not(tmp_path):
    found = corpus(math=50, web=50)
    plan = remix.plan({"math": 5000, "web": 5000}, {"math": 1, "web": 1}, budget=3000, max_epochs=1)
    mixed, _ = dealt(tmp_path, found, plan)
    assert mixed == dealt(tmp_path, found[::-1], plan)[0] == plain(found, plan, 0)
    assert mixed != dealt(tmp_path, found, plan, seed=1)[0]


def test_domains_are_mixed_evenly_though_little_of_one_is_taken(tmp_path):
    found = corpus(math=100, web=1000)
    plan = remix.plan({"math": 10_000, "web": 100_000}, {"math": 0.5, "web": 0.5}, budget=10_000, max_epochs=1)
    domains = [document.domain for document in dealt(tmp_path, found, plan)[0]]
    assert 15 <= domains[:50].count("web") <= 35


def test_a_repeated_document_is_on_one_side_only(tmp_path):
    found = corpus(a=200)
    plan = remix.plan({"a": 20_000}, {"a": 1}, budget=40_000, max_epochs=2)
    train, held_out = dealt(tmp_path, found, plan, max_epochs=2, held_out=0.2)
    assert {document.id for document in train}.isdisjoint(document.id for document in held_out)
    assert (len(train), len(held_out)) == (320, 40)


def test_every_domain_is_held_out_in_its_share_and_none_entirely(tmp_path):
    found = corpus(a=100, b=5, c=1)
    sizes = {"a": 10_000, "b": 500, "c": 100}
    plan = remix.plan(sizes, sizes, budget=10_600, max_epochs=1)
    train, held_out = dealt(tmp_path, found, plan, held_out=0.1)
    assert Counter(document.domain for document in held_out) == {"a": 10, "b": 1}
    assert {document.domain for document in train} == {"a", "b", "c"}
    assert len(train) + len(held_out) == 106


def test_each_domain_is_taken_as_the_languages_are(tmp_path):
    found = corpus(web=60, code=20)
    found = [replace(document, language="zh") if number % 3 == 0 else document for number, document in enumerate(found)]
    sizes = Counter({("web", "en"): 4000, ("web", "zh"): 2000, ("code", "en"): 1400, ("code", "zh"): 600})
    plan = remix.plan(*remix.by_language(sizes, {"web": 1, "code": 0}, {"en": 0.5, "zh": 0.5}), budget=10**6, max_epochs=1)
    taken, _ = dealt(tmp_path, found, plan, by_language=True)
    assert Counter((document.domain, document.language) for document in taken) == {("web", "en"): 20, ("web", "zh"): 20}


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [({"a": 1.0}, "no share for b"), ({"a": 1, "b": 1, "c": 1}, "no document of c"), ({"a": 0, "b": 0}, "all are 0")],
)
def test_shares_that_do_not_match_the_domains_are_refused(shares, complaint):
    with pytest.raises(DataError, match=complaint):
        remix.plan({"a": 10, "b": 10}, shares, budget=10, max_epochs=1)


def test_each_domain_is_divided_as_the_languages_are_and_a_cap_of_its_own_is_kept():
    available = {("web", "en"): 9000, ("web", "zh"): 1000, ("code", "en"): 4000}
    sizes, shares = remix.by_language(available, {"web": 0.6, "code": 0.4}, {"en": 0.5, "zh": 0.5})
    assert shares == {"web/en": 0.3, "web/zh": 0.3, "code/en": 0.4}
    plan = remix.plan(sizes, shares, budget=100_000, max_epochs=1, caps={"web/zh": 4, "code/en": 3})
    assert plan.bound_by == "code/en" or plan.take["web/zh"] <= 4000
    assert plan.take["web/zh"] == plan.take["web/en"] == pytest.approx(4000, abs=2)
    assert [row["epochs"] for row in plan.rows] == [plan.epochs[row["group"]] for row in plan.rows]
    assert sum(row["share"] for row in plan.rows) == pytest.approx(1)


@pytest.mark.parametrize(
    ("shares", "languages", "complaint"),
    [
        ({"web": 1.0}, {"en": 1.0}, "no share for zh"),
        ({}, {"en": 1.0, "zh": 1.0}, "no share for web"),
        ({"web": 1.0}, {"en": 0.0, "zh": 0.0}, "all that web has are 0"),
    ],
)
def test_languages_that_do_not_match_are_refused(shares, languages, complaint):
    with pytest.raises(DataError, match=complaint):
        remix.by_language({("web", "en"): 10, ("web", "zh"): 10}, shares, languages)
