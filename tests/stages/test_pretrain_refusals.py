"""What pre-training refuses: data, recipes, machines and checkpoints that cannot be meant. A clear error each."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignment import manifest, recipe, run, tokenizer
from alignment.corpus import shards
from alignment.errors import DataError, HardwareError, RecipeError, RunError
from alignment.pretrain import checkpoint, loop, watch
from tests.stages.test_pretrain import CPU, RECIPE, begin, write_shards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


BAD = {
    "data exhausted": ({"max_epochs": 0.5}, DataError, "the text would be read .* times, max_epochs is 0.5"),
    "less than one update": ({"tokens": 255}, RecipeError, "less than one update of 256"),
    "a sequence longer than the text": (
        {"sequence_length": 9999, "batch_size": 1, "tokens": 9999},
        DataError,
        "do not fill",
    ),
    "a sequence longer than the model": (
        {"model": recipe.Model(preset="quickstart"), "sequence_length": 300, "batch_size": 1},
        RecipeError,
        "300 is more than the 256 positions of quickstart",
    ),
    "an unknown domain": (
        {"mixture": {"evn": 1.0}},
        RecipeError,
        "'evn' is no domain of these shards. They have: even, odd",
    ),
    "a tracker that is not there": ({"tracker": "trackio"}, RecipeError, "trackio is not installed. pip install trackio"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_that_cannot_be_trained_is_refused_before_the_first_update(data, tmp_path, monkeypatch, name):
    words, error, says = BAD[name]
    monkeypatch.setattr(watch, "find_spec", lambda _: None)
    with pytest.raises(error, match=says):
        loop.train(RECIPE.model_copy(update=words), begin(tmp_path / "run", data), CPU)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def spoil_bytes(folder: Path) -> None:
    file = folder / "train" / "00000.bin"
    file.write_bytes(file.read_bytes()[:-2])


def spoil_tokenizer(folder: Path) -> None:
    other = tokenizer.learn(["something else altogether, and more of it"] * 9, 290, "deepseek-llm")
    tokenizer.write(other, folder / "tokenizer", "deepseek-llm")


def empty(folder: Path) -> None:
    about = json.loads((folder / "train" / "shards.json").read_text())
    about["shards"][0] |= {"tokens": 0}
    about["files"]["00000.bin"]["bytes"] = 0
    (folder / "train" / "00000.bin").write_bytes(b"")
    (folder / "train" / "shards.json").write_text(json.dumps(about))


SPOILT = {
    "cut short": (spoil_bytes, "00000.bin: .* bytes, not .* as written"),
    "of another tokenizer": (spoil_tokenizer, "train: written with tokenizer .*, beside it lies"),
    "empty": (empty, "00000.bin: empty"),
    "not there": (lambda folder: (folder / "heldout" / "shards.json").unlink(), "not a finished split"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_shards_that_are_not_what_was_written_are_refused(data, tmp_path, name):
    spoil, says = SPOILT[name]
    shutil.copytree(data, tmp_path / "data")
    spoil(tmp_path / "data")
    with pytest.raises(DataError, match=says):
        loop.train(RECIPE, begin(tmp_path / "run", tmp_path / "data"), CPU)


def test_a_shard_whose_bytes_changed_is_refused_when_its_run_is_read(data, tmp_path):
    path = tmp_path / "shards"
    plan = manifest.compose(words={"stage": "shards", "seed": 0}, inputs={}, cards={}, hardware={})
    live = run.begin(path, plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
    shutil.copytree(data, path, dirs_exist_ok=True)
    run.finish(live, {})
    file = path / "train" / "00000.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(RunError, match=r"train/00000.bin: its content was changed"):
        run.read(path)
    with pytest.raises(DataError, match=r"00000.bin: changed since it was written"):
        shards.Shards.open(path, "train").verify()


def test_checkpoints_of_another_run_are_refused(data, tmp_path):
    saved = checkpoint.Checkpoints(tmp_path / "run" / "checkpoints", "theirs", main=True)
    model = torch.nn.Linear(2, 2)
    saved.save(5, model, torch.optim.AdamW(model.parameters()), {})
    saved.wait()
    with pytest.raises(RunError, match="step-5: a checkpoint of another run"):
        loop.train(RECIPE, begin(tmp_path / "run", data, resumed=True), CPU)


def test_more_processes_than_were_started_are_refused(data, tmp_path):
    with pytest.raises(HardwareError, match="2 process"):
        loop.train(RECIPE, begin(tmp_path / "run", data), replace(CPU, processes=2))


def test_a_batch_that_the_processes_cannot_share_is_refused():
    with pytest.raises(HardwareError, match="batch_size 7 cannot be divided over 2 processes"):
        loop.machine.split(replace(CPU, processes=2), 7, 32)
