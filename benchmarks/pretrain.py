"""How many tokens does a CPU second train, beside transformers' Trainer and a plain loop?

Run from the project's root: `python benchmarks/pretrain.py [--vocab 8192 32000] [--updates N] [--rounds N]
[--litgpt PYTHON]`. All train the same Llama (width 256, 8 layers) on the same batches: bfloat16 compute, float32 weights
and moments, AdamW, clipping at 1. Each way runs in a process of its own with one thread, in turn; an update of warm-up
is not counted. Printed are tokens per CPU second (median over rounds), their ratio to ours, the share of what a plain
bfloat16 product of matrices reaches here, what reading the data costs, and how many more tokens two processes on two cores
train than one, in wall time: sharing a batch, and with a batch each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true")

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rich.console import Console
from torch import nn
from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from alignment import hardware as machine
from alignment import recipe as words
from alignment.hardware import Hardware
from alignment.models import build, presets
from alignment.models.presets import Shape
from alignment.pretrain import learner, loss
from alignment.pretrain.batches import Batches, Windows
from alignment.pretrain.guard import Guard
from alignment.pretrain.learner import Learner
from alignment.run import versions

SEQUENCES, LENGTH = 8, 256
HARDWARE = Hardware("cpu", "cpu", "bfloat16", "benchmark", "sdpa", SEQUENCES * LENGTH, False, 1, 1)
RECIPE = words.Pretrain(
    stage="pretrain",
    data="shards",
    model=words.Model(layers=8, width=256, heads=4),
    optim=words.PretrainOptim(learning_rate=1e-3, warmup_steps=0),
    tokens=SEQUENCES * LENGTH,
    batch_size=SEQUENCES,
    sequence_length=LENGTH,
)
Clock = list[float]  # CPU seconds at the end of each update


def shape(vocab: int) -> Shape:
    """The benchmark's model."""
    return presets.resolve(RECIPE.model, vocab, LENGTH)


def fresh(vocab: int, attention: str = "sdpa") -> LlamaForCausalLM:
    """Draw the same first weights for every way."""
    settings = build.config(shape(vocab))
    settings._attn_implementation = attention
    settings.use_cache = False
    torch.manual_seed(0)
    return LlamaForCausalLM(settings)


def source(vocab: int, sequences: int = SEQUENCES) -> Batches:
    """Random tokens in a row, cut as a run's would be."""
    tokens = np.random.default_rng(0).integers(0, vocab, 400_000).astype(np.uint16)
    return Batches((Windows(tokens, LENGTH, (0,)),), sequences)


def ours(vocab: int, updates: int, *, compiled: bool = False, each: bool = False) -> Clock:
    """What `alignment.pretrain` does in an update; of several processes, `each` has a whole batch, or they share one."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = fresh(vocab, machine.attention(HARDWARE, LENGTH))
    build.prepare(model, replace(HARDWARE, compile=compiled))
    loss.attach(model)
    if compiled:
        model.base_model.compile()
    optimizer = learner.masters(model, RECIPE.optim, torch.bfloat16)
    hardware = replace(HARDWARE, processes=accelerator.num_processes)
    learns = Learner(RECIPE, hardware, accelerator, accelerator.prepare(model), optimizer, 0, Guard(RECIPE.guard))
    now = time.process_time if accelerator.num_processes == 1 else time.perf_counter
    batches, clock = source(vocab, SEQUENCES * (hardware.processes if each else 1)), [now()]
    for step in range(updates):
        learns.update(batches.batch(step), 1e-3, f"update {step + 1}")
        clock.append(now())
    return clock


def plain(vocab: int, updates: int) -> Clock:
    """The loop that one writes first: autocast, the library's model, torch's loss and AdamW."""
    model, batches = fresh(vocab), source(vocab)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    clock = [time.process_time()]
    for step in range(updates):
        batch = torch.from_numpy(batches.batch(step))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=batch[:, :-1]).logits
            value = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.append(time.process_time())
    return clock


class Ticks(TrainerCallback):  # type: ignore[misc]
    """Notes the time of every update."""

    def __init__(self) -> None:
        self.clock: Clock = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.clock.append(time.process_time())

    def on_step_end(self, *_: object, **__: object) -> None:
        self.clock.append(time.process_time())


def trainer(vocab: int, updates: int, attention: str = "sdpa", **settings: object) -> Clock:
    """transformers' Trainer on the same sequences, in order; it shifts the labels itself."""
    batches = source(vocab)
    rows = [row for step in range(updates) for row in batches.batch(step)[:, :LENGTH]]
    data = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=True,
            per_device_train_batch_size=SEQUENCES,
            max_steps=updates,
            learning_rate=1e-3,
            adam_beta2=0.95,
            weight_decay=0.1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        )
        ticks = Ticks()
        Trainer(fresh(vocab, attention), arguments, train_dataset=data, callbacks=[ticks]).train()
    return ticks.clock


