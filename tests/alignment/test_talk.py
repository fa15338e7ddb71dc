"""Talking in the terminal: turns are remembered, and the answer fits whatever context the model has."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment import talk
from alignment.generate.engine import Engine
from tests import tiny


@pytest.fixture
def model(tmp_path: Path) -> str:
    tiny.write_start(tmp_path)
    return str(tmp_path / "model")


def converse(model: str, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> list[tuple[list[int], int]]:
    """Say some lines; return what the engine was asked each time: prompt, longest answer."""
    asked: list[tuple[list[int], int]] = []
    generate = Engine.generate

    def spy(self, prompts, settings):  # type: ignore[no-untyped-def]
        asked.append((prompts[0], settings.max_new_tokens))
        return generate(self, prompts, settings)

    lines = iter([*said, ""])
    monkeypatch.setattr(Engine, "generate", spy)
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    talk.converse(model, temperature=0.0, max_new_tokens=100_000, profile="cpu")
    return asked


def test_an_answer_is_never_longer_than_the_context_leaves_room_for(model, monkeypatch, capsys):
    ((prompt, longest),) = converse(model, monkeypatch, ["hello"])
    assert len(prompt) + longest == 128  # tiny's context
    assert "begins anew" not in capsys.readouterr().out


def test_a_conversation_that_fills_the_context_begins_anew(model, monkeypatch, capsys):
    asked = converse(model, monkeypatch, ["a b " * 5000, "hello"])
    assert "begins anew" in capsys.readouterr().out
    assert len(asked[1][0]) < 100  # the long turn is forgotten
