from types import SimpleNamespace

import pytest
from huggingface_hub import DatasetCard

from alignment.corpus import card, ledger
from alignment.corpus.card import Origin
from alignment.corpus.documents import Document
from alignment.run import Run
from alignment.section import RawText

ORIGINS = [Origin("docs", "github: a/b@c", "Apache-2.0", "ab12")]


def book():
    found = [Document(f"d{n}", f"page {n} of | text", "web", "zh" if n % 2 else "en", f"dump{n // 3}") for n in range(6)]
    near = Document("near", found[1].text + " and more", "web", "zh", "dump1")
    made = ledger.Ledger()
    read, joined = ledger.Tally(), ledger.Tally()
    for each in (*found, near):
        for tally in (read, joined):
            tally.came(each)
        read.went(each)
        if each is found[1]:
            joined.lost(each, "near duplicate", near)
        else:
            joined.went(each)
    made.step("sources", read)
    made.step("near duplicates", joined)
    made.facts["removed_as_dumps_are_joined"] = ledger.joined({"dump0": 3, "dump1": 4}, {"dump1": 1})
    made.facts["quality"] = {"examples": {"yes": 30, "no": 40}, "held_out": 14, "auc": 0.9, "interval": [0.8, 0.96]}
    return {"steps": made.steps, **made.facts}


def test_the_hub_reads_the_front_matter():
    front = DatasetCard(card.card("docs", book(), ORIGINS, "f00d")).data.to_dict()
    assert sorted(front["language"]) == ["en", "zh"]
    assert front["license"] == "apache-2.0"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"][0] == {"split": "train", "path": "documents.jsonl"}
    several = [*ORIGINS, Origin("other", "here", "MIT", "cd34")]
    assert DatasetCard(card.card("docs", book(), several, "f00d")).data.to_dict()["license"] == "other"


def test_the_card_says_what_was_taken_and_why_beside_the_papers_curve(tmp_path):
    (tmp_path / "docs").mkdir()
    opened = SimpleNamespace(card=SimpleNamespace(origin="github: a/b@c", licence="Apache-2.0"), digest="ab12")
    here = Run(tmp_path / "docs", {}, {"docs": opened}, True, False, {"fingerprint": "f00d", "inputs": {"made": "beef"}})
    card.write(here, [RawText(card="docs"), RawText(run="made"), RawText(installed="stdlib")], book())
    text = (tmp_path / "docs/README.md").read_text(encoding="utf-8")
    assert "| docs | github: a/b@c | Apache-2.0 | ab12 |" in text
    assert "| made | a run beside this one | as there | beef |" in text
    assert "`f00d`" in text
    assert "| near duplicates | 6 | 1 |" in text
    assert "| 2 | dump1 | 7 | 14.3% | 46.7 % |" in text
    assert "stays: `near` `` page 1 of | text and more ``" in text
    assert "0.900 [0.800, 0.960]" in text
    assert "page 1 of | text" in text
    assert text.count("\n| ") == text.count(" |\n")
    picture = (tmp_path / "docs/table1.svg").read_text(encoding="utf-8")
    assert picture.startswith("<?xml")
    assert picture == card.picture(book()["removed_as_dumps_are_joined"])  # the same bytes every time


@pytest.mark.parametrize(
    ("documents", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**13, "n>1T")]
)
def test_sizes_have_the_hubs_names(documents, name):
    assert card.size_category(documents) == name