WAYS: dict[str, Callable[[int, int], Clock]] = {
    "ours": ours,
    "ours, compiled": lambda vocab, updates: ours(vocab, updates, compiled=True),
    "plain loop": plain,
    "Trainer": trainer,
    "Trainer, fused AdamW, no logging": lambda vocab, updates: trainer(
        vocab, updates, optim="adamw_torch_fused", logging_strategy="no"
    ),
    "Trainer, the same and eager attention": lambda vocab, updates: trainer(
        vocab, updates, "eager", optim="adamw_torch_fused", logging_strategy="no"
    ),
    "Trainer, fused AdamW, no logging, compiled": lambda vocab, updates: trainer(
        vocab, updates, optim="adamw_torch_fused", logging_strategy="no", torch_compile=True
    ),
}

RANKS = "ours, a batch for each process"


def litgpt(python: str, vocab: int, updates: int) -> list[float]:
    """CPU seconds of each update of litgpt, whose first is spent on compiling."""
    batches = source(vocab)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/batches.npy", np.stack([batches.batch(step) for step in range(updates + 1)]))
        script = str(Path(__file__).with_name("litgpt_pretrain.py"))
        command = [python, script, f"{folder}/batches.npy", str(vocab), str(shape(vocab).ffn)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(seconds) for seconds in np.diff(json.loads(done.stdout.strip().splitlines()[-1]))[1:]]


def matmul_peak() -> float:
    """Operations per CPU second of a plain bfloat16 product."""
    square = torch.ones(1024, 1024, dtype=torch.bfloat16)
    seconds = []
    for _ in range(20):
        began = time.process_time()
        square @ square
        seconds.append(time.process_time() - began)
    return 2 * 1024**3 / float(np.median(seconds))


def reading(vocab: int) -> float:
    """CPU seconds that it takes to read a batch."""
    batches = source(vocab)
    batches.batch(0)
    began = time.process_time()
    for step in range(50):
        batches.batch(step)
    return (time.process_time() - began) / 50


def asked(way: str, vocab: int, updates: int, ranks: int = 1) -> list[float]:
    """Seconds of each update but the first, from processes of their own: CPU time of one, or wall time of several."""
    command = [sys.executable, __file__, "--way", way, "--vocab", str(vocab), "--updates", str(updates)]
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"} if ranks > 1 else {}
    started = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | group | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if group else {}),
        )
        for rank in range(ranks)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{' '.join(command)} failed; run it alone to see why.")
    return [float(seconds) for seconds in np.diff(json.loads(said[0].strip().splitlines()[-1]))[1:]]


def main(vocabularies: list[int], updates: int, rounds: int, peer: str | None) -> None:
    """Measure every way in turn, `rounds` times."""
    torch.set_num_threads(1)
    say, peak = Console(soft_wrap=True).print, matmul_peak()
    for vocab in vocabularies:
        found: dict[str, list[float]] = {way: [] for way in (*WAYS, *(["litgpt, compiled"] if peer else []))}
        shared: list[float] = []  # CPU seconds of one process, which has a core for itself, to wall seconds of two
        apart: list[float] = []
        for _ in range(rounds):
            for way in WAYS:
                found[way] += [SEQUENCES * LENGTH / seconds for seconds in asked(way, vocab, updates)]
            if peer:
                found["litgpt, compiled"] += [SEQUENCES * LENGTH / seconds for seconds in litgpt(peer, vocab, updates)]
            alone = sum(asked("ours", vocab, updates))
            shared.append(alone / sum(asked("ours", vocab, updates, ranks=2)))
            apart.append(2 * alone / sum(asked(RANKS, vocab, updates, ranks=2)))
        flops = presets.flops_per_token(shape(vocab), LENGTH) + 6 * vocab * shape(vocab).width
        mine = float(np.median(found["ours"]))
        say(f"V = {vocab:,}: {presets.parameters(shape(vocab)):,} parameters, n = {len(found['ours'])} updates each")
        for way, speeds in found.items():
            speed = float(np.median(speeds))
            say(
                f"  {way}: {speed:,.0f} tokens per CPU second (from {min(speeds):,.0f} to {max(speeds):,.0f}), "
                f"ours / this {mine / speed:.2f}, {flops * speed / peak:.0%} of the matmul peak"
            )
        share = reading(vocab) / (SEQUENCES * LENGTH / mine)
        say(f"  reading a batch: {share:.2%} of our update")
        for how, pairs in (("sharing a batch", shared), ("with a batch each", apart)):
            say(
                f"  two processes {how}: {np.median(pairs):.2f} times the tokens of one "
                f"({min(pairs):.2f} to {max(pairs):.2f}, n = {len(pairs)})"
            )
    say(f"matmul peak {peak / 1e9:.0f} GFLOP/s a core; " + ", ".join(f"{name} {v}" for name, v in versions().items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--vocab", type=int, nargs="+", default=[8192, 32_000])
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--litgpt", metavar="PYTHON", help="of an environment that holds litgpt")
    parser.add_argument("--way", choices=[*WAYS, RANKS])
    given = parser.parse_args()
    if given.way:
        torch.set_num_threads(1)
        way = WAYS.get(given.way, lambda vocab, updates: ours(vocab, updates, each=True))
        sys.stdout.write("\n" + json.dumps(way(given.vocab[0], given.updates)) + "\n")
    else:
        main(given.vocab, given.updates, given.rounds, given.litgpt)
