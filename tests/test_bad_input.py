"""Bad input at the command line: a clear error, exit code 2, no traceback, nothing that passes for finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignment import run

ROOT = Path(__file__).parents[1]
CORPUS = "stage: corpus\ndata: [{installed: stdlib, limit_bytes: 200000}]\nshares: {code: 1}\nbytes: 100000\n"
SFT = "stage: sft\nmax_length: 64\noptim: {learning_rate: 1e-5, batch_size: 2}\n"


def run_recipe(folder: Path, text: str, *words: str, name: str = "stage") -> tuple[subprocess.CompletedProcess[str], Path]:
    recipes = folder / "recipes" / "bad"
    recipes.mkdir(parents=True, exist_ok=True)
    (recipes / f"{name}.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "alignment", "run", str(recipes / f"{name}.yaml"), "--runs", str(folder / "runs"), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done, folder / "runs" / "bad" / name


def refused(done: subprocess.CompletedProcess[str], place: Path, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    assert said.count("error:") == 1
    for word in words:
        assert word in said, said
    assert not run.is_run(place) or not run.read_manifest(place)["finished"]


CASES = {
    "misspelt field": (CORPUS + "max_epoch: 2\n", ("max_epoch", "'max_epochs'")),
    "wrong type": (CORPUS.replace("100000\n", "many\n"), ("bytes", "'many'")),
    "missing run": (CORPUS + "against: curriculum\n", ("curriculum", "no run.json here")),
    "missing card": (CORPUS.replace("installed: stdlib", "card: nope"), ("nope", "card")),
    "missing data": (CORPUS.replace("installed: stdlib", "card: docs-cn"), ("docs-cn", "--data-root")),
    "held-out card": (SFT + "start: {folder: x}\ndata: [{card: humaneval}]\n", ("humaneval", "held")),
    "everything filtered": (CORPUS + "filters: {min_characters: 99999999}\n", ("shorter than 99999999 characters", "filters:")),
    "no share": (CORPUS.replace("{code: 1}", "{code: 0}"), ("shares",)),
    "hub without revision": (SFT + "start: {hub: a/b}\ndata: [{run: x}]\n", ("start", "revision")),
    "no model folder": (SFT + "start: {folder: nowhere}\ndata: [{installed: stdlib}]\n", ("nowhere", "no model here")),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused(tmp_path: Path, name: str) -> None:
    text, words = CASES[name]
    refused(*run_recipe(tmp_path, text), *words)


def test_an_unpinned_hub_model_names_the_pin_command(tmp_path: Path) -> None:
    text = SFT + "start: {hub: a/b, revision: unpinned}\ndata: [{installed: stdlib}]\n"
    refused(*run_recipe(tmp_path, text), "python -m alignment pin")


def test_more_processes_than_started_are_refused(tmp_path: Path) -> None:
    refused(*run_recipe(tmp_path, CORPUS, "--on", "cpu-2"), "accelerate launch", "1 started")


def test_a_folder_that_is_not_the_projects_root_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alignment", "check", "x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "project's root" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_a_full_disk_is_said_and_nothing_passes_for_finished(tmp_path: Path) -> None:
    """On a tmpfs of 64 KiB, mounted in a namespace of its own where we are not root."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here to mount a small tmpfs")
    small = tmp_path / "runs"
    small.mkdir()
    recipe = tmp_path / "recipes" / "bad" / "stage.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(CORPUS, encoding="utf-8")
    inside = (
        f"mount -t tmpfs -o size=64k none {small} || exit 77; "
        f"{sys.executable} -m alignment run {recipe} --runs {small}; code=$?; "
        f"cp {small}/bad/stage/run.json {tmp_path}/left.json; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this machine does not let us mount a tmpfs")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "disk is full" in done.stdout
    assert "Traceback" not in done.stderr
    assert '"finished": false' in (tmp_path / "left.json").read_text()
