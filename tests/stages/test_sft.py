"""SFT on a tiny model: it learns the answers, resumes exactly, and its loss is the token mean whatever the cut."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate.optimizer import AcceleratedOptimizer
from transformers import AutoModelForCausalLM

from alignment import chat, recipe
from alignment.errors import DataError, HardwareError, ModelError, RecipeError
from alignment.models import build
from alignment.posttrain import mixture, sft, trainer, watch
from alignment.run import Finished, Run
from tests import tiny
from tests.tiny import CPU, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model and a mixture, as finished runs."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_start(root / "start")
    tiny.write_rows(root / "data" / "instructions.jsonl", tiny.INSTRUCTIONS)
    (root / "mix").mkdir()
    words = {"stage": "mixture", "start": {"run": "start"}, "data": [{"run": "data"}], "max_length": 64, "validation": 0.1}
    mixture.build(recipe.validate(words, "t"), opened(root, root / "mix"), CPU)  # type: ignore[arg-type]
    return root


def opened(root: Path, out: Path, *, resumed: bool = False) -> Run:
    return tiny.opened(root, out, {"start": "pretrain", "data": "curriculum", "mix": "mixture"}, resumed=resumed)


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


def test_the_loss_falls_and_the_folder_holds_a_model_that_stops(world: Path, tmp_path: Path) -> None:
    here = opened(world, tmp_path)
    numbers = sft.train(words(), here, CPU)
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert set(rows[0]) == {*tiny.COLUMNS, "accuracy"}
    assert all(0 < row["mfu"] < 1 for row in rows)
    assert here.manifest["chat_template"] == "deepseek-llm"
    assert rows[0]["loss"] > 2 * rows[-1]["loss"]
    assert numbers["validation_loss"] < numbers["validation_loss_before"] / 2
    assert numbers["validation_loss"] == min(row["validation_loss"] for row in rows if "validation_loss" in row)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["doctor.html", "log.txt", "metrics.jsonl", "model"]
    assert not list((tmp_path / "model").glob("*.bin"))
    stop = json.loads((tmp_path / "model" / "generation_config.json").read_text())["eos_token_id"]
    assert stop == sorted(chat.end_ids(build.read_tokenizer(tmp_path / "model")))


def test_resume_equals_no_resume(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 4)
    expected = sft.train(words(), opened(world, tmp_path / "whole"), CPU)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", dying(7))
        with pytest.raises(KeyboardInterrupt):
            sft.train(words(), opened(world, tmp_path / "cut"), CPU)
    assert trainer.newest(tmp_path / "cut" / "checkpoints").name == "checkpoint-4"
    numbers = sft.train(words(), opened(world, tmp_path / "cut", resumed=True), CPU)
    assert numbers["validation_loss_before"] == expected["validation_loss_before"]
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    keep = ("step", "tokens", "loss", "learning_rate")
    assert [{k: row[k] for k in keep} for row in metrics(tmp_path / "cut")] == [
        {k: row[k] for k in keep} for row in metrics(tmp_path / "whole")
    ]


def test_the_start_model_is_measured_where_the_trainer_has_placed_it(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharded over processes, it is whole nowhere before."""
    placed: dict[str, bool] = {}

    def noting(name: str, measure: Any) -> Any:
        def noted(learner: Any, *given: Any, **words: Any) -> Any:
            placed.setdefault(name, isinstance(learner.optimizer, AcceleratedOptimizer))  # at first
            return measure(learner, *given, **words)

        return noted

    monkeypatch.setattr(sft, "loss", noting("loss", sft.loss))
    monkeypatch.setattr(watch, "ask", noting("watch", watch.ask))
    optim = {"learning_rate": 1e-2, "batch_size": 32, "epochs": 1}
    asking = words(optim=optim, watch={"prompts": ["Say ab1"], "max_new_tokens": 2})
    numbers = sft.train(asking, opened(world, tmp_path), CPU)
    assert placed == {"loss": True, "watch": True}
    start = build.load(world / "start" / "model", CPU)
    assert numbers["validation_loss_before"] == pytest.approx(mean_loss(start, world / "mix" / "validation.jsonl"), rel=1e-5)


