"""How much memory and time does the loss take with the paper's vocabulary of 102,400?

Run from the project's root: `python benchmarks/loss_memory.py [PASSES]`. Each way of computing head and loss runs in a
process of its own, one thread: forward and backward from the same hidden states and targets. Printed are the memory that
the pass adds at its peak, CPU seconds, and how far value and gradients are from the plain way's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1")

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

from alignment.models.memory import ROWS
from alignment.pretrain.loss import LinearCrossEntropy
from alignment.run import versions

TOKENS, WIDTH, VOCAB = 2048, 256, 102_400
LIBRARY = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=ROWS, chunking_method=None, acc_policy="compact")
WAYS = {
    "plain": lambda hidden, weight, targets: F.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum"),
    "torch linear_cross_entropy": lambda hidden, weight, targets: F.linear_cross_entropy(
        hidden, weight, targets, reduction="sum", options=LIBRARY
    ),
    "ours": lambda hidden, weight, targets: LinearCrossEntropy.apply(hidden, weight, targets, 0.0)[0],
}


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same hidden states, head and targets in every process."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw).to(dtype).requires_grad_()
    weight = (0.02 * torch.randn(VOCAB, WIDTH, generator=draw)).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, VOCAB, (TOKENS,), generator=draw)


def held(field: str) -> int:
    """Bytes that this process holds (VmRSS) or has held at most since the last reset (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(way: str, dtype: str, passes: int, out: Path) -> None:
    """Run in a process of its own: write peak, seconds, value and gradients."""
    hidden, weight, targets = drawn(getattr(torch, dtype))
    before = held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    seconds = []
    for _ in range(passes):
        hidden.grad = weight.grad = None
        began = time.process_time()
        loss = WAYS[way](hidden, weight, targets)
        loss.backward()
        seconds.append(time.process_time() - began)
    torch.save((held("VmHWM") - before, seconds, loss.item(), hidden.grad.float(), weight.grad.float()), out)


def main(passes: int) -> None:
    """Measure each way in both precisions."""
    say = Console().print
    say(f"{TOKENS:,} tokens, width {WIDTH}, {VOCAB:,} rows, 1 thread, n = {passes} passes; torch's in blocks of {ROWS}")
    for dtype in ("float32", "bfloat16"):
        rows = {}
        for way in WAYS:
            out = Path(f"/dev/shm/loss-{os.getpid()}.pt")
            subprocess.run([sys.executable, __file__, str(passes), "--side", way, dtype, str(out)], check=True)
            rows[way] = torch.load(out)
            out.unlink()
        plain_peak, plain_seconds, value, *gradients = rows["plain"]
        for way, (peak, seconds, found, *parts) in rows.items():
            away = [float((a - b).norm() / b.norm()) for a, b in zip(parts, gradients, strict=True)]
            say(
                f"{dtype} {way}: {peak / 1e6:,.0f} MB ({peak / plain_peak:.3f} of plain), "
                f"{np.median(seconds):.2f} s ({np.median(plain_seconds) / np.median(seconds):.2f} x), value off by "
                f"{abs(found - value) / value:.1e}, gradients by {max(away):.1e}"
            )
    say(", ".join(f"{name} {version}" for name, version in versions().items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("passes", type=int, nargs="?", default=5, help="how often each way is measured")
    parser.add_argument("--side", nargs=3, metavar=("WAY", "DTYPE", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        measure(given.side[0], given.side[1], given.passes, Path(given.side[2]))
    else:
        main(given.passes)
