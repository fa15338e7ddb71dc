"""SFT on a tiny model: it learns the answers, resumes exactly, and its loss is the token mean whatever the cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from alignment import chat, recipe
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.models.presets import Shape
from alignment.posttrain import mixture, sft, trainer
from alignment.run import Finished, Run

pytestmark = pytest.mark.slow
CPU = Hardware("cpu", "cpu", "float32", "test", "sdpa", micro_tokens=512, recompute=False, processes=1, threads=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model and a mixture, as finished runs."""
    root = tmp_path_factory.mktemp("world")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=chat.BOS, eos_token=chat.EOS, pad_token="<pad>")
    tokenizer.chat_template = chat.TEMPLATES["deepseek-llm"]
    tokenizer.save_pretrained(root / "tok")
    shape = Shape(2, 32, 2, 2, 64, vocab=len(tokenizer), max_positions=128, tie=True)
    build.save(build.build(shape, tokenizer, CPU, seed=0, init_std=0.02), root / "tok", root / "start" / "model")
    (root / "data").mkdir()
    rows = [
        {
            "id": str(i),
            "messages": [
                {"role": "user", "content": f"Say {'ab' * (i % 7)}{i}"},
                {"role": "assistant", "content": "yes" if i % 2 else "oh no"},
            ],
            "source": "s",
            "language": "en",
            "domain": "d",
        }
        for i in range(72)
    ]
    mixture.save(root / "data" / "instructions.jsonl", rows)
    (root / "mix").mkdir()
    words = {"stage": "mixture", "start": {"run": "start"}, "data": [{"run": "data"}], "max_length": 64, "validation": 0.1}
    mixture.build(recipe.validate(words, "t"), opened(root, root / "mix"), CPU)  # type: ignore[arg-type]
    return root


def opened(root: Path, out: Path, *, resumed: bool = False) -> Run:
    out.mkdir(parents=True, exist_ok=True)
    stages = {"start": "pretrain", "data": "curriculum", "mix": "mixture"}
    inputs = {name: Finished(root / name, {"stage": stage}) for name, stage in stages.items()}
    return Run(out, inputs, {}, True, resumed, {})


def words(**changes: Any) -> Any:
    raw = {
        "stage": "sft",
        "start": {"run": "start"},
        "data": [{"run": "mix"}],
        "optim": {"learning_rate": 1e-2, "batch_size": 8, "epochs": 3, "warmup": 0.1},
        "max_length": 64,
        "template": "deepseek-llm",
    }
    return recipe.validate(raw | changes, "t")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(out / "model", dtype=torch.float32).state_dict())


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_the_folder_holds_a_model_that_stops(world: Path, tmp_path: Path) -> None:
    numbers = sft.train(words(), opened(world, tmp_path), CPU)
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert rows[0]["loss"] > 2 * rows[-1]["loss"]
    assert numbers["validation_loss"] < numbers["validation_loss_before"] / 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.txt", "metrics.jsonl", "model"]
    assert not list((tmp_path / "model").glob("*.bin"))
    stop = json.loads((tmp_path / "model" / "generation_config.json").read_text())["eos_token_id"]
    assert stop == sorted(chat.end_ids(build.read_tokenizer(tmp_path / "model")))


def test_resume_equals_no_resume(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 4)
    sft.train(words(), opened(world, tmp_path / "whole"), CPU)

    class Killed(Exception):
        pass

    def log(self: Run, **row: Any) -> None:
        if row["step"] == 7:
            raise Killed
        original(self, **row)

    original = Run.log
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", log)
        with pytest.raises(Killed):
            sft.train(words(), opened(world, tmp_path / "cut"), CPU)
    assert trainer.newest(tmp_path / "cut" / "checkpoints").name == "checkpoint-4"
    sft.train(words(), opened(world, tmp_path / "cut", resumed=True), CPU)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    keep = ("step", "tokens", "loss", "learning_rate")
    assert [{k: row[k] for k in keep} for row in metrics(tmp_path / "cut")] == [
        {k: row[k] for k in keep} for row in metrics(tmp_path / "whole")
    ]


def test_the_cut_into_passes_changes_nothing_and_the_loss_is_the_token_mean(world: Path, tmp_path: Path) -> None:
    one = words(optim={"learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "schedule": "constant"})
    sft.train(one, opened(world, tmp_path / "a"), CPU)  # 8 sequences a pass
    sft.train(one, opened(world, tmp_path / "b"), replace(CPU, micro_tokens=64))  # 1 sequence a pass
    first, second = metrics(tmp_path / "a"), metrics(tmp_path / "b")
    assert [row["loss"] for row in first] == pytest.approx([row["loss"] for row in second], rel=1e-5)
    assert [row["grad_norm"] for row in first] == pytest.approx([row["grad_norm"] for row in second], rel=1e-4)
    assert first[0]["loss"] == pytest.approx(oracle(world, one), rel=1e-5)


def oracle(world: Path, one: Any) -> float:
    """The first update's loss in plain torch."""
    rows = list(mixture.load(world / "mix" / "rows.jsonl"))
    order = trainer.order([len(row["input_ids"]) for row in rows], one.optim, one.seed)
    model = build.load(world / "start" / "model", CPU)
    total, tokens = 0.0, 0
    for i in order[:8]:
        ids, labels = torch.tensor([rows[i]["input_ids"]]), torch.tensor(rows[i]["labels"])
        logits = model(ids, use_cache=False).logits[0]
        total += float(F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum"))
        tokens += int((labels != -100).sum())
    return total / tokens


def test_an_adapter_is_merged_into_the_base(world: Path, tmp_path: Path) -> None:
    before = weights(world / "start")
    sft.train(words(adapter={"rank": 4, "alpha": 8}), opened(world, tmp_path), CPU)
    after = weights(tmp_path)
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name and "self_attn" in name}


def test_cards_and_other_runs_are_tokenised_on_the_way(world: Path, tmp_path: Path) -> None:
    numbers = sft.train(words(data=[{"run": "data", "rows": 40}]), opened(world, tmp_path), CPU)
    assert numbers["rows"] == 40


def test_a_mixture_made_with_another_tokenizer_is_refused(world: Path, tmp_path: Path) -> None:
    here = opened(world, tmp_path / "out")
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "ledger.json").write_text('{"tokenizer": "another"}')
    here.inputs = {**here.inputs, "mix": Finished(tmp_path / "mix", {"stage": "mixture"})}
    with pytest.raises(DataError, match="another tokenizer"):
        sft.train(words(), here, CPU)
