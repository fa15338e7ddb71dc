"""How much faster does a CPU train with a bfloat16 copy and float32 masters than under autocast?

Run from the project's root: `python benchmarks/bf16_on_cpu.py [PAIRS]`. Both train the same Llama on the same random
tokens, in turn, one thread; printed are CPU seconds a step, and the median of the paired ratios with its spread.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn
from transformers import PreTrainedTokenizerFast

from alignment.hardware import Hardware
from alignment.models import build, presets
from alignment.models.masters import MasterAdamW
from alignment.run import versions

SHAPE = presets.Shape(4, 256, 4, 4, 688, vocab=2048, max_positions=256, tie=True)
SEQUENCES, LENGTH, STEPS = 8, 256, 4
HARDWARE = Hardware("cpu", "cpu", "float32", "benchmark", "sdpa", SEQUENCES * LENGTH, False, 1, 1)


def seconds(model: nn.Module, optimizer: torch.optim.Optimizer, *, autocast: bool) -> float:
    """CPU seconds a step, after one step of warm-up."""
    ids = torch.randint(0, SHAPE.vocab, (SEQUENCES, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    began = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        if autocast:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - began) / STEPS


def main(pairs: int) -> None:
    """Measure `pairs` times, each side in turn."""
    torch.set_num_threads(1)
    words = PreTrainedTokenizerFast(tokenizer_object=_letters(), bos_token="<b>", eos_token="<e>")
    rows = []
    for _ in range(pairs):
        plain = build.build(SHAPE, words, HARDWARE, seed=0, init_std=0.006)
        ours = build.build(SHAPE, words, HARDWARE, seed=0, init_std=0.006)
        adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
        masters = MasterAdamW(ours, torch.bfloat16, clip=1.0, weight_decay=0.1, lr=1e-3)
        rows.append((seconds(plain, adamw, autocast=True), seconds(ours, masters, autocast=False)))
    autocast, halved = np.array(rows).T
    ratio = autocast / halved
    say = Console().print
    say(f"{presets.parameters(SHAPE):,} parameters, {SEQUENCES} x {LENGTH} tokens a step, 1 thread, n = {pairs} pairs")
    say(f"autocast {np.median(autocast):.3f} s, masters {np.median(halved):.3f} s of CPU a step")
    say(f"ratio: median {np.median(ratio):.2f}, from {ratio.min():.2f} to {ratio.max():.2f}")
    say(", ".join(f"{name} {value}" for name, value in versions().items()))


def _letters() -> object:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<b>": 0, "<e>": 1, "a": 2}, unk_token="a"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=int, nargs="?", default=5, help="how often each side is measured")
    main(parser.parse_args().pairs)