@torch.no_grad()
def mean_loss(model: Any, path: Path) -> float:
    """Nats per learnt token, row by row in plain torch."""
    nats = tokens = 0.0
    for row in mixture.load(path):
        logits, labels = model(torch.tensor([row["input_ids"]]), use_cache=False).logits[0], torch.tensor(row["labels"])
        nats += float(F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum"))
        tokens += int((labels != -100).sum())
    return nats / tokens


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("way", ["plain", "masters", "adapter"])
def test_the_model_is_that_of_the_epoch_with_the_lowest_validation_loss(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, killed: bool
) -> None:
    """An epoch has 8 updates; the first of three is made to look best."""
    monkeypatch.setattr(sft, "loss", lambda learner, _: {0: 5.0, 8: 1.0, 16: 2.0, 24: 3.0}[learner.state.global_step])
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 4)
    machine = replace(CPU, dtype="bfloat16") if way == "masters" else CPU
    adapter = {"rank": 4, "alpha": 8} if way == "adapter" else None
    optim = {"learning_rate": 1e-2, "batch_size": 8, "schedule": "constant"}
    one, three = (words(optim={**optim, "epochs": epochs}, adapter=adapter) for epochs in (1, 3))
    sft.train(one, opened(world, tmp_path / "one"), machine)
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(Run, "log", dying(22))
            with pytest.raises(KeyboardInterrupt):
                sft.train(three, opened(world, tmp_path / "three"), machine)
    numbers = sft.train(three, opened(world, tmp_path / "three", resumed=killed), machine)
    assert (numbers["best_epoch"], numbers["validation_loss"], numbers["updates"]) == (1, 1.0, 24)
    first, best = weights(tmp_path / "one"), weights(tmp_path / "three")
    assert all(torch.equal(first[name], best[name]) for name in first)


def dying(step: int) -> Any:
    """A log in whose way the run is killed."""
    log = Run.log

    def cut(self: Run, **row: Any) -> None:
        if row["step"] == step:
            raise KeyboardInterrupt
        log(self, **row)

    return cut


def test_the_cut_into_passes_changes_nothing_and_the_loss_is_the_token_mean(world: Path, tmp_path: Path) -> None:
    one = words(optim={"learning_rate": 1e-3, "batch_size": 8, "epochs": 1, "schedule": "constant"})
    sft.train(one, opened(world, tmp_path / "a"), CPU)  # 8 sequences a pass
    sft.train(one, opened(world, tmp_path / "b"), replace(CPU, micro_tokens=64))  # 1 sequence a pass
    first, second = metrics(tmp_path / "a"), metrics(tmp_path / "b")
    assert [row["loss"] for row in first] == pytest.approx([row["loss"] for row in second], rel=1e-5)
    assert [row["grad_norm"] for row in first] == pytest.approx([row["grad_norm"] for row in second], rel=1e-4)
    nats, tokens = oracle(world, one)
    assert first[0]["loss"] == pytest.approx(nats / tokens, rel=1e-5)
    # a token a byte, and an end mark for each of the 8 answers, which is no text
    assert first[0]["bits_per_byte"] == pytest.approx(nats / math.log(2) / (tokens - 8), rel=1e-5)


