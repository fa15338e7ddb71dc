"""A profile is a demand: what the machine lacks stops the run, and batches divide exactly."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment import hardware
from alignment.errors import HardwareError

ROOT = Path(__file__).parents[2]
THREADS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "ACCELERATE_USE_CPU")


@pytest.fixture(autouse=True)
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("os.environ", {n: v for n, v in os.environ.items() if n not in ("WORLD_SIZE", "RANK", *THREADS)})


@given(batch=st.integers(1, 4096), length=st.integers(1, 8192), tokens=st.integers(1, 65536), processes=st.integers(1, 16))
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


@pytest.mark.parametrize(
    ("flags", "dtype", "reason"),
    [
        ({"avx2", "amx_bf16"}, "bfloat16", "CPU with amx_bf16"),
        ({"asimd", "bf16"}, "bfloat16", "CPU with bf16"),
        ({"avx2"}, "float32", "CPU without native bfloat16"),
    ],
)
def test_the_dtype_comes_with_its_reason(monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: str, reason: str) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: flags)
    machine = hardware.prepare("cpu")
    assert (machine.dtype, machine.dtype_reason) == (dtype, reason)


@pytest.mark.parametrize(("said", "threads"), [("threads: 3\n", 3), ("", 1)])
def test_threads_of_the_profile_win_over_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, threads: int
) -> None:
    monkeypatch.setattr(hardware, "PROFILES", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "profile.yaml").write_text(f"device: cpu\nmicro_tokens: 64\n{said}")
    os.environ["OMP_NUM_THREADS"] = "1"  # as accelerate launch does
    assert hardware.prepare("mine").threads == threads
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


def test_a_profile_is_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "PROFILES", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "profile.yaml").write_text("device: cpu\nmicro_tokens: true\nmicro_token: 3\n")
    with pytest.raises(HardwareError, match=r"(?s)micro_tokens: .*valid integer.*micro_token: .*mean 'micro_tokens'"):
        hardware.read("mine")


def test_who_shards_is_read_from_the_launchers_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.is_sharded("8x80gb")
    assert not hardware.is_sharded("cpu-2")
    monkeypatch.setattr(hardware, "PROFILES", tmp_path)
    for name, more in (("one", ""), ("two", "processes: 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "profile.yaml").write_text(f"device: cpu\nmicro_tokens: 64\n{more}")
    assert not hardware.is_sharded("one")  # needs no launcher
    with pytest.raises(HardwareError, match=r"accelerate\.yaml: missing"):
        hardware.is_sharded("two")


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


def test_short_rows_on_a_cpu_are_trained_with_plain_attention() -> None:
    cpu = hardware.prepare("cpu")
    assert hardware.attention(cpu, hardware.SHORT) == hardware.SHORT_KERNEL
    assert hardware.attention(cpu, hardware.SHORT + 1) == hardware.attention(cpu) == "sdpa"
    assert hardware.attention(replace(cpu, device="cuda"), 8) == "sdpa"
    assert hardware.attention(replace(cpu, attention="flash_attention_2"), 8) == "flash_attention_2"


def test_a_cluster_says_what_its_executor_needs() -> None:
    slurm = {"executor": "slurm", "workers": 8, "partition": "cpu", "hours": 2}
    hardware.Cluster(**slurm, sbatch={"account": "me"})
    hardware.Cluster(executor="ray", workers=8)
    for wrong in ({"partition": None}, {"hours": None}, {"executor": "ray"}):
        with pytest.raises(ValueError, match="go with executor: slurm"):
            hardware.Cluster(**{**slurm, **wrong})
