"""Twenty steps of a planned model on this machine: its speed, its share of the peak, and the memory it really takes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from alignment import hardware as machine
from alignment import meter
from alignment.hardware import Hardware
from alignment.models import build
from alignment.pretrain import learner, loss
from alignment.pretrain.guard import Guard
from alignment.pretrain.learner import Learner
from alignment.recipe import Guard as Rule
from alignment.recipe import Pretrain
from alignment.scaling.plan import Plan, head

STEPS, UNCOUNTED = 20, 3  # the first ones pay for loading kernels


@dataclass(frozen=True)
class Probe:
    """What was measured."""

    tokens_per_second: float
    mfu: float
    memory_bytes: int


def measure(plan: Plan, hardware: Hardware, recipe: Pretrain) -> Probe:
    """Train on drawn tokens, one forward pass a step."""
    torch.set_num_threads(hardware.threads)
    accelerator = Accelerator(cpu=hardware.device == "cpu", mixed_precision="bf16" if hardware.dtype == "bfloat16" else "no")
    machine.check_processes(hardware, accelerator.num_processes)
    settings = build.config(plan.shape)
    settings._attn_implementation, settings.use_cache = machine.attention(hardware, plan.sequence), False
    bare: Any = AutoModelForCausalLM.from_config(settings)  # type: ignore[no-untyped-call]
    build.prepare(bare, hardware)
    loss.attach(bare)
    if hardware.recompute:
        bare.gradient_checkpointing_enable()
    if hardware.device == "cpu":
        optimizer = learner.masters(bare, recipe.optim, getattr(torch, hardware.dtype))
        model = accelerator.prepare(bare)
    else:
        learner.keep_float32(accelerator)
        model, optimizer = accelerator.prepare(bare, learner.adamw(bare, recipe.optim))
    learns = Learner(recipe, hardware, accelerator, model, optimizer, 0, Guard(Rule()))
    micro, _ = machine.split(hardware, plan.batch_size, plan.sequence)
    rows = micro * hardware.processes
    batch = np.random.default_rng(0).integers(0, plan.shape.vocab, (rows, plan.sequence + 1))
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        learns.update(batch, 1e-6, "probe")  # reads the loss back, so a GPU is waited for
        seconds.append(time.perf_counter() - began)
    speed = rows * plan.sequence / statistics.median(seconds[UNCOUNTED:])
    peak = meter.matmul_peak(hardware, accelerator.device) * hardware.processes
    return Probe(speed, (plan.scale + head(plan.shape)) * speed / peak, meter.memory_bytes(accelerator.device))
