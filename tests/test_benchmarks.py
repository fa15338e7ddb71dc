"""A benchmark says what it lacks instead of measuring something else, and explains itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from alignment import tokenizer

ROOT = Path(__file__).parents[1]


def started(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"benchmarks/{name}.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize(("name", "words", "complaint"), [
    ("decontamination", ["FOLDER/none.jsonl"], "none.jsonl: no such file"),
    ("corpus", ["FOLDER/none.jsonl"], "none.jsonl: no such file"),
    ("corpus_sample", ["--data-root", "FOLDER/none", "--out", "FOLDER/out.jsonl"], "none/corpus: no .jsonl or .txt file"),
    ("tokenizer", ["--data-root", "FOLDER/none"], "none/corpus: no .jsonl file"),
])  # fmt: skip
def test_what_is_not_there_is_said_and_nothing_is_measured(
    tmp_path: Path, name: str, words: list[str], complaint: str
) -> None:
    done = started(name, *(word.replace("FOLDER", str(tmp_path)) for word in words))
    assert done.returncode
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention_on_cpu", "bf16_on_cpu", "gqa", "loss_memory"])
def test_a_benchmark_explains_itself(name: str) -> None:
    done = started(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.slow
def test_too_few_pairs_for_the_updates_are_said(tmp_path: Path) -> None:
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer.write(Tokenizer(models.BPE(vocab=alphabet, merges=[])), tmp_path / "model", "deepseek-llm")
    pair = {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"}}
    (tmp_path / "preference").mkdir()
    file = tmp_path / "preference" / "dpo_en_demo.json"
    file.write_text(json.dumps([pair | {"rejected": {"from": "gpt", "value": "No" * i}} for i in range(1, 8)]))
    done = started("dpo", "--model", tmp_path / "model", "--data-root", tmp_path, "--updates", "2")
    assert done.returncode
    assert "7 of its 7 pairs have sides of at most 512 tokens; 2 updates need 8." in done.stderr
    assert "Traceback" not in done.stderr
    assert "pairs per CPU second" not in done.stdout
