"""Data cards: what a card may say, where its files are found, and that held-out rows are never trained on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment import data_card
from alignment.corpus import readers
from alignment.corpus.documents import Document
from alignment.errors import DataError, HubError
from tests import fake_hub

ROOT = Path(__file__).parents[2]
CARDS = sorted(path.stem for path in (ROOT / "data_cards").glob("*.md") if path.stem != "README")

TEXT = """---
name: toy
origin: made up in a test
hub: none
revision: none
licence: MIT
language: en
domain: toy
reader: alpaca
columns: [instruction, output]
splits:
  train: {role: train, files: [toy/train-*.jsonl], seen: false}
  test: {role: held-out, files: [toy/test.jsonl], seen: false}
---

# toy
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of cards that holds one, `toy`."""
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "toy.md").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with the files of the card `toy`."""
    data = tmp_path / "data"
    (data / "toy").mkdir(parents=True)
    for name in ("train-2", "train-1", "test"):
        row = {"instruction": f"Say {name}.", "output": name}
        (data / "toy" / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return data


def change(folder: Path, old: str, new: str) -> None:
    text = (folder / "toy.md").read_text(encoding="utf-8")
    assert old in text
    (folder / "toy.md").write_text(text.replace(old, new), encoding="utf-8")


def test_there_are_cards() -> None:
    assert len(CARDS) >= 10


@pytest.mark.parametrize("name", CARDS)
def test_every_card_of_the_project_loads(name: str) -> None:
    card = data_card.load(name, ROOT / "data_cards")
    assert card.revision in (None, data_card.UNPINNED) or len(card.revision) == 40


def counted(name: str) -> bool:
    """Whether the card's files were at hand when it was written."""
    return all(split.seen for split in data_card.load(name, ROOT / "data_cards").splits.values())


def documents(opened: data_card.Opened) -> Iterator[Document | readers.Aside]:
    card = opened.card
    for file in opened.files():
        yield from readers.read(file, domain=card.domain, language=card.language, dump=file.name, most=1 << 24)


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in CARDS if counted(name)])
def test_a_card_counts_its_real_files_right(name: str, data_root: Path) -> None:
    card = data_card.load(name, ROOT / "data_cards")
    for training in {split.role == "train" for split in card.splits.values()}:
        opened = data_card.open_card(name, data_root, training=training, folder=ROOT / "data_cards")
        splits = [split for split in card.splits.values() if (split.role == "train") == training]
        found = documents(opened) if card.reader == data_card.DOCUMENTS else opened.records()
        assert sum(1 for _ in found) == sum(split.rows or 0 for split in splits)
        assert sum(path.stat().st_size for path in opened.paths) == sum(split.bytes or 0 for split in splits)


@pytest.mark.data
@pytest.mark.parametrize(("name", "kept", "dropped"), [("alpaca-en", 6378, 4), ("dpo-zh-demo", 236, 64)])
def test_real_rows_are_read(name: str, kept: int, dropped: int, data_root: Path) -> None:
    opened = data_card.open_card(name, data_root, training=True, folder=ROOT / "data_cards")
    found = opened.rows() if name.startswith("alpaca") else opened.pairs()
    assert len({row["id"] for row in found}) == kept
    assert opened.dropped.total() == dropped


def test_a_training_stage_is_given_the_train_split_only(folder: Path, data: Path) -> None:
    opened = data_card.open_card("toy", data, training=True, folder=folder)
    assert [row["messages"][1]["content"] for row in opened.rows()] == ["train-1", "train-2"]
    held_out = data_card.open_card("toy", data, training=False, folder=folder)
    assert [path.name for path in held_out.paths] == ["test.jsonl"]


def test_a_held_out_card_cannot_be_trained_on(folder: Path, data: Path) -> None:
    change(folder, "role: train", "role: held-out")
    with pytest.raises(DataError, match="held out"):
        data_card.open_card("toy", data, training=True, folder=folder)


