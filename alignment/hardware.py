"""What the machine is: device, dtype, attention kernel, micro-batch. Named here and nowhere else.

A profile (`recipes/hardware/NAME/profile.yaml`) is a demand, not a wish: what it asks for and the machine lacks stops
the run before weights load. Nothing in it may change what is learnt, only time and memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignment import recipe, schema
from alignment.errors import HardwareError

PROFILES = Path("recipes/hardware")
SHORT = 512  # tokens: up to here training on a CPU is faster without SDPA's fused kernel
SHORT_KERNEL = "short"  # models.attention
PEAK_FLOPS = {  # dense bfloat16 (V100: float16), from the makers' data sheets, without sparsity
    "V100": 125e12, "A100": 312e12, "H100": 989.4e12, "H800": 989.4e12, "H200": 989.4e12, "B200": 2250e12, "L40S": 362e12,
}  # fmt: skip
HUB_KERNEL = "kernels-community/flash-attn2"  # the kernel as a hub download, without compiling


class Cluster(schema.Words):
    """Who works on the shards of a corpus: one of datatrove's executors. All machines see the same folders."""

    executor: Literal["local", "slurm", "ray"]
    workers: schema.Positive  # tasks at a time
    partition: str | None = None  # slurm
    hours: schema.Positive | None = None  # slurm: the limit of a task
    memory_gb: schema.Positive = 4  # slurm and ray: of a task
    sbatch: dict[str, str] = Field(default_factory=dict)  # slurm: what else the site asks for (account, qos)

    @model_validator(mode="after")
    def _whole(self) -> Cluster:
        slurm = self.executor == "slurm"
        if bool(self.partition) != slurm or bool(self.hours) != slurm or (self.sbatch and not slurm):
            raise ValueError("partition, hours and sbatch go with executor: slurm, which needs the first two")
        return self


class Profile(schema.Words):
    """One machine, as its file says it."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["eager", "sdpa", "flash_attention_2", "kernels-community/flash-attn2"] = "sdpa"
    micro_tokens: schema.Positive  # tokens per forward pass and process
    recompute: bool | Literal["selective"] = False  # layers in the backward pass; selective: all but their attention
    processes: schema.Positive = 1
    threads: schema.Positive | None = None  # per process; unset: cores / processes
    compile: bool = False  # pre-training: torch.compile of the layers; takes minutes before the first update
    cluster: Cluster | None = None  # corpus; unset: a process for each thread of this machine
    # What `plan` reckons with; runs do not read it, and there are no defaults.
    peak_flops: schema.Rate | None = None  # of one process, dense, in the type that computes
    mfu: Annotated[float, Field(gt=0, le=1)] | None = None  # share of it that training reaches, as metrics.jsonl measures it
    memory_gib: schema.Rate | None = None  # of one process
    price_per_hour: schema.Rate | None = None  # of one process, in any currency


@dataclass(frozen=True)
class Hardware:
    """A profile that was checked against the machine."""

    name: str
    device: str
    dtype: str
    dtype_reason: str
    attention: str
    micro_tokens: int
    recompute: bool | Literal["selective"]
    processes: int
    threads: int
    compile: bool = False
    cluster: Cluster | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes (rank 0)."""
        return int(os.environ.get("RANK", "0")) == 0


def read(name: str) -> Profile:
    """Read a profile by name without looking at the machine."""
    path = PROFILES / name / "profile.yaml"
    if not path.exists():
        raise HardwareError(f"--on {name}: no {path}. Profiles: {', '.join(names()) or 'none: run from the project root'}.")
    raw = schema.parse(path.read_text(encoding="utf-8"), str(path))
    return schema.validate(Profile, raw, str(path), HardwareError)


def names() -> list[str]:
    """Name all profiles."""
    return sorted(path.parent.name for path in PROFILES.glob("*/profile.yaml"))


def check_memory(hardware: Hardware, needed: int) -> None:
    """Refuse what takes more bytes than the device can still give, where it says so."""
    info = Path("/proc/meminfo")
    if hardware.device == "cuda":
        import torch

        free = int(torch.cuda.mem_get_info()[0])
    elif info.exists():
        free = 1024 * int(next(line for line in info.read_text().splitlines() if "MemAvailable" in line).split()[1])
    else:
        return
    if needed > free:
        raise HardwareError(
            f"profile {hardware.name}: {needed / 2**30:.1f} GiB a process are needed, {free / 2**30:.1f} are free. "
            "Use the machine that this is meant for, or a smaller model."
        )


