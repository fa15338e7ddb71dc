"""The command line refuses in one line: where, what, and what to do; exit code 2."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from alignment import terminal
from alignment.__main__ import app

ROOT = Path(__file__).parents[2]
SEVEN = "recipes/deepseek-llm-7b"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def run(words: str) -> int:
    return terminal.guarded(lambda: app(words.split(" "), standalone_mode=False), resumes=False)


def refused(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert run(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1
    return said.err


@pytest.mark.parametrize(("words", "complaint"), [
    ("audit runs/nope", "runs/nope: no run.json here"),
    ("pin data_cards/nope.md", "data_cards/nope.md: no such file"),
    ("unpack-deepseek-llm nope.gguf out", "nope.gguf: no such file"),
    ("plan --budget 1e20 --like recipes/nope", "--like recipes/nope: no such folder"),
    ("plan --budget nan", "--budget nan: give FLOPs above 0"),
    ("plan --hours 1 --gpus 8xH100 --mfu 0", "--mfu 0: give a share of the peak above 0"),
    ("predict runs/nope --budget 0 --out p.json", "--budget 0: give FLOPs above 0"),
    ("predict runs/nope --budget 1 --out p.json", "runs/nope: no fit here. Make one"),
])  # fmt: skip
def test_a_command_refuses_what_is_not_there_or_no_amount(
    capsys: pytest.CaptureFixture[str], words: str, complaint: str
) -> None:
    assert complaint in refused(capsys, words)


def test_fit_names_the_line_that_is_no_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("[1, 2]\n")
    said = refused(capsys, f"fit {tmp_path / 'rows.jsonl'} --out {tmp_path / 'out'}")
    assert "rows.jsonl, row 1: not an object but list" in said


@pytest.mark.parametrize(("words", "complaint"), [
    ("recipes/ladder/3m.yaml --on 8x80gb --set batch_size=9", "recipes/ladder/3m.yaml: --on 8x80gb: batch_size 9 cannot be"),
    (f"{SEVEN}/sft.yaml --on nope", "--on nope: no recipes/hardware/nope/profile.yaml"),
    (f"{SEVEN}/corpus.yaml --on 8x80gb", f"{SEVEN}/corpus.yaml: --on 8x80gb starts 8 processes, the stage corpus takes one"),
    (f"{SEVEN}/sft.yaml --set adapter.base=nf4", f"{SEVEN}/sft.yaml: fits: 8x80gb shards the model (FSDP), and that does "
     "not go with adapter.base: nf4 here"),
    (f"{SEVEN}/dpo.yaml --set optim.optimizer=adamw-8bit", "does not go with optim.optimizer: adamw-8bit here"),
    (f"{SEVEN}/sft-lora.yaml --on 8x80gb", f"{SEVEN}/sft-lora.yaml: --on 8x80gb shards the model (FSDP), and that does not "
     "go with watch here"),
    (f"{SEVEN}/kto.yaml --set max_length=16384", "fits: 8x80gb: one answer a forward pass"),
])  # fmt: skip
def test_check_refuses_what_the_stage_would_under_a_profile(
    capsys: pytest.CaptureFixture[str], words: str, complaint: str
) -> None:
    assert complaint in refused(capsys, f"check {words}")


def test_check_takes_a_profile_that_fits_beyond_those_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check recipes/smollm2-135m/sft.yaml --on 8x80gb") == 0
    assert capsys.readouterr().out == "recipes/smollm2-135m/sft.yaml: sft, fits cpu, gpu-24gb, gpu-80gb, 8x80gb\n"


def test_check_says_of_every_recipe_of_a_folder_whether_several_processes_take_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder holds recipes for other machines too, and such a profile runs them one by one."""
    assert run(f"check {SEVEN} --on 8x80gb") == 0
    lines = capsys.readouterr().out.splitlines()
    after = dict(pairwise(lines))
    assert after[f"{SEVEN}/corpus.yaml: corpus, fits cpu"].startswith("  --on 8x80gb starts 8 processes")
    assert after[f"{SEVEN}/sft-lora.yaml: sft, fits gpu-80gb"].startswith("  --on 8x80gb shards the model")
    assert f"{SEVEN}/sft.yaml: sft, fits 8x80gb, nodes-2x8x80gb" in lines


@pytest.mark.parametrize(("edit", "complaint"), [
    ("blend.shares={general:_0.2496,mth:_0.3728,code:_0.1776,safety:_0.2}", "blend.shares: no card of `data` gives 'mth'. "
     "Did you mean 'math'?"),
    ("blend.shares={general:_0.4,math:_0.4,safety:_0.2}", "blend.shares: no share for code"),
    ("blend.shares.math=0.3", "blend.shares: must add up to 1, and these to 0.9272"),
    ("blend.languages={en:_0.6,zn:_0.4}", "blend.languages: no card of `data` gives 'zn'"),
    ("blend.languages={en:_1}", "blend.languages: no share for zh"),
])  # fmt: skip
def test_check_holds_the_shares_of_a_mixture_against_its_cards(
    capsys: pytest.CaptureFixture[str], edit: str, complaint: str
) -> None:
    words = ["check", f"{SEVEN}/mixture.yaml", "--set", edit.replace("_", " ")]
    assert terminal.guarded(lambda: app(words, standalone_mode=False), resumes=False) == 2
    assert f"{SEVEN}/mixture.yaml: {complaint}" in capsys.readouterr().err


def test_shares_of_what_runs_give_are_not_held_against_cards(tmp_path: Path) -> None:
    text = (ROOT / SEVEN / "mixture.yaml").read_text(encoding="utf-8").replace("data:", "data:\n  - {run: made}", 1)
    (tmp_path / "mixture.yaml").write_text(text.replace("code: 0.1776", "code: 0.1, made-up: 0.0776"), encoding="utf-8")
    assert run(f"check {tmp_path / 'mixture.yaml'}") == 0
