import json

import pytest

from alignment.corpus import documents, installed
from alignment.corpus.documents import Document
from alignment.errors import DataError

TEXT = 'a "quote", 中文, a line\nand another, 🙂'


def test_written_documents_come_back_equal(tmp_path):
    before = [Document("1", TEXT, "prose", "en", "here", {"source": "x"}), Document("2", "", "code", "zh", "here")]
    assert documents.write(tmp_path / "d.jsonl", before) == 2
    assert list(documents.read(tmp_path / "d.jsonl")) == before
    assert not list(tmp_path.glob("*.part"))


def test_a_writer_that_dies_leaves_no_file(tmp_path):
    def dying():
        yield Document("1", "a", "prose", "en", "here")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        documents.write(tmp_path / "d.jsonl", dying())
    assert not (tmp_path / "d.jsonl").exists()


@pytest.mark.parametrize(
    "line", [b"{", b'{"text": 3}', b"[]", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b'{"text": "a", "id": "1"}']
)
def test_a_bad_row_names_file_and_line(tmp_path, line):
    good = json.dumps({name: {} if name == "meta" else "a" for name in documents.NAMES}).encode()
    (tmp_path / "d.jsonl").write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=r"d\.jsonl, line 2"):
        list(documents.read(tmp_path / "d.jsonl"))


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        list(documents.read(tmp_path / "none.jsonl"))


def test_batches_hold_all_in_order_and_stay_small(monkeypatch):
    monkeypatch.setattr(documents, "BATCH_DOCUMENTS", 3)
    monkeypatch.setattr(documents, "BATCH_BYTES", 100)
    found = [Document(str(i), "x" * size, "p", "en", "d") for i, size in enumerate([1, 1, 1, 99, 1, 500, 7])]
    batches = list(documents.batches(found))
    assert [[int(document.id) for document in batch] for batch in batches] == [[0, 1, 2], [3, 4], [5], [6]]
    assert list(documents.batches([])) == []


@pytest.mark.parametrize(("name", "domain"), [("stdlib", "code"), ("packages", "prose")])
def test_installed_text_is_a_repeatable_sample_within_its_limit(name, domain):
    found = list(installed.documents(name, 150_000))
    assert 50_000 < sum(document.bytes for document in found) <= 150_000
    assert found == list(installed.documents(name, 150_000))
    assert {document.domain for document in found} == {domain}
    assert len({document.id for document in found}) == len(found)


def test_docstrings_stand_below_the_names_of_what_they_document():
    source = '"""Top."""\nclass A:\n    """Of A."""\n    def b(self):\n        """Of b."""\n'
    assert installed.docstrings(source) == "Top.\n\nA\nOf A.\n\nA.b\nOf b."
    assert installed.docstrings("def broken(:") == ""
