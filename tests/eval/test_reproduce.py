"""A released model beside its published scores: asked under its hub name, from local copies, and the table says both."""

from __future__ import annotations

import json
import re

import pytest

from alignment import manifest, recipe, run
from alignment.errors import DataError, RecipeError
from alignment.hardware import Hardware
from eval import reproduce

MACHINE = Hardware("cpu", "cpu", "float32", "tests", "sdpa", 4096, False, 1, 1)
COMMIT = "0" * 40
RAW = {"stage": "reproduce", "start": {"hub": "org/model", "revision": COMMIT}, "form": "completion"}


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "data" / "mini-gsm8k"
    place.mkdir(parents=True)
    rows = [{"question": f"What is {i}?", "answer": f"It is so.\n#### {i}", "unseen": False} for i in range(20)]
    for split in ("train", "test"):
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


@pytest.fixture
def opened(scripted, monkeypatch):
    """A model that is right about the even numbers."""
    asked = []

    def say(prompt):
        number = int(re.findall(r"What is (\d+)", prompt)[-1])
        return f"The answer is {number - number % 2}."

    monkeypatch.setattr("alignment.generate.engine.load", lambda source, _: asked.append(source) or scripted(say))
    return asked


def begin(path, root):
    plan = manifest.compose(words={**RAW, "seed": 0}, inputs={}, cards={}, hardware={})
    return run.begin(path, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="", data_root=root)


def test_both_scores_and_where_the_published_one_lies(tmp_path, root, opened):
    words = recipe.validate(RAW | {"published": {"mini-gsm8k": 90.0}}, "test")
    live = begin(tmp_path / "run", root)
    assert reproduce.run(words, live, MACHINE) == {"mini-gsm8k": 50.0, "mini-gsm8k.published": 90.0}
    assert opened == [f"org/model@{COMMIT}"]
    table = (live.path / "table.md").read_text()
    assert re.search(r"mini-gsm8k \| \d+ \| 20 \| 90.0 \| 50.0 \(\d+\.\d to \d+\.\d\) \| -40.0 \| outside", table)
    near = recipe.validate(RAW | {"published": {"mini-gsm8k": 55.0}}, "test")
    reproduce.run(near, live, MACHINE)  # the answers are there: marked again, not asked again
    assert "-5.0 | inside" in (live.path / "table.md").read_text()


def test_without_data_nothing_is_loaded(tmp_path, opened):
    words = recipe.validate(RAW | {"published": {"mini-gsm8k": 90.0}}, "test")
    with pytest.raises(DataError, match="mini-gsm8k"):
        reproduce.run(words, begin(tmp_path / "run", tmp_path / "nothing"), MACHINE)
    assert opened == []


@pytest.mark.parametrize("published", [{}, {"mini-gsm8k": 101.0}])
def test_a_published_score_is_a_percentage(published):
    with pytest.raises(RecipeError, match="published"):
        recipe.validate(RAW | {"published": published}, "test")
