"""Adapters and optimizers by name, through the stages: what is merged at the end is what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignment import recipe
from alignment.posttrain import adapter, dpo, sft, trainer
from tests import tiny
from tests.tiny import CPU, metrics

pytestmark = pytest.mark.slow
OPTIM = {"learning_rate": 1e-2, "batch_size": 8, "epochs": 2, "warmup": 0.1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model, instructions and pairs."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_start(root / "start", width=64)
    tiny.write_rows(root / "data" / "instructions.jsonl", tiny.INSTRUCTIONS)
    tiny.write_rows(root / "pairs" / "pairs.jsonl", tiny.PAIRS)
    tiny.write_rows(root / "pairs" / "heldout_pairs.jsonl", tiny.PAIRS[:4])
    return root


def words(stage: str, **changes: Any) -> Any:
    data = {"sft": "data", "dpo": "pairs"}[stage]
    raw = {"stage": stage, "start": {"run": "start"}, "data": [{"run": data}], "optim": OPTIM, "max_length": 64}
    return recipe.validate(raw | changes, "t")


def trained(stage: str, world: Path, out: Path, dtype: str = "float32", **changes: Any) -> list[float]:
    """Run a stage; return the losses."""
    here = tiny.opened(world, out, {"start": "pretrain", "data": "curriculum", "pairs": "preferences"})
    {"sft": sft.train, "dpo": dpo.train}[stage](words(stage, **changes), here, replace(CPU, dtype=dtype))
    return [row["loss"] for row in metrics(out)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of full fine-tuning with AdamW."""
    return trained("sft", world, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "dora", "targets": "all-linear"},
        {"kind": "rslora", "targets": ["q_proj", "v_proj"]},
        {"base": "nf4", "targets": "all-linear"},
        {"base": "nf4", "kind": "dora", "targets": ["o_proj"]},
    ],
)
def test_an_adapter_is_tuned_in_float32_and_merged_into_the_whole_base(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    """TRL rounds adapters on a 4-bit base to bfloat16, in which small updates are lost."""
    merge, held = adapter.merge, set()

    def watched(model: Any, *rest: Any) -> Any:
        held.update(p.dtype for p in model.parameters() if p.requires_grad)
        return merge(model, *rest)

    monkeypatch.setattr(trainer.adapter, "merge", watched)
    losses = trained("sft", world, tmp_path, adapter={"rank": 8, "alpha": 16, **said})
    assert losses[-1] < 0.95 * losses[0]  # embedding and head of a model that knows nothing stay as they are
    assert held == {torch.float32}
    before, after = weights(world / "start" / "model"), weights(tmp_path / "model")
    targets = said["targets"] if said["targets"] != "all-linear" else ["_proj"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if any(target in name for target in targets)}
    log = (tmp_path / "log.txt").read_text()
    assert "adapter:" in log
    assert "merged: logits differ from those of base and adapter by" in log


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_under_autocast_an_adapter_learns_the_same_within_rounding(world: Path, tmp_path: Path, stage: str) -> None:
    words = {"rank": 4, "alpha": 8, "targets": "all-linear"}
    exact = trained(stage, world, tmp_path / "exact", adapter=words)
    assert trained(stage, world, tmp_path / "rounded", "bfloat16", adapter=words) == pytest.approx(exact, rel=0.02)


def test_preferences_are_learnt_on_a_4_bit_base(world: Path, tmp_path: Path) -> None:
    losses = trained("dpo", world, tmp_path, adapter={"rank": 4, "alpha": 8, "base": "nf4"})
    assert losses[0] == pytest.approx(0.693147, abs=1e-4)
    assert losses[-1] < 0.6


@pytest.mark.parametrize("name", ["adamw-8bit", "paged-adamw", "paged-adamw-8bit"])
def test_other_optimizers_learn_by_name(world: Path, tmp_path: Path, plain: list[float], name: str) -> None:
    """Moments in 8 bits come close to AdamW's path, paged ones follow it."""
    other = trained("sft", world, tmp_path, optim={**OPTIM, "optimizer": name})
    assert other == pytest.approx(plain, abs=1e-4 if name == "paged-adamw" else 0.2)
    assert other[-1] < 0.8 * other[0]
    assert other != plain