def prepare(name: str) -> Hardware:
    """Read a profile, check the machine against it, and set thread policy. Call before torch is loaded."""
    profile = read(name)
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found != profile.processes:
        raise HardwareError(
            f"profile {name} asks for {profile.processes} process(es), {found} started. Start with: "
            f"accelerate launch --config_file {PROFILES / name / 'accelerate.yaml'} "
            f"-m alignment run RECIPE --on {name} (or -m eval MODEL --on {name})"
            if profile.processes > 1
            else f"profile {name} is for one process, {found} started. Use a profile with processes: {found}."
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = profile.threads or max(1, cores // profile.processes)
    if profile.device == "cpu":
        # Two spinning OpenMP threads stall each other as soon as anything else runs.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        if profile.threads:  # said in so many words, it wins over what accelerate launch has set
            os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    else:
        _need_cuda(name)
    dtype, reason = _dtype(profile)
    _need_attention(profile.attention, name)
    return Hardware(
        name=name,
        device=profile.device,
        dtype=dtype,
        dtype_reason=reason,
        attention=profile.attention,
        micro_tokens=profile.micro_tokens,
        recompute=profile.recompute,
        processes=profile.processes,
        threads=int(os.environ.get("OMP_NUM_THREADS", threads)),
        compile=profile.compile,
        cluster=profile.cluster,
    )


def attention(hardware: Hardware | Profile, length: int | None = None) -> str:
    """Name the kernel that trains sequences of up to `length` tokens.

    On a CPU, SDPA's backward pass costs more than plain attention on short sequences (benchmarks/README.md).
    """
    short = hardware.device == "cpu" and length is not None and length <= SHORT
    return SHORT_KERNEL if short and hardware.attention == "sdpa" else hardware.attention


def split(hardware: Hardware | Profile, batch_size: int, length: int) -> tuple[int, int]:
    """Divide the recipe's batch over the machine: (sequences per forward pass, passes per update), exactly.

    Takes the largest divisor of the per-process batch whose tokens fit `micro_tokens`.
    """
    each, left = divmod(batch_size, hardware.processes)
    if left:
        raise HardwareError(
            f"batch_size {batch_size} cannot be divided over {hardware.processes} processes. "
            f"Use a multiple of {hardware.processes}, or another profile."
        )
    most = max(1, hardware.micro_tokens // length)
    micro = max(size for size in range(1, min(most, each) + 1) if each % size == 0)
    return micro, each // micro


def is_sharded(name: str) -> bool:
    """Whether a profile's processes share weights, gradients and moments (FSDP) instead of copying them (DDP)."""
    path = PROFILES / name / "accelerate.yaml"
    if not path.exists():
        if (processes := read(name).processes) > 1:
            raise HardwareError(f"{path}: missing, and profile {name} needs it to start {processes} processes. Write it.")
        return False
    return bool(schema.parse(path.read_text(encoding="utf-8"), str(path))["distributed_type"] == "FSDP")


def check_fit(words: recipe.Recipe, name: str, file: Path, said: str = "fits:") -> None:
    """Refuse a recipe that its stage would refuse under a profile. `said`: what named the profile."""
    profile, where = read(name), f"{file}: {said} {name}"
    if profile.processes > 1 and words.stage not in recipe.TRAINING:
        raise HardwareError(
            f"{where} starts {profile.processes} processes, the stage {words.stage} takes one. Use a profile of one process."
        )
    for size, length in words.batches():
        try:
            micro, _ = split(profile, size, length)
        except HardwareError as error:
            raise HardwareError(f"{where}: {error}") from None
        if micro < 2 and isinstance(words, recipe.KTO):
            raise HardwareError(
                f"{where}: one answer a forward pass (max_length {length}, micro_tokens {profile.micro_tokens}, batch_size "
                f"{size}), and TRL's KTO takes at least two. Use a smaller max_length or another batch_size."
            )
    if (whole := list(_unsharded(words))) and is_sharded(name):
        raise HardwareError(
            f"{where} shards the model (FSDP), and that does not go with {' or '.join(whole)} here. Leave it out, or use a "
            "profile that does not shard."
        )


def _unsharded(words: recipe.Recipe) -> Iterator[str]:
    """The fields of a recipe whose work is not done on a sharded model: the stages refuse them too."""
    if isinstance(words, recipe.SFT) and words.watch:
        yield "watch"
    if isinstance(words, recipe.SFT | recipe.DPO | recipe.KTO):
        if words.adapter and words.adapter.base:
            yield f"adapter.base: {words.adapter.base}"
        if words.optim.optimizer != "adamw":
            yield f"optim.optimizer: {words.optim.optimizer}"


def check_processes(hardware: Hardware, found: int) -> None:
    """Refuse to train when the launcher gave another number of processes than the profile asked for."""
    if found != hardware.processes:
        raise HardwareError(
            f"profile {hardware.name} asks for {hardware.processes} process(es), accelerate runs {found}. "
            f"See {PROFILES / hardware.name / 'accelerate.yaml'}."
        )


def _dtype(profile: Profile) -> tuple[str, str]:
    if profile.dtype != "auto":
        return profile.dtype, "the profile says so"
    if profile.device == "cuda":
        return "bfloat16", "GPU"
    flags = _cpu_flags()
    native = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    if native:  # the last is ARM's
        return "bfloat16", f"CPU with {', '.join(native)}"
    return "float32", "CPU without native bfloat16"


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return set()
    line = next((line for line in info.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return set(line.split())


def _need_cuda(name: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise HardwareError(f"profile {name} asks for a CUDA device, torch {torch.__version__} finds none. Use --on cpu.")


def _need_attention(attention: str, name: str) -> None:
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise HardwareError(
            f"profile {name} asks for flash_attention_2, which is not installed. Ways out: "
            f"pip install -r requirements-gpu.txt; or `attention: {HUB_KERNEL}` (pip install kernels); "
            "or `attention: sdpa`."
        )
    if attention == HUB_KERNEL and find_spec("kernels") is None:
        raise HardwareError(f"profile {name} asks for {HUB_KERNEL}: pip install kernels, or use `attention: sdpa`.")