def test_a_file_cannot_be_trained_on_and_held_out(folder: Path, data: Path) -> None:
    change(folder, "toy/test.jsonl", "toy/*1.jsonl")
    with pytest.raises(DataError, match=r"train-1\.jsonl is in a train and in a held-out split"):
        data_card.open_card("toy", data, training=True, folder=folder)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("reader: alpaca\n", "", r"toy\.md: reader: missing"),
        ("reader: alpaca", "reader: alpacca", r"toy\.md: reader: no such reader\. Did you mean 'alpaca'"),
        ("licence:", "license:", r"toy\.md: license: unknown field\. Did you mean 'licence'"),
        ("seen: false}\n  test", "sen: false}\n  test", r"splits\.train\.sen: unknown field\. Did you mean 'seen'"),
        ("language: en\n", "", r"toy\.md: language: missing"),
        ("role: train", "role: both", r"splits\.train\.role: .*'train' or 'held-out'"),
        ("hub: none", "hub: org/toy", "hub and revision go together"),
        ("revision: none", "revision: main", r"revision: .*not 'main'"),
        ("toy/test.jsonl", "../test.jsonl", "relative to the data root"),
        ("reader: alpaca", "reader: items", "for held-out splits"),
        ("name: toy", "name: toys", "called as its file"),
        ("name: toy\n", "name: toy\nname: toy\n", "'name' stands twice"),
        ("---\nname", "name", "no front matter"),
    ],
)
def test_a_card_that_cannot_be_meant_is_refused(folder: Path, old: str, new: str, complaint: str) -> None:
    change(folder, old, new)
    with pytest.raises(DataError, match=complaint):
        data_card.load("toy", folder)


