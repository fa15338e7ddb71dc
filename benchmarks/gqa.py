"""How much faster does a model decode, and how much smaller is its cache, when heads share keys and values?

Run from the project's root: `python benchmarks/gqa.py [PAIRS]`. The same shape with eight heads and eight, or one, of
keys and values (the 67B shares its own eightfold), random weights, the library's forward pass, 1 thread. Rows with a
context of so many tokens are continued token by token; both shapes in turn. Printed: CPU milliseconds a token and row,
the bytes of the cache, and the median of the paired ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1")

import numpy as np
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, DynamicCache

from alignment.models import build
from alignment.models.presets import Shape
from alignment.run import versions

FULL = Shape(8, 512, 8, 8, 1376, vocab=8192, max_positions=4096)
SHARED = replace(FULL, kv_heads=1)
SETTINGS = [(1, 256), (1, 2048), (16, 256), (16, 1024)]  # rows, tokens of context
STEPS = 8
PIECE = 256  # of the context, read at once


@torch.no_grad()
def decode(model: Any, rows: int, context: int) -> tuple[float, int]:
    """CPU seconds a row and token, after one of warm-up, and the bytes of the cache."""
    cache = DynamicCache(config=model.config)
    ids = torch.randint(0, FULL.vocab, (rows, context), generator=torch.Generator().manual_seed(0))
    for start in range(0, context, PIECE):
        model.model(input_ids=ids[:, start : start + PIECE], past_key_values=cache, use_cache=True)
    began, token = 0.0, ids[:, -1:]
    for step in range(STEPS + 1):
        if step == 1:
            began = time.process_time()
        token = model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
    seconds = (time.process_time() - began) / STEPS / rows
    return seconds, sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def main(pairs: int) -> None:
    """Measure `pairs` times, each shape in turn."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    say = Console(width=120).print
    say(f"{FULL.layers} layers, width {FULL.width}, {FULL.heads} heads, float32, 1 thread, n = {pairs} pairs")
    models = [AutoModelForCausalLM.from_config(build.config(shape)).eval() for shape in (FULL, SHARED)]
    for rows, context in SETTINGS:
        found = [[decode(model, rows, context) for model in models] for _ in range(pairs)]
        full, shared = (1000 * np.array([pair[side][0] for pair in found]) for side in (0, 1))
        held = [found[0][side][1] / 2**20 for side in (0, 1)]
        ratio = full / shared
        say(
            f"{rows} row(s), context {context}: {np.median(full):.2f} ms, shared {np.median(shared):.2f} ms, ratio "
            f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}); "
            f"cache {held[0]:.1f} MiB, shared {held[1]:.1f} MiB, ratio {held[0] / held[1]:.1f}"
        )
    say(", ".join(f"{name} {value}" for name, value in versions().items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=int, nargs="?", default=5, help="how often each side is measured")
    main(parser.parse_args().pairs)
