"""The whole quickstart, small: every stage is killed in the middle, refused, resumed and sealed; then damaged.

Budgets are tiny, so no score is asserted: the seams are, and that the loss falls.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment import experiment, recipe, run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CHOICE = "shares={choice: 0.7, math: 0.1, code: 0.1, talk: 0.05, refusal: 0.05}"  # its format is learnt first: pairs
SMALL = {
    "curriculum": ["documents=1500", "instructions=700", "problems=80", "heldout_problems=40", "heldout_items=16", CHOICE],
    "corpus": ["bytes=400000", "data.1.limit_bytes=300000", "data.2.limit_bytes=300000"],
    "tokenizer": ["vocab_size=1024", "sample_bytes=200000"],
    "shards": [],
    "pretrain": ["model={layers: 2, width: 64, heads: 2}", "tokens=120000", "checkpoint_every=10", "log_every=5"],
    "mixture": [],
    "sft": ["optim.epochs=4", "optim.learning_rate=3e-3"],
    "preferences": ["kinds=[choice]", "max_new_tokens=16"],
    "dpo": [],
    "evaluate": ["limit=4"],
}


def command(name: str, runs: Path, *extra: str) -> list[str]:
    edits = [word for edit in SMALL[name] for word in ("--set", edit)]
    recipe = f"recipes/quickstart/{name}.yaml"
    return [sys.executable, "-m", "alignment", "run", recipe, "--runs", str(runs), *edits, *extra]


def call(name: str, runs: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(name, runs, *extra), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def kill_in_the_middle(name: str, runs: Path) -> None:
    """Start a stage, wait until it works (a training stage: until it has learnt something), and kill it hard."""
    place = runs / "quickstart" / name
    process = subprocess.Popen(
        command(name, runs), cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )
    begun = place / ("metrics.jsonl" if name in recipe.TRAINING else run.MANIFEST)
    while not begun.exists():
        assert process.poll() is None, f"{name} ended before it began"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_every_stage_survives_a_kill_and_the_chain_stands(tmp_path: Path) -> None:
    order = [item.name for item in experiment.plan(ROOT / "recipes" / "quickstart")]
    assert sorted(order) == sorted(SMALL)
    for name in order:
        place = tmp_path / "quickstart" / name
        kill_in_the_middle(name, tmp_path)
        if not run.read_manifest(place)["finished"]:  # a stage of a few milliseconds may have been quicker
            refused = call(name, tmp_path)
            assert refused.returncode == 2, refused.stdout
            assert "--resume" in refused.stderr
            assert "Traceback" not in refused.stderr
        resumed = call(name, tmp_path, "--resume")
        assert resumed.returncode == 0, f"{name}:\n{resumed.stdout}\n{resumed.stderr}"
        run.read(place)

    losses = [json.loads(line) for line in (tmp_path / "quickstart/pretrain/metrics.jsonl").read_text().splitlines()]
    assert losses[-1]["loss"] < losses[0]["loss"] - 0.5
    sealed = run.read(tmp_path / "quickstart" / "sft").numbers
    assert sealed["validation_loss"] < sealed["validation_loss_before"]
    for page in ("report.json", "report.md", "report.html"):
        assert (tmp_path / "quickstart" / "evaluate" / page).stat().st_size > 1000
    again = call("dpo", tmp_path)
    assert again.returncode == 0
    assert "skipped" in again.stdout

    weights = next((tmp_path / "quickstart" / "sft" / "model").glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = call("dpo", tmp_path)
    assert damaged.returncode == 2
    assert "content was changed" in damaged.stderr
    assert "Traceback" not in damaged.stderr
