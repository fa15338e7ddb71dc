"""`python -m eval` as `accelerate launch` runs it on two CPU processes: the scores and answers of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from alignment import terminal
from alignment.hardware import PROFILES
from eval import __main__ as command
from eval import journal
from tests import tiny

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TASKS = "mini-gsm8k,mini-ceval"
WAYS = {"drawn": ["--form", "chat", "--samples", "3", "--temperature", "0.8"], "greedy": ["--form", "completion"]}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root of its own, with a tiny model whose logits lie apart: rounding decides nothing."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / PROFILES, root / PROFILES)
    tiny.write_start(root)
    weights = load_file(root / "model/model.safetensors")
    save_file({name: weight * (10 if weight.ndim == 2 else 1) for name, weight in weights.items()},
              root / "model/model.safetensors", metadata={"format": "pt"})  # fmt: skip
    asked = [{"question": f"Why {i % 11}?", "answer": f"#### {i}", "language": "en"} for i in range(13)]  # two come twice
    choices = [{"question": f"Pick {i}", "id": str(i), "answer": "ABCD"[i % 4], "subject": "s", "language": "en"}
               | dict.fromkeys("ABCD", "x") for i in range(9)]  # fmt: skip
    for name, rows in {"mini-gsm8k/train": asked[:4], "mini-gsm8k/test": asked, "mini-ceval/dev": choices[:1],
                       "mini-ceval/val": choices}.items():  # fmt: skip
        tiny.write_rows(root / f"data/{name}.jsonl", rows)
    return root


def words(way: str, out: str) -> list[str]:
    return ["model", "--tasks", TASKS, "--data-root", "data", *WAYS[way], "--out", out]


def launched(root: Path, asked: list[str]) -> str:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(PROFILES / "cpu-2/accelerate.yaml")]
    settings = {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    found = subprocess.run([*launch, "-m", "eval", *asked, "--on", "cpu-2"], cwd=root, env={**os.environ, **settings},
                           capture_output=True, text=True, timeout=600)  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def report(out: Path) -> Any:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_score_what_one_does(project: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    said = launched(project, words(way, f"two-{way}"))
    assert said.count(f"two-{way}/report.json") == 1, "one process speaks"
    monkeypatch.chdir(project)
    one, two = Path(f"one-{way}"), Path(f"two-{way}")
    assert terminal.guarded(lambda: command.run_command([*words(way, str(one)), "--on", "cpu"]), resumes=False) == 0
    assert report(two) == report(one)
    for task in TASKS.split(","):
        first, second = (journal.read_rows(out / f"samples/{task}.jsonl") for out in (one, two))
        scored = [(a.pop("answer"), b.pop("answer")) for a, b in zip(first, second, strict=True)]
        assert second == first
        for here, there in scored:
            assert there == (here if isinstance(here, str) else pytest.approx(here, abs=1e-4))
        keys = [{row["key"] for row in journal.read_rows(out / f"answers/{task}.jsonl")} for out in (one, two)]
        assert keys[0] == keys[1]
    if way == "drawn":
        twice = [row["samples"] for row in journal.read_rows(one / "samples/mini-gsm8k.jsonl")][:13:11]
        assert twice[0] != twice[1], "a question that comes again is drawn anew"
    assert not list(two.glob("answers/*.rank*"))
