import re

import pytest

from alignment.corpus import build, clusters
from tests.alignment.corpus.test_build import here, machine, opened, page, recipe, write  # noqa: F401  # `here` is a fixture


def test_the_page_shows_who_stays_who_went_and_where_they_differ(here, tmp_path, monkeypatch):  # noqa: F811
    copies = [{"id": f"v{number}", "text": page(9) + " more" * number} for number in range(1, 7)]
    write(tmp_path / "web/dump2.jsonl", copies)
    here = opened(tmp_path, "versions")
    numbers = build.build(recipe(), here, machine())
    text = (here.path / "clusters.md").read_text(encoding="utf-8")
    assert f"{numbers['near_duplicates']:,} documents of " in text
    assert "`web/dump1.jsonl:near` (web/dump1.jsonl, " in text
    assert "`web/dump1.jsonl:w5` (web/dump1.jsonl" in text
    assert " went: J = 0.9" in text
    assert "{+ end+}" in text
    assert f"`web/dump2.jsonl:v6` (web/dump2.jsonl, {len(page(9)) + 30} characters) stays, 6 went" in text
    assert "and 2 more" in text
    assert "[Clusters of near duplicates](clusters.md)" in (here.path / "README.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == 2
    monkeypatch.setattr(clusters, "CLUSTERS", 1)
    build.build(recipe(), here, machine())
    assert (here.path / "clusters.md").read_text(encoding="utf-8").count("\n## ") == 1


@pytest.mark.parametrize(
    ("gone", "stays", "shown"),
    [
        ("one two three", "one two four", "one two [-three-]{+four+}"),
        ("一二三四", "一二五三四", "一二{+五+}三四"),
        ("same", "same", "same"),
        ("a b", "a b c", "a b{+ c+}"),
    ],
)
def test_a_difference_is_marked(gone, stays, shown):
    assert clusters.difference(gone, stays) == shown


def test_an_excerpt_is_short_and_begins_before_the_difference():
    long = "word " * 5000
    shown = clusters.difference(long + "x" + long, long + "y" + long)
    assert len(shown) < 2 * clusters.SHOWN
    assert re.match(r"(word ){8}\[-xword-\]\{\+yword\+\}", shown)