def test_an_unknown_card_names_the_nearest(folder: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'toy'"):
        data_card.load("tov", folder)
    with pytest.raises(DataError, match=r"none/toy\.md: no such data card\. There is none in .*/none/: .*project's root"):
        data_card.load("toy", folder / "none")


def test_missing_data_says_what_and_where(folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no --data-root was given"):
        data_card.open_card("toy", None, training=True, folder=folder)
    with pytest.raises(DataError, match="no such folder"):
        data_card.open_card("toy", tmp_path / "nowhere", training=True, folder=folder)
    with pytest.raises(DataError, match=r"holds none of: toy/train-\*\.jsonl"):
        data_card.open_card("toy", folder, training=True, folder=folder)
    change(folder, "[toy/train-*.jsonl]", "[toy/train-*.jsonl, toy/more.jsonl]")
    with pytest.raises(DataError, match=r"more\.jsonl is missing"):
        data_card.open_card("toy", data, training=True, folder=folder)


def test_a_promised_column_is_looked_for(folder: Path, data: Path) -> None:
    change(folder, "[instruction, output]", "[instruction, input, output]")
    opened = data_card.open_card("toy", data, training=True, folder=folder)
    with pytest.raises(DataError, match=r"train-1\.jsonl, row 1: no column 'input'"):
        list(opened.rows())


def test_a_card_gives_only_what_its_reader_reads(folder: Path, data: Path) -> None:
    opened = data_card.open_card("toy", data, training=True, folder=folder)
    with pytest.raises(DataError, match="gives no preference pairs"):
        opened.pairs()
    with pytest.raises(DataError, match="gives no documents"):
        opened.files()


def test_the_digest_follows_the_content_and_the_reading_but_not_the_place(folder: Path, data: Path) -> None:
    def digest(root: Path) -> str:
        return data_card.open_card("toy", root, training=True, folder=folder).digest

    before = digest(data)
    moved = data.rename(data.with_name("elsewhere"))
    assert digest(moved) == before
    change(folder, "columns:", "fill: {name: Plumbline}\ncolumns:")
    filled = digest(moved)
    assert filled != before
    (moved / "toy" / "train-1.jsonl").write_text('{"instruction": "Hi", "output": "Hello."}\n', encoding="utf-8")
    assert digest(moved) not in (before, filled)


def test_placeholders_are_filled(folder: Path, data: Path) -> None:
    change(folder, "columns:", "fill: {name: Plumbline}\ncolumns:")
    row = {"instruction": "Who?", "output": "I am {{name}}."}
    (data / "toy" / "train-1.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    opened = data_card.open_card("toy", data, training=True, folder=folder)
    assert next(opened.rows())["messages"][1]["content"] == "I am Plumbline."


def test_documents_take_from_the_card_what_they_do_not_say(folder: Path, data: Path) -> None:
    change(folder, "reader: alpaca", "reader: documents")
    lines = '{"text": "One."}\n{"text": "二。", "lang": "zh", "id": "two"}\n'
    (data / "toy" / "train-1.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    change(folder, "toy/train-*.jsonl", "toy/train-1.jsonl.gz")
    first, second = documents(data_card.open_card("toy", data, training=True, folder=folder))
    assert (first.language, first.domain, first.dump) == ("en", "toy", "toy/train-1.jsonl.gz")
    assert (second.language, second.id) == ("zh", "toy/train-1.jsonl.gz:two")


def test_files_of_one_name_in_two_folders_are_told_apart(folder: Path, data: Path) -> None:
    change(folder, "reader: alpaca", "reader: documents")
    for year in ("2023", "2024"):
        (data / "toy" / year).mkdir()
        (data / "toy" / year / "a.jsonl").write_text('{"text": "One."}\n', encoding="utf-8")
    change(folder, "toy/train-*.jsonl", '"toy/202?/*.jsonl"')
    files = data_card.open_card("toy", data, training=True, folder=folder).files()
    assert [file.name for file in files] == ["toy/2023/a.jsonl", "toy/2024/a.jsonl"]


def test_a_streamed_card_stays_on_the_hub_and_its_commit_stands_for_its_content(folder: Path, data: Path) -> None:
    change(folder, "reader: alpaca", "reader: documents")
    change(folder, "files: [toy/train-*.jsonl]", "files: [toy/train-*.jsonl], hub_files: [a.jsonl, b.parquet]")
    change(folder, "hub: none\nrevision: none", "hub: org/toy\nrevision: unpinned")
    with pytest.raises(HubError, match=r"python -m alignment pin data_cards/toy\.md"):
        data_card.open_card("toy", None, training=True, stream=True, folder=folder)
    change(folder, "revision: unpinned", f"revision: {fake_hub.COMMIT}")
    opened = data_card.open_card("toy", None, training=True, stream=True, folder=folder)
    assert [file.path for file in opened.files()] == [
        f"org/toy@{fake_hub.COMMIT}/{name}" for name in ("a.jsonl", "b.parquet")
    ]
    assert data_card.open_card("toy", data, training=True, stream=True, folder=folder).paths
    change(folder, fake_hub.COMMIT, fake_hub.COMMIT[::-1])
    assert data_card.open_card("toy", None, training=True, stream=True, folder=folder).digest != opened.digest


def test_an_unpinned_hub_card_names_the_command_that_pins_it(folder: Path) -> None:
    change(folder, "hub: none\nrevision: none", "hub: org/toy\nrevision: unpinned")
    change(folder, "files: [toy/train-*.jsonl]", "files: [toy/train-*.jsonl], hub_files: [train.jsonl]")
    with pytest.raises(HubError, match=r"python -m alignment pin data_cards/toy\.md"):
        data_card.open_card("toy", None, training=True, folder=folder)


def test_a_hub_file_needs_its_exact_name(folder: Path) -> None:
    change(folder, "hub: none\nrevision: none", "hub: org/toy\nrevision: unpinned")
    with pytest.raises(DataError, match="add hub_files"):
        data_card.load("toy", folder)


def test_a_pinned_card_is_fetched_at_its_commit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(folder, "hub: none\nrevision: none", f"hub: org/toy\nrevision: '{fake_hub.COMMIT}'")
    change(folder, "files: [toy/train-*.jsonl]", "files: [toy/train-*.jsonl], hub_files: [train.jsonl]")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    row = b'{"instruction": "Hi", "output": "Hello."}\n'
    with fake_hub.serve({"datasets/org/toy": {"train.jsonl": row}}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        opened = data_card.open_card("toy", None, training=True, folder=folder)
        assert opened.about() == {"revision": fake_hub.COMMIT, "rows": None, "digest": opened.digest}
        assert next(opened.rows())["messages"][1]["content"] == "Hello."
        assert opened.about()["rows"] == 1
        change(folder, "hub_files: [train.jsonl]", "hub_files: [absent.jsonl]")
        with pytest.raises(HubError, match="org/toy"):
            data_card.open_card("toy", None, training=True, folder=folder)


def test_columns_that_are_called_otherwise_are_renamed(folder: Path, data: Path) -> None:
    plain = data_card.open_card("toy", data, training=True, folder=folder).digest
    change(folder, "reader: alpaca\n", "reader: prompt-completion\nrename: {instruction: prompt, output: completion}\n")
    card = data_card.open_card("toy", data, training=True, folder=folder)
    assert [[turn["content"] for turn in row["messages"]] for row in card.rows()] == [
        ["Say train-1.", "train-1"],
        ["Say train-2.", "train-2"],
    ]
    assert card.digest != plain
    change(folder, "rename: {instruction:", "rename: {question:")
    with pytest.raises(DataError, match="rename: question is not among columns"):
        data_card.load("toy", folder)


def test_a_set_that_is_held_out_is_refused_before_anything_is_read(folder: Path) -> None:
    change(folder, "  train: {role: train, files: [toy/train-*.jsonl], seen: false}\n", "")
    data_card.check("toy", training=False, folder=folder)
    with pytest.raises(DataError, match="every split is held out, so no training stage may read it"):
        data_card.check("toy", training=True, folder=folder)
