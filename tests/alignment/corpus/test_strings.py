import random
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.corpus import strings
from alignment.corpus.documents import Document
from alignment.section import Strings

WORDS = Strings(line_characters=10, line_documents=2, run_tokens=8, run_documents=1)


def document(name, text, domain="prose"):
    return Document(str(name), text, domain, "en", "one")


def tale(seed, length=60):
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10**6)}" for _ in range(length))


def done(documents, out, words=WORDS):
    out.mkdir(exist_ok=True)
    counts = strings.repeated(lambda: iter(documents), words, out)
    cut = strings.cutter(words, out)
    return counts, [cut(each) for each in documents]


def test_a_line_of_many_documents_stays_in_the_first_only(tmp_path):
    texts = [f"{tale(i)}\nAll Rights  reserved by us\n{tale(i + 50)}" for i in range(4)]
    counts, found = done([document(i, text) for i, text in enumerate(texts)], tmp_path)
    assert counts["lines"] == 1
    assert found[0][0].text == texts[0]
    for i in (1, 2, 3):
        assert found[i][0].text == f"{tale(i)}\n{tale(i + 50)}"
        assert found[i][1]["lines"] == 1
    _, two = done([document(i, text) for i, text in enumerate(texts[:2])], tmp_path)
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


def test_the_same_again_and_batches_make_no_difference(tmp_path, monkeypatch):
    shared = tale(5, 30)
    documents = [document(i, f"{tale(i)}\n{shared}\n{tale(i + 30)}") for i in range(6)]
    _, whole = done(documents, tmp_path / "whole")
    monkeypatch.setattr(strings, "BATCH", 10)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "runs-00.part").write_bytes(b"left by a run that was stopped")
    _, parts = done(documents, tmp_path / "parts")
    assert whole == parts
    cleaned = [replace(each, id="x" + each.id) for each, _ in whole]
    counts, again = done(cleaned, tmp_path / "again")
    assert counts["runs"] == 0
    assert [each for each, _ in again] == cleaned
    assert np.load(tmp_path / "again" / "runs.npy").shape == (0,)
