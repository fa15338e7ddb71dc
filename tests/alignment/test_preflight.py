"""`check` says what a pre-training recipe amounts to before anything is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment import experiment, preflight, tokenizer
from alignment.__main__ import app
from alignment.errors import RecipeError

ROOT = Path(__file__).parents[2]


def check(*words: str) -> str:
    found = CliRunner().invoke(app, ["check", *words])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize(("size", "parameters", "operations", "updates", "profile"), [
    ("7b", "6,910,365,696", "4.247e+10", "211,927", "8x80gb"),
    ("67b", "67,425,001,472", "4.327e+11", "105,963", "nodes-32x8x80gb"),
])  # fmt: skip
def test_the_papers_models_are_forecast(
    size: str, parameters: str, operations: str, updates: str, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    said = check(f"recipes/deepseek-llm-{size}", "--on", profile)
    assert f"{parameters} parameters, vocabulary 102,400" in said
    assert f"{operations} FLOPs a token" in said
    assert f"{updates} updates" in said
    for part in (profile, "weights", "gradients", "optimizer", "activations", "logits"):
        assert part in said


def test_memory_is_counted_for_the_profile_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (line,) = (row for row in check("recipes/ladder/3m.yaml", "--on", "gpu-24gb").splitlines() if "pass(es)" in row)
    assert line.strip().startswith("gpu-24gb: 1 process(es), 4 pass(es) of 7 sequence(s)")


def test_a_recipe_whose_vocabulary_nobody_gives_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    alone = tmp_path / "3m.yaml"
    alone.write_text((ROOT / "recipes/ladder/3m.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (item,) = experiment.plan(alone)
    with pytest.raises(RecipeError, match=r"shards\.yaml is not there, so the vocabulary is not known"):
        preflight.forecast(item, "cpu")


def test_a_forecast_loads_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from alignment import experiment, preflight;"
        "[item] = experiment.plan(Path('recipes/deepseek-llm-7b/pretrain.yaml'));"
        "print(preflight.forecast(item, '8x80gb'));"
        "assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_digits_stay_single_unless_a_recipe_lets_them_join() -> None:
    words = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa"
    texts = [f"{number} {number} {number}" for number in range(100, 130)] * 3 + [words] * 5
    split, merged = (tokenizer.learn(texts, 304, "deepseek-llm", way) for way in ("split", "merged"))
    assert split.encode("123 + 4", add_special_tokens=False).tokens[:3] == ["1", "2", "3"]
    assert len(merged.encode("123", add_special_tokens=False).ids) < 3
    assert "".join(merged.encode("x123y", add_special_tokens=False).tokens) == "x123y"
