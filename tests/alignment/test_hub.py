"""Pinning: a hub name is resolved once, and exactly one line of the file changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment import data_card, hub
from alignment.errors import HubError
from tests import fake_hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub that knows SmolLM2 and GSM8K."""
    known = {"models/HuggingFaceTB/SmolLM2-135M-Instruct": {}, "datasets/openai/gsm8k": {}}
    with fake_hub.serve(known) as found:
        monkeypatch.setenv("HF_ENDPOINT", found)
        yield found


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize("name", ["recipes/smollm2-135m/sft.yaml", "data_cards/gsm8k.md"])
def test_pinning_changes_the_revision_and_nothing_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / Path(name).name
    text = (ROOT / name).read_text(encoding="utf-8")
    before = re.sub(r"revision: '?[0-9a-f]{40}'?", "revision: unpinned", text)  # someone may have pinned it
    path.write_text(before, encoding="utf-8")
    assert hub.pin(path)[1] == fake_hub.COMMIT
    after = path.read_text(encoding="utf-8")
    assert after == before.replace("revision: unpinned", f"revision: {fake_hub.COMMIT}")
    assert after != before
    with pytest.raises(HubError, match="is pinned to 0123456789abcdef"):
        hub.pin(path)


@pytest.mark.usefixtures("address")
def test_a_pinned_card_loads(tmp_path: Path) -> None:
    text = (ROOT / "data_cards" / "gsm8k.md").read_text(encoding="utf-8")
    (tmp_path / "gsm8k.md").write_text(re.sub(r"revision: '?[0-9a-f]{40}'?", "revision: unpinned", text), encoding="utf-8")
    hub.pin(tmp_path / "gsm8k.md")
    assert data_card.load("gsm8k", tmp_path).revision == fake_hub.COMMIT


@pytest.mark.usefixtures("address")
def test_an_unknown_name_is_one_sentence_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sft.yaml"
    path.write_text("stage: sft\nstart: {hub: no/body, revision: unpinned}\n", encoding="utf-8")
    with pytest.raises(HubError, match="no/body: the hub does not answer, or does not know it"):
        hub.pin(path)
    assert "unpinned" in path.read_text(encoding="utf-8")


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    path = tmp_path / "sft.yaml"
    path.write_text("start:\n  hub: some/body\n  revision: unpinned\n", encoding="utf-8")
    with pytest.raises(HubError, match="some/body: the hub does not answer"):
        hub.pin(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("stage: sft\nstart: {run: pretrain}\n", "nothing to pin"),
        ("stage: sft\n", "nothing to pin"),
        ("- 1\n", "nothing to pin"),
        ("start: {hub: a/b, revision: unpinned}\nother: {revision: unpinned}\n", "stands 2 times"),
    ],
)
def test_a_file_without_one_place_to_pin_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HubError, match=complaint):
        hub.pin(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"absent\.yaml: no such file\. Name a data card \(\.md\) or a recipe"):
        hub.pin(tmp_path / "absent.yaml")


def test_what_the_transport_says_is_repeated_without_the_token() -> None:
    token = "hf_" + "a1" * 16
    with pytest.raises(HubError) as found, data_card.asking_hub("some/body"):
        raise OSError(f"Illegal header value b'Bearer {token} ', sent {token}")
    assert token not in str(found.value)
    assert "Illegal header value b'Bearer *** '" in str(found.value)
