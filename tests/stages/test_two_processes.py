"""SFT and DPO as `accelerate launch` runs them on two CPU processes: they learn what one process learns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment import manifest, run
from alignment.hardware import PROFILES
from tests import tiny

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
OPTIM = "optim: {learning_rate: 3e-3, batch_size: 8, epochs: 2, warmup: 0.1}\nmax_length: 64\nfits: [cpu, cpu-2]\n"
RECIPES = {
    "mix": "stage: mixture\nstart: {run: start}\ndata: [{run: data}]\nmax_length: 64\nvalidation: 0.1\n",
    "sft": "stage: sft\nstart: {run: start}\ndata: [{run: mix}]\n" + OPTIM,
    "dpo": "stage: dpo\nstart: {folder: runs/toy/start/model}\ndata: [{run: pairs}]\n" + OPTIM,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root of its own, whose CPU profiles compute in float32: bfloat16 would hide small differences."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / PROFILES, root / PROFILES)
    for name in ("cpu", "cpu-2"):
        with (root / PROFILES / name / "profile.yaml").open("a") as profile:
            profile.write("dtype: float32\nthreads: 1\n")
    (root / "recipes" / "toy").mkdir()
    for name, text in RECIPES.items():
        (root / "recipes" / "toy" / f"{name}.yaml").write_text(text)
    seal(root, "start", "pretrain", tiny.write_start)
    seal(root, "data", "curriculum", lambda path: tiny.write_rows(path / "instructions.jsonl", tiny.INSTRUCTIONS))
    seal(root, "pairs", "preferences", write_pairs)
    call(root, "mix", [sys.executable, "-m", "alignment"], "cpu", "runs")
    return root


def seal(root: Path, name: str, stage: str, write: Any) -> None:
    """Leave what a stage would have left."""
    plan = manifest.compose(words={"stage": stage, "seed": 0}, inputs={}, cards={}, hardware={})
    path = root / "runs" / "toy" / name
    live = run.begin(path, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
    write(path)
    run.finish(live, {})


def write_pairs(path: Path) -> None:
    tiny.write_rows(path / "pairs.jsonl", tiny.PAIRS)
    tiny.write_rows(path / "heldout_pairs.jsonl", tiny.PAIRS[:7])  # an odd number: one rank gets more


def call(root: Path, name: str, launcher: list[str], profile: str, runs: str) -> None:
    command = [*launcher, "run", f"recipes/toy/{name}.yaml", "--on", profile, "--runs", runs]
    settings = {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    found = subprocess.run(command, cwd=root, env={**os.environ, **settings}, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr


def both(root: Path, name: str) -> tuple[Path, Path]:
    """Run a recipe with one process and with two, from the same inputs."""
    shutil.copytree(root / "runs", root / f"runs-{name}")
    call(root, name, [sys.executable, "-m", "alignment"], "cpu", "runs")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(PROFILES / "cpu-2/accelerate.yaml")]
    call(root, name, [*launch, "-m", "alignment"], "cpu-2", f"runs-{name}")
    return root / "runs" / "toy" / name, root / f"runs-{name}" / "toy" / name


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_two_processes_learn_what_one_does(project: Path, name: str) -> None:
    one, two = (run.read(path) for path in both(project, name))
    assert (one.manifest["hardware"]["processes"], two.manifest["hardware"]["processes"]) == (1, 2)
    assert one.fingerprint == two.fingerprint
    first, second = tiny.metrics(one.path), tiny.metrics(two.path)
    assert len(first) == len(second) == one.numbers["updates"] == two.numbers["updates"]
    assert [row["tokens"] for row in first] == [row["tokens"] for row in second]
    for here, there in zip(first, second, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-4), here["step"]
        assert there["grad_norm"] == pytest.approx(here["grad_norm"], rel=1e-3), here["step"]
    numbers = {key: value for key, value in one.numbers.items() if "seconds" not in key}
    assert {key: two.numbers[key] for key in numbers} == pytest.approx(numbers, rel=1e-3)
    assert json.loads((two.path / "run.json").read_text())["finished"]
