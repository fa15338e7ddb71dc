"""A profile is a demand: what the machine lacks stops the run, and batches divide exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment import hardware
from alignment.errors import HardwareError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)


@given(
    batch=st.integers(1, 4096), length=st.integers(1, 8192), tokens=st.integers(1, 65536), processes=st.integers(1, 16)
)
def test_the_batch_is_exact_on_every_machine(batch: int, length: int, tokens: int, processes: int) -> None:
    profile = hardware.Profile(device="cpu", micro_tokens=tokens, processes=processes)
    if batch % processes:
        with pytest.raises(HardwareError, match="cannot be divided"):
            hardware.split(profile, batch, length)
    else:
        micro, passes = hardware.split(profile, batch, length)
        assert micro * passes * processes == batch
        assert micro == 1 or micro * length <= tokens


def test_more_processes_than_started_is_refused_with_the_command() -> None:
    with pytest.raises(HardwareError, match=r"accelerate launch --config_file recipes/hardware/cpu-2/accelerate\.yaml"):
        hardware.prepare("cpu-2")


def test_more_processes_than_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HardwareError, match="2 started"):
        hardware.prepare("cpu")


def test_another_number_found_by_the_launcher_is_refused() -> None:
    with pytest.raises(HardwareError, match="accelerate runs 3"):
        hardware.check_processes(hardware.prepare("cpu"), 3)


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(HardwareError, match="cpu-2"):
        hardware.prepare("cpuu")


def test_the_dtype_comes_with_its_reason() -> None:
    machine = hardware.prepare("cpu")
    assert (machine.dtype == "bfloat16") == ("CPU with" in machine.dtype_reason)


@pytest.mark.parametrize("kernel", ["flash_attention_2", hardware.HUB_KERNEL])
def test_an_absent_kernel_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    monkeypatch.setattr(hardware, "find_spec", lambda _: None)
    with pytest.raises(HardwareError, match="sdpa"):
        hardware._need_attention(kernel, "gpu-80gb")


def test_a_missing_gpu_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(HardwareError, match="CUDA"):
        hardware.prepare("gpu-24gb")
