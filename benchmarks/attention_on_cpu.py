"""Up to which length is our kernel for short rows faster than SDPA's fused one when a CPU trains on padded rows?

Run from the project's root: `python benchmarks/attention_on_cpu.py [PAIRS]`. A forward and a backward pass of the
quickstart's model and of four layers of the 135M one, in bfloat16, about 1,600 positions a batch, half of the rows a
quarter shorter; the library's plain attention beside them, all in turn, 1 thread. Printed: CPU seconds a pass (median),
and the median of each other kernel's paired ratio to ours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from transformers import LlamaForCausalLM

from alignment.hardware import SHORT_KERNEL
from alignment.models import build, presets
from alignment.run import versions

SHAPES = {
    "quickstart": replace(presets.PRESETS["quickstart"], max_positions=1024),
    "135m, 4 layers": replace(presets.PRESETS["135m"], layers=4, vocab=2048),
}
LENGTHS = (48, 96, 160, 256, 512, 1024)
KERNELS = (SHORT_KERNEL, "sdpa", "eager")
POSITIONS, STEPS = 1600, 4


def seconds(model: LlamaForCausalLM, length: int) -> float:
    """CPU seconds a forward and backward pass, after one of warm-up."""
    ids = torch.randint(0, 2048, (max(2, POSITIONS // length), length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[: len(ids) // 2, length * 3 // 4 :] = 0
    began = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            began = time.process_time()
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).backward()
        model.zero_grad()
    return (time.process_time() - began) / STEPS


def main(pairs: int) -> None:
    """Measure `pairs` times, all kernels in turn."""
    torch.set_num_threads(1)
    say = Console(width=120).print
    say(f"1 thread, n = {pairs}")
    for name, shape in SHAPES.items():
        model = LlamaForCausalLM(build.config(shape)).to(torch.bfloat16)
        for length in LENGTHS:
            found: dict[str, list[float]] = {kernel: [] for kernel in KERNELS}
            for _ in range(pairs):
                for kernel in KERNELS:
                    model.set_attn_implementation(kernel)
                    found[kernel].append(seconds(model, length))
            mine = np.array(found[SHORT_KERNEL])
            say(f"{name}, {length} tokens: {SHORT_KERNEL} {np.median(mine):.3f} s")
            for kernel in KERNELS[1:]:
                ratio = np.array(found[kernel]) / mine
                say(
                    f"  {kernel} {np.median(found[kernel]):.3f} s, {np.median(ratio):.2f} of ours "
                    f"({ratio.min():.2f} to {ratio.max():.2f})"
                )
    say(", ".join(f"{name} {value}" for name, value in versions().items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=int, nargs="?", default=5, help="how often each side is measured")
    main(parser.parse_args().pairs)
