"""Checkpoints: whole or not at all, the newest whole one counts, and none of another run."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn

from alignment.errors import RunError
from alignment.pretrain import checkpoint
from alignment.pretrain.checkpoint import Checkpoints


def trained(updates: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model of two layers after some updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(updates):
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def write(folder: Path, *steps: int, fingerprint: str = "mine") -> Checkpoints:
    saved = Checkpoints(folder, fingerprint, main=True)
    for step in steps:
        saved.save(step, *trained(step), {"guard": {}})
    saved.wait()
    return saved


def newest(folder: Path, fingerprint: str = "mine") -> tuple[str | None, list[str]]:
    said: list[str] = []
    found = Checkpoints(folder, fingerprint, main=True).newest(said.append)
    return found and found.name, said


def test_weights_and_moments_come_back_exactly(tmp_path: Path) -> None:
    write(tmp_path, 3)
    model, optimizer = trained(0)
    assert checkpoint.load(tmp_path / "step-3", model, optimizer)["step"] == 3
    as_was, moments = trained(3)
    for found, wanted in zip(model.parameters(), as_was.parameters(), strict=True):
        assert torch.equal(found, wanted)
        assert all(torch.equal(optimizer.state[found][key], value) for key, value in moments.state[wanted].items())


def test_the_copy_is_taken_at_once_though_it_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, (model, optimizer) = Checkpoints(tmp_path, "mine", main=True), trained(1)
    write, later = checkpoint.save_file, Event()
    monkeypatch.setattr(checkpoint, "save_file", lambda *words: (later.wait(60), write(*words)))
    saved.save(1, model, optimizer, {"guard": {}})
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    assert newest(tmp_path) == (None, [])
    later.set()
    saved.wait()
    fresh, moments = trained(0)
    checkpoint.load(tmp_path / "step-1", fresh, moments)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), trained(1)[0].parameters(), strict=True))


def test_old_ones_and_half_written_ones_go(tmp_path: Path) -> None:
    (tmp_path / "step-3.part").mkdir()
    write(tmp_path, 2, 4, 6, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-6"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


SPOILT = {
    "a bit": (lambda path: flip(path / "tensors.safetensors"), "sha256 of tensors.safetensors"),
    "an end": (lambda path: os.truncate(path / "tensors.safetensors", 10), "tensors.safetensors has 10 bytes"),
    "a file": (lambda path: (path / "tensors.safetensors").unlink(), "No such file"),
    "the seal": (lambda path: (path / "state.json").write_text("{"), "state.json cannot be read"),
    "the format": (lambda path: (path / "state.json").write_text('{"format": "x"}'), "its format is x"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_corrupt_one_is_passed_over_and_the_reason_is_said(tmp_path: Path, what: str) -> None:
    spoil, reason = SPOILT[what]
    write(tmp_path, 5, 10)
    spoil(tmp_path / "step-10")
    name, said = newest(tmp_path)
    assert name == "step-5"
    assert len(said) == 1
    assert said[0].startswith("checkpoint step-10 is passed over")
    assert reason in said[0]
    write(tmp_path, 10)  # the run comes by again
    assert newest(tmp_path) == ("step-10", [])


def test_none_that_is_whole_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, [])
    write(tmp_path, 5)
    flip(tmp_path / "step-5" / "tensors.safetensors")
    with pytest.raises(RunError, match="no checkpoint is whole"):
        newest(tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "theirs", 5, fingerprint="theirs")
    shutil.copytree(tmp_path / "theirs", tmp_path / "mine")
    with pytest.raises(RunError, match="of another run"):
        newest(tmp_path / "mine")


def test_a_disk_that_cannot_hold_it_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = Checkpoints(tmp_path / "new", "mine", main=True)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(checkpoint.SPARE + 100))
    with pytest.raises(RunError, match="Free some space"):
        saved.save(1, *trained(1), {})
    with pytest.raises(RunError, match="a checkpoint takes"):
        saved.check_space(3)
    saved.check_space(2)  # 3 x 24 bytes
    assert not (tmp_path / "new").exists()


def test_what_goes_wrong_in_the_thread_reaches_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    saved = Checkpoints(tmp_path, "mine", main=True)
    monkeypatch.setattr(checkpoint, "save_file", full)
    saved.save(1, *trained(1), {})
    with pytest.raises(OSError, match="No space left"):
        saved.wait()
    assert newest(tmp_path) == (None, [])


def test_the_seal_names_what_it_seals(tmp_path: Path) -> None:
    write(tmp_path, 1)
    state = json.loads((tmp_path / "step-1" / "state.json").read_text())
    assert (state["step"], state["fingerprint"]) == (1, "mine")
    assert {path.name for path in (tmp_path / "step-1").iterdir()} == {*state["files"], "state.json"}
