"""Bad input at the command line: a clear error, exit code 2, no traceback, nothing that passes for finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from alignment import manifest, run, terminal, tokenizer

ROOT = Path(__file__).parents[1]
CORPUS = "stage: corpus\ndata: [{installed: stdlib, limit_bytes: 200000}]\nshares: {code: 1}\nbytes: 100000\n"
SFT = "stage: sft\nmax_length: 64\noptim: {learning_rate: 1e-5, batch_size: 2}\n"


def run_recipe(folder: Path, text: str, *words: str, root: Path = ROOT) -> tuple[subprocess.CompletedProcess[str], Path]:
    recipes = folder / "recipes" / "bad"
    recipes.mkdir(parents=True, exist_ok=True)
    (recipes / "stage.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "alignment", "run", str(recipes / "stage.yaml"), "--runs", str(folder / "runs"), *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done, folder / "runs" / "bad" / "stage"


def refused(done: subprocess.CompletedProcess[str], place: Path, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stderr.split())
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
    "everything filtered": (CORPUS + "filters: {min_characters: 99999999}\n", ("shorter than 99999999", "filters:")),
    "no share": (CORPUS.replace("{code: 1}", "{code: 0}"), ("shares",)),
    "hub without revision": (SFT + "start: {hub: a/b}\ndata: [{run: x}]\n", ("start", "revision")),
    "no revision that can be": (SFT + "start: {hub: a/b, revision: main}\ndata: [{run: x}]\n", ("start.revision", "'main'")),
    "unpinned hub model": (
        SFT + "start: {hub: a/b, revision: unpinned}\ndata: [{card: alpaca-en}]\n",
        ("python -m alignment pin", "bad/stage.yaml` once"),
    ),
    "no model folder": (SFT + "start: {folder: nowhere}\ndata: [{run: made}]\n", ("nowhere", "no model here")),
    "empty corpus": (CORPUS.replace("installed: stdlib, limit_bytes: 200000", "run: made"), ("made gave no document",)),
    "missing file": (CORPUS.replace("installed: stdlib", "run: holed"), ("notes.txt: missing, though the run is sealed",)),
    "a task without labels": (
        "stage: evaluate\nmodels: [{run: sft, form: chat}]\ntasks: [ceval-test]\ndata: made\n",
        ("ceval-test has no labels", "python -m eval"),
    ),
    "another template": (
        "stage: mixture\nmax_length: 64\nstart: {folder: FOLDER/model}\ntemplate: chatml\ndata: [{run: made}]\n",
        ("the recipe says template 'chatml'", "renders other text"),
    ),
}


TORCH = "another template"  # loads a model


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name == TORCH else []) for name in CASES])
def test_bad_input_is_refused(tmp_path: Path, name: str) -> None:
    text, words = CASES[name]
    prepare(tmp_path)
    refused(*run_recipe(tmp_path, text.replace("FOLDER", str(tmp_path))), *words)


def prepare(folder: Path) -> None:
    """A sealed run with a corpus of nothing, one whose file was removed since, and a model folder without weights."""
    for name in ("made", "holed"):
        words = {"stage": "corpus", "seed": 0}
        plan = manifest.compose(words=words, inputs={}, cards={}, hardware={})
        place = folder / "runs" / "bad" / name
        here = run.begin(place, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
        for file in ("documents.jsonl", "instructions.jsonl", "notes.txt"):
            (place / file).write_text("")
        run.finish(here, {})
    (folder / "runs" / "bad" / "holed" / "notes.txt").unlink()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.write(core, folder / "model", "deepseek-llm")


def test_a_card_without_a_reader_is_refused(tmp_path: Path) -> None:
    """In a project's root of its own: the command looks for cards where it stands."""
    for name in ("recipes", "data_cards"):
        (tmp_path / name).mkdir()
    (tmp_path / "recipes" / "hardware").symlink_to(ROOT / "recipes" / "hardware")
    card = (ROOT / "data_cards" / "alpaca-en.md").read_text(encoding="utf-8")
    (tmp_path / "data_cards" / "mute.md").write_text(card.replace("reader: alpaca\n", ""), encoding="utf-8")
    text = CORPUS.replace("installed: stdlib", "card: mute")
    refused(*run_recipe(tmp_path, text, root=tmp_path), "data_cards/mute.md: reader: missing", "alpaca")


def test_an_error_goes_to_stderr_and_names_resume_only_where_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    assert terminal.guarded(interrupt, resumes=True) == 130
    assert "--resume" in capsys.readouterr().err
    assert terminal.guarded(interrupt, resumes=False) == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "interrupted.\n")


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
    assert "project's root" in " ".join(done.stderr.split())


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
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"finished": false' in (tmp_path / "left.json").read_text()
