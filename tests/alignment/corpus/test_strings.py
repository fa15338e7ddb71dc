import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignment.corpus import documents, duplicates, ngrams, repeats, strings
from alignment.corpus.documents import Document
from alignment.section import Strings

WORDS = Strings(line_characters=10, line_documents=2, run_tokens=8, run_documents=1)


def document(name, text, domain="prose"):
    return Document(str(name), text, domain, "en", "one")


def tale(seed, length=60):
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10**6)}" for _ in range(length))


def shard(found, folder):
    """Lay documents down as the step `read` does."""
    folder.mkdir(parents=True)
    lines = [documents.line(each) for each in found]
    (folder / "documents.jsonl").write_bytes(b"".join(lines))
    np.cumsum([0, *map(len, lines)], dtype=np.uint64).tofile(folder / "start.bin")
    return folder


def carried(work, shards, out):
    folders = tuple(out / f"{number}" for number in range(shards))
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        work(number, folder)
    return folders


def done(found, out, words=WORDS, shards=1):
    """Take the steps one after another; return what `strings` holds, and what is cut."""
    raw = tuple(shard(some.tolist(), out / "read" / f"{i}") for i, some in enumerate(np.array_split(found, shards)))
    (out / "duplicates").mkdir()
    np.save(out / "duplicates" / duplicates.FATE, np.zeros(len(found), np.uint8))
    windows = carried(repeats.Windows(raw, out / "duplicates", words), shards, out / "windows")
    gather = repeats.Shared(windows, {"lines": words.line_documents, "chosen": words.run_documents})
    (shared,) = carried(gather, 1, out / "shared")
    runs = carried(repeats.Runs(raw, out / "duplicates", words, shared), shards, out / "runs")
    (last,) = carried(repeats.Shared(runs, {"runs": words.run_documents}), 1, out / "strings")
    cut = strings.cutter(words, shared, last)
    kept = [strings.Lookup(shared, "lines"), strings.Lookup(shared, "chosen"), strings.Lookup(last, "runs")]
    return kept, [cut(each) for each in found]


def test_a_line_of_many_documents_stays_in_the_first_only(tmp_path):
    texts = [f"{tale(i)}\nAll Rights  reserved by us\n{tale(i + 50)}" for i in range(4)]
    (lines, _, _), found = done([document(i, text) for i, text in enumerate(texts)], tmp_path / "four")
    assert len(lines.hashes) == 1
    assert found[0][0].text == texts[0]
    for i in (1, 2, 3):
        assert found[i][0].text == f"{tale(i)}\n{tale(i + 50)}"
        assert found[i][1]["lines"] == 1
    _, two = done([document(i, text) for i, text in enumerate(texts[:2])], tmp_path / "two")
    assert [each.text for each, _ in two] == texts[:2]


def test_a_run_is_cut_from_its_first_token_to_its_last(tmp_path):
    shared = tale(7, 40)
    texts = [f"{tale(1)} {shared} {tale(2)}", f"{tale(3)}; {shared}! {tale(4)}"]
    _, found = done([document(i, text) for i, text in enumerate(texts)], tmp_path)
    assert found[0][0].text == texts[0]
    assert found[1][0].text == f"{tale(3)}; ! {tale(4)}"
    assert found[1][1] == {"lines": 0, "runs": 1, "characters": len(shared)}


@given(st.integers(0, 10**6), st.integers(8 + strings.STRIDE - 1, 60), st.integers(1, 40), st.integers(0, 40))
@settings(deadline=None, max_examples=8)
def test_no_run_of_that_length_is_left_in_two_documents(tmp_path_factory, seed, length, before, after):
    """run_tokens + STRIDE - 1 shared tokens always share a chosen window, wherever the run stands."""
    shared = tale(seed, length)
    pair = [
        document(0, f"{tale(seed + 1, before)} {shared}"),
        document(1, f"{tale(seed + 2, after)} {shared} {tale(seed + 3, after)}"),
    ]
    _, found = done(pair, tmp_path_factory.mktemp("strings"))
    assert shared not in found[1][0].text
    assert found[1][0].text.split() == pair[1].text.replace(shared, "").split()


def test_code_and_a_dotted_capital_are_left_whole(tmp_path):
    shared = tale(9, 40)
    pair = [document(0, shared + " end"), document(1, shared, "code"), document(2, f"aİb {shared}")]
    _, found = done(pair, tmp_path)
    assert [each.text for each, _ in found] == [each.text for each in pair]


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_batches_piles_and_shards_make_no_difference(tmp_path, monkeypatch, shards):
    shared = tale(5, 30)
    texts = [f"{tale(i)}\n{shared}\n{tale(i + 30)}" for i in range(6)]
    found = [document(i, text, "code" if i == 3 else "prose") for i, text in enumerate(texts)]
    whole, kept = done(found, tmp_path / "whole")
    monkeypatch.setattr(strings, "BATCH", 10)
    monkeypatch.setattr(repeats, "PILE", 50)
    parts, same = done(found, tmp_path / "parts", shards=shards)
    assert kept == same
    for one, other in zip(whole, parts, strict=True):
        assert len(one.hashes)
        assert (one.hashes.tolist(), one.names.tolist()) == (other.hashes.tolist(), other.names.tolist())
    cleaned = [replace(each, id="x" + each.id) for each, _ in kept]
    (_, _, runs), again = done(cleaned, tmp_path / "again", shards=shards)
    assert not len(runs.hashes)
    assert [each for each, _ in again] == cleaned


def test_where_nothing_is_prose_nothing_is_found(tmp_path):
    kept, found = done([document(i, tale(1), "code") for i in range(3)], tmp_path, shards=2)
    assert [len(each.hashes) for each in kept] == [0, 0, 0]
    assert [each.text for each, _ in found] == [tale(1)] * 3


@given(st.lists(st.integers(0, 40), max_size=80))
@settings(deadline=None, max_examples=100)
def test_of_every_windows_in_a_row_the_least_is_chosen(values):
    windows = np.array(values, np.uint64)
    rows = [values[i : i + strings.STRIDE] for i in range(max(len(values) - strings.STRIDE + 1, min(len(values), 1)))]
    assert set(strings.chosen(windows).tolist()) == {min(row) for row in rows}


@given(
    st.text(st.sampled_from("aZ_09 \n\u3000-+*/×÷=<>%^.,()中文字ー・〇²½İßﬁ😀𝒳") | st.characters(exclude_categories=["Cs"]))
)
@settings(deadline=None, max_examples=200)
@example("")
@example("a-b，中文 (x^2)…")
def test_tokens_lie_where_the_pattern_finds_them(text):
    starts, ends = strings.spans_of_tokens(document(0, text))
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == [token.span() for token in ngrams.WORDS.finditer(text)]