def oracle(world: Path, one: Any) -> tuple[float, int]:
    """The first update's summed loss in plain torch, and its learnt tokens."""
    rows = list(mixture.load(world / "mix" / "rows.jsonl"))
    order = trainer.order([len(row["input_ids"]) for row in rows], one.optim, one.seed)
    model = build.load(world / "start" / "model", CPU)
    total, tokens = 0.0, 0
    for i in order[:8]:
        ids, labels = torch.tensor([rows[i]["input_ids"]]), torch.tensor(rows[i]["labels"])
        logits = model(ids, use_cache=False).logits[0]
        total += float(F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum"))
        tokens += int((labels != -100).sum())
    return total, tokens


@pytest.mark.parametrize(("adapter", "dtype"), [(None, "bfloat16"), ({"rank": 4, "alpha": 8}, "float32")])
def test_questions_are_asked_while_it_learns_and_change_nothing(
    world: Path, tmp_path: Path, adapter: Any, dtype: str
) -> None:
    machine = replace(CPU, dtype=dtype)
    plain = words(adapter=adapter)
    asking = words(adapter=adapter, watch={"prompts": ["Say ab1"], "run": "mix", "questions": 3, "max_new_tokens": 8})
    sft.train(plain, opened(world, tmp_path / "plain"), machine)
    numbers = sft.train(asking, opened(world, tmp_path / "asking"), machine)
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "asking")
    assert all(torch.equal(first[name], second[name]) for name in first)
    said = [json.loads(line) for line in (tmp_path / "asking" / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in said] == [step for step in (0, 8, 16, 24) for _ in range(4)]  # an epoch has 8 updates
    assert all(row["prompt"].endswith("Assistant:") for row in said)
    last = said[-4:]
    assert numbers["stop_rate"] == sum(row["finish"] == "stop" for row in last) / 4
    assert numbers["stop_rate_before"] == sum(row["finish"] == "stop" for row in said[:4]) / 4
    assert numbers["repetition_ratio"] == sum(row["loops"] for row in last) / 4
    logged = [row["step"] for row in metrics(tmp_path / "asking") if "repetition_ratio" in row]
    assert logged == [8, 16, 24]


def test_a_watched_run_without_questions_or_with_a_sharded_model_is_refused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="give prompts, or run"):
        words(watch={})
    monkeypatch.setattr(build, "load", None)
    asking = words(watch={"prompts": ["Say ab1"]})
    with pytest.raises(HardwareError, match="shards the model"):
        sft.train(asking, opened(world, tmp_path), replace(CPU, name="8x80gb"))


def test_noise_on_embeddings_changes_what_is_learnt_and_resume_is_exact_with_it(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY", 4)
    machine = replace(CPU, recompute="selective")
    noisy = words(neftune=5.0, optim={"learning_rate": 1e-2, "batch_size": 8, "epochs": 1})
    quiet = words(optim={"learning_rate": 1e-2, "batch_size": 8, "epochs": 1})
    sft.train(quiet, opened(world, tmp_path / "quiet"), machine)
    sft.train(noisy, opened(world, tmp_path / "whole"), machine)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", dying(7))
        with pytest.raises(KeyboardInterrupt):
            sft.train(noisy, opened(world, tmp_path / "cut"), machine)
    sft.train(noisy, opened(world, tmp_path / "cut", resumed=True), machine)
    still, whole, cut = (weights(tmp_path / name) for name in ("quiet", "whole", "cut"))
    assert not all(torch.equal(still[name], whole[name]) for name in whole)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


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


def test_the_group_of_processes_is_left_when_training_fails(world: Path, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    here = opened(world, tmp_path / "out")
    here.inputs = {**here.inputs, "start": Finished(tmp_path / "empty", {"stage": "pretrain"})}
    with pytest.raises(ModelError, match="holds no model"):
        sft.train(words(), here, CPU)
    assert not torch.distributed.is_initialized()


def test_a_mixture_made_with_another_tokenizer_is_refused(world: Path, tmp_path: Path) -> None:
    here = opened(world, tmp_path / "out")
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "ledger.json").write_text('{"tokenizer": "another"}')
    here.inputs = {**here.inputs, "mix": Finished(tmp_path / "mix", {"stage": "mixture"})}
    with pytest.raises(DataError, match="another tokenizer"):
        sft.train(words(), here, CPU)


def test_rows_that_would_teach_something_else_are_refused_before_the_weights_load(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixture whose rows lost their end marks after it was built."""
    rows = list(mixture.load(world / "mix" / "rows.jsonl"))
    cut = [{**row, **{name: row[name][:-1] for name in ("input_ids", "labels")}} for row in rows]
    here = opened(world, tmp_path / "out")
    tiny.write_rows(tmp_path / "mix" / "rows.jsonl", cut)
    for name in ("ledger.json", "validation.jsonl"):
        (tmp_path / "mix" / name).symlink_to(world / "mix" / name)
    here.inputs = {**here.inputs, "mix": Finished(tmp_path / "mix", {"stage": "mixture"})}
    monkeypatch.setattr(build, "load", None)
    with pytest.raises(DataError, match=f"{len(rows)}: an answer does not end in a learnt end mark"):
        sft.train(words(), here, CPU)
    assert (tmp_path / "out" / "doctor.html").exists()
