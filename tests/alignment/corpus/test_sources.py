import json
from collections import Counter

import pytest

from alignment import schema
from alignment.corpus import sources
from alignment.corpus.readers import CUT_OFF, File
from alignment.corpus.sources import Part
from alignment.errors import DataError, RecipeError
from alignment.recipe import RawText


def source(**changes):
    return schema.validate(RawText, {"card": "web"} | changes, "test")


@pytest.mark.parametrize(
    ("rows", "files", "aside", "stops"),
    [
        (99, 1, {"not JSON": 1}, False),
        (98, 1, {"not JSON": 1, "empty": 1}, True),
        (1000, 1, {CUT_OFF: 1}, True),  # the rows behind it are not known
        (1000, 100, {CUT_OFF: 1}, False),
    ],
)
def test_a_source_may_lose_a_share_of_its_rows_and_of_its_files(rows, files, aside, stops):
    if stops:
        with pytest.raises(DataError, match=r"more than max_bad_share 0\.01"):
            sources.judge(source(), 0, files, rows, Counter(aside))
    else:
        sources.judge(source(), 0, files, rows, Counter(aside))


def test_only_a_card_has_files():
    for changes in ({"files": ["a"]}, {"stream": True}, {"text": "content"}):
        with pytest.raises(RecipeError, match="files, stream and text go with card"):
            schema.validate(RawText, {"installed": "stdlib"} | changes, "test")


def test_only_documents_with_one_of_the_ids_are_read_and_they_alone_count_for_the_limit(tmp_path):
    rows = [{"id": f"{chapter}/{number}", "text": "some text"} for number in range(5) for chapter in ("guide", "notes")]
    path = tmp_path / "pages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    part = Part(0, source(ids=("*:guide/*", "*/4"), rows=4), (File("web/pages.jsonl", str(path)),), "web", "en")
    assert [found.id.rpartition(":")[2] for found in sources.read(part)] == [f"guide/{number}" for number in range(4)]
