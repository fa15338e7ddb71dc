import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from alignment.corpus import ledger
from alignment.corpus.documents import Document
from alignment.corpus.ledger import Tally

DOCUMENTS = st.builds(
    Document,
    st.text("ab", min_size=1, max_size=3),
    st.text("x文 ", max_size=8),
    st.sampled_from(["web", "code"]),
    st.sampled_from(["en", "zh"]),
    st.sampled_from(["one", "two"]),
)
MOVES = st.lists(st.tuples(DOCUMENTS, st.sampled_from([None, "too short", "too long"])), max_size=12)


def tally(moves):
    result = Tally()
    for document, reason in moves:
        result.came(document)
        if reason:
            result.lost(document, reason)
        else:
            result.went(document)
            result.counts["seen"] += 1
    return result


@given(MOVES, st.lists(st.integers(0, 12), max_size=3))
def test_shards_add_up_to_the_whole_wherever_they_are_cut(moves, cuts):
    ends = sorted({0, len(moves), *(min(cut, len(moves)) for cut in cuts)})
    parts = [tally(moves[start:stop]) for start, stop in pairwise(ends)]
    summed = Tally()
    for part in parts:
        summed += Tally.read(json.loads(json.dumps(part.plain())))
    assert summed.plain() == tally(moves).plain()


@given(MOVES)
def test_what_comes_in_goes_out_or_is_named_with_a_reason(moves):
    found = tally(moves)
    lost = found.reasons.values()
    for name in ("documents", "bytes"):
        assert found.total("in")[name] == found.total("out")[name] + sum(entry[name] for entry in lost)
    for groups in found.by.values():
        assert sum(group["in"]["bytes"] for group in groups.values()) == sum(len(d.text.encode()) for d, _ in moves)


def test_an_entry_names_all_that_went_and_shows_a_few_and_what_stays_instead():
    found = [Document(str(i), f"text {i}", "web", "en", "dump") for i in range(6)]
    moved = Tally()
    for each in found:
        moved.came(each)
    moved.went(found[0])
    for each in found[1:]:
        moved.lost(each, "near duplicate", found[0] if each.id == "1" else None)
    book = ledger.Ledger()
    book.step("near duplicates", moved)
    (step,) = book.steps
    assert (step["in"]["documents"], step["out"]["documents"]) == (6, 1)
    assert step["reasons"]["near duplicate"]["documents"] == 5
    assert [sample["id"] for sample in step["reasons"]["near duplicate"]["samples"]] == ["1", "2", "3"]
    assert step["reasons"]["near duplicate"]["samples"][0]["instead"] == "0"


def test_the_rate_grows_over_all_dumps_joined_so_far():
    rows = ledger.joined({"b": 10, "a": 30}, {"a": 8})
    assert [(row["joined"], row["documents"], row["removed"], row["rate"]) for row in rows] == [
        ("b", 10, 0, 0.0),
        ("a", 40, 8, 0.2),
    ]
