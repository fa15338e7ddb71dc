"""The gradient of an update is that of its learnt tokens, however the update is cut into passes and ranks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import recipe
from alignment.hardware import Hardware
from alignment.posttrain import mixture, sft, trainer
from tests import tiny
from tests.stages import forked

pytestmark = pytest.mark.slow
OPTIM = {"learning_rate": 1e-3, "batch_size": 8, "clip": 1e9, "schedule": "constant"}
WORDS = {"stage": "sft", "start": {"run": "start"}, "optim": OPTIM, "max_length": 96, "data": [{"run": "mix"}]}


class Seen(Exception):
    """The gradient is there; no more is to be learnt."""


def gradient(root: Path, out: Path, machine: Hardware) -> None:
    """Write the gradient of the first update, before the optimizer sees it."""

    def catch(learner: Any, *_: Any) -> None:
        class Catch(trainer.TrainerCallback):  # type: ignore[misc]
            def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
                grads = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
                torch.save({**grads, "passes": learner.args.gradient_accumulation_steps}, out.with_suffix(".pt"))
                raise Seen

        learner.add_callback(Catch())
        learner.train()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "train", catch)
        here = tiny.opened(root, out, {"start": "pretrain", "data": "curriculum", "mix": "mixture"})
        with pytest.raises(Seen):
            sft.train(recipe.validate(WORDS, "t"), here, machine)  # type: ignore[arg-type]


def test_one_pass_eight_passes_and_two_ranks_give_one_gradient(tmp_path: Path) -> None:
    """Answers of very unequal length, so that a mean of means would be another gradient."""
    tiny.write_start(tmp_path / "start")
    ragged = [
        {**row, "messages": [row["messages"][0], {"role": "assistant", "content": "yes " * (1 + 3 * (i % 4))}]}
        for i, row in enumerate(tiny.INSTRUCTIONS)
    ]
    tiny.write_rows(tmp_path / "data" / "instructions.jsonl", ragged)
    (tmp_path / "mix").mkdir()
    mixed = {"stage": "mixture", "start": {"run": "start"}, "data": [{"run": "data"}], "max_length": 96, "validation": 0.0}
    here = tiny.opened(tmp_path, tmp_path / "mix", {"start": "pretrain", "data": "curriculum"})
    mixture.build(recipe.validate(mixed, "t"), here, tiny.CPU)  # type: ignore[arg-type]
    forked.program(__file__, tmp_path)
    one, eight, two, padded = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "eight", "two", "padded"))
    assert [found.pop("passes") for found in (one, eight, two, padded)] == [1, 8, 4, 4]
    norm = torch.cat([grad.flatten() for grad in one.values()]).norm()
    for other in (eight, two, padded):
        off = torch.cat([(one[name] - other[name]).flatten() for name in one])
        assert off.norm() < 1e-6 * norm


if __name__ == "__main__":
    place = Path(sys.argv[1])
    ways = {  # tokens a pass, ranks, attention: eager rows are padded, not packed
        "one": (1000, 1, "sdpa"),
        "eight": (1, 1, "sdpa"),
        "two": (1, 2, "sdpa"),
        "padded": (256, 1, "eager"),
    }
    for name, (tokens, ranks, attention) in ways.items():
        machine = replace(tiny.CPU, micro_tokens=tokens, processes=ranks, attention=attention)

        def child(rank: int, name: str = name, machine: Hardware = machine) -> None:
            gradient(place, place / (name if rank == 0 else f"{name}-{rank}"), machine)

        forked.reap(forked.start(ranks, child))
