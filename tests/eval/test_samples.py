from __future__ import annotations

import pytest

from eval import evaluate, samples
from eval.task import Mark
from eval.tasks import PROTOCOLS, TASKS


@pytest.mark.parametrize(
    ("task", "read", "majority"),
    [
        (PROTOCOLS["lm-eval"]["gsm8k"], ["7", "18", "7", "$18.", "18."], "18"),
        (TASKS["math"], ["3", "\\frac12", "3", "1/2", "\\frac{1}{2}"], "\\frac12"),
        (TASKS["gsm8k"], ["7", "18", "18", "7", None], "7"),
        (TASKS["ceval"], [None, "B", None, "C", "C"], "C"),
        (TASKS["gsm8k"], [None, None], None),
    ],
)
def test_readings_that_differ_in_spelling_only_vote_together(task, read, majority):
    assert samples.majority([Mark(text, text == majority) for text in read], task.same).read == majority


def test_a_hub_model_is_its_commit_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commits = {"main": "a" * 40, "v1": "b" * 40}
    for name, commit in commits.items():
        for path, text in {f"refs/{name}": commit, f"snapshots/{commit}/config.json": "{}"}.items():
            (tmp_path / "models--org--name" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "models--org--name" / path).write_text(text)
    assert evaluate.identity("org/name@main") == evaluate.identity(f"org/name@{commits['main']}")
    assert evaluate.identity("org/name@v1") == f"org/name@{commits['v1']}"
    (tmp_path / "models--org--name/refs/main").write_text(commits["v1"])
    assert evaluate.identity("org/name@main") == evaluate.identity("org/name@v1"), "the branch moved on"
