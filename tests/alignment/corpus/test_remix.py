from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.corpus import remix
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


def test_a_small_domain_is_read_again_before_the_total_shrinks():
    found = corpus(math=10, web=100)
    plan = remix.plan({"math": 1000, "web": 10_000}, {"math": 0.5, "web": 0.5}, budget=5000, max_epochs=2)
    assert plan.bound_by == "math"
    assert plan.epochs == {"math": 2.0, "web": 0.2}
    mixed = remix.remix(found, plan, seed=0)
    assert Counter(document.domain for document in mixed) == {"math": 20, "web": 20}
    assert set(Counter(document.id for document in mixed if document.domain == "math").values()) == {2}


def test_the_seed_decides_the_mix_and_the_order_of_the_input_does_not():
    found = corpus(math=50, web=50)
    plan = remix.plan({"math": 5000, "web": 5000}, {"math": 1, "web": 1}, budget=3000, max_epochs=1)
    mixed = remix.remix(found, plan, seed=0)
    assert mixed == remix.remix(found[::-1], plan, seed=0)
    assert mixed != remix.remix(found, plan, seed=1)


def test_domains_are_mixed_evenly_though_little_of_one_is_taken():
    found = corpus(math=100, web=1000)
    plan = remix.plan({"math": 10_000, "web": 100_000}, {"math": 0.5, "web": 0.5}, budget=10_000, max_epochs=1)
    domains = [document.domain for document in remix.remix(found, plan, seed=0)]
    assert 15 <= domains[:50].count("web") <= 35


@pytest.mark.parametrize(
    ("shares", "complaint"),
    [({"a": 1.0}, "no share for b"), ({"a": 1, "b": 1, "c": 1}, "no document of c"), ({"a": 0, "b": 0}, "all are 0")],
)
def test_shares_that_do_not_match_the_domains_are_refused(shares, complaint):
    with pytest.raises(DataError, match=complaint):
        remix.plan({"a": 10, "b": 10}, shares, budget=10, max_epochs=1)


def test_a_repeated_document_is_on_one_side_only():
    found = corpus(a=200) * 2
    train, held_out = remix.split(found, 0.2, seed=0)
    assert {document.id for document in train}.isdisjoint(document.id for document in held_out)
    assert len(held_out) == len({document.id for document in held_out})
    assert len(held_out) == 40


def test_every_domain_is_held_out_in_its_share_and_none_entirely():
    train, held_out = remix.split(corpus(a=100, b=5, c=1), 0.1, seed=0)
    assert Counter(document.domain for document in held_out) == {"a": 10, "b": 1}
    assert {document.domain for document in train} == {"a", "b", "c"}
    assert remix.split(corpus(a=5), 0, seed=0)[1] == []
