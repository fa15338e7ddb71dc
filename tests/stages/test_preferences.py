"""Preferences from a tiny model: every answer is kept with its verdict, pairs hand over to DPO, no pair is an error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignment import recipe
from alignment.errors import DataError
from alignment.generate import engine
from alignment.models import build
from alignment.posttrain import mixture, preferences
from alignment.posttrain import pairs as preference
from alignment.run import Run
from tests import tiny
from tests.tiny import CPU

pytestmark = pytest.mark.slow


def problem(i: int, split: str, kind: str = "number") -> dict[str, Any]:
    about = {"tests": "", "entry_point": "", "split": split, "language": "en", "domain": "curriculum-math"}
    return {"id": f"{split}-{i}", "prompt": f"{i} + 1?", "kind": kind, "target": str(i + 1), **about}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model and problems, as finished runs."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_start(root / "start", layers=1, width=16)
    rows = [problem(i, split) for split, n in (("train", 6), ("heldout", 3)) for i in range(n)]
    tiny.write_rows(root / "data" / "problems.jsonl", [*rows, problem(0, "train", kind="code")])
    return root


def opened(root: Path, out: Path) -> Run:
    return tiny.opened(root, out, {"start": "sft", "data": "curriculum"})


def words() -> Any:
    raw = {"stage": "preferences", "start": {"run": "start"}, "data": "data", "samples": 4, "max_new_tokens": 8}
    raw |= {"kinds": ["number", "refusal"]}
    return recipe.validate(raw, "t")


def test_samples_pairs_and_ledger_agree_and_dpo_reads_them(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def canned(self: engine.Engine, prompts: Sequence[list[int]], settings: engine.Settings, done: Any) -> Any:
        """Problem i gets i right answers, at most all."""
        answers = []
        for number, ids in enumerate(prompts):
            done(number, [])
            i = int(self.decode(ids).split()[1])
            texts = [f" so {i + 1}" + "!" * n if n < i else f" so {i}" + "!" * n for n in range(settings.samples)]
            answers.append([engine.Completion(text, [0], None, "stop") for text in texts])
        return answers

    monkeypatch.setattr(engine.Engine, "generate", canned)
    here = opened(world, tmp_path)
    numbers = preferences.collect(words(), here, CPU)
    assert here.manifest["chat_template"] == "deepseek-llm"
    pairs = list(mixture.load(tmp_path / "pairs.jsonl"))
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["outcomes"] == {"number: all right": 2, "number: all wrong": 2, "number: paired": 5}
    assert ledger["dropped"] == {"kind code": 1}
    assert numbers["pairs"] == len(pairs) == 3
    assert numbers["heldout_pairs"] == len(list(mixture.load(tmp_path / "heldout_pairs.jsonl"))) == 2
    assert numbers["right_share"] == pytest.approx((0 + 1 + 2 + 3 + 4 + 4 + 0 + 1 + 2) / 36)
    samples = list(mixture.load(tmp_path / "samples.jsonl"))
    verdicts = {(one["problem"], one["answer"]): one["correct"] for one in samples}
    assert len(samples) == 36
    for pair in pairs:
        name = pair["id"].rpartition("-")[0]
        assert verdicts[name, pair["chosen"]]
        assert not verdicts[name, pair["rejected"]]
    kept, dropped, *_ = preference.tokenise(pairs, build.read_tokenizer(world / "start" / "model"), 64)
    assert len(kept) == 3
    assert not dropped


def test_problems_without_a_held_out_part_are_refused_before_sampling(world: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    mixture.save(tmp_path / "data" / "problems.jsonl", [problem(1, "train")])
    (tmp_path / "start").symlink_to(world / "start")
    with pytest.raises(DataError, match="no held-out problems"):
        preferences.collect(words(), opened(tmp_path, tmp_path / "out"), CPU)
    assert not (tmp_path / "out" / "samples.jsonl").exists()


def test_no_pair_is_an_error_that_says_why(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no question got both.*all wrong"):
        preferences.collect(words(), opened(world, tmp_path), CPU)
    assert len(list(mixture.load(tmp_path / "samples.jsonl"))) == 36
