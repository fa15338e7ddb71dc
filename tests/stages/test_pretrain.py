"""Pre-training end to end on tiny models: it learns, it resumes exactly, and the machine does not change the result."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from alignment import recipe, run, tokenizer
from alignment.corpus import shards
from alignment.corpus.documents import Document
from alignment.errors import ModelError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.pretrain import loop, loss, watch
from alignment.pretrain.guard import Guard
from alignment.pretrain.learner import Learner
from tests import tiny

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CPU = Hardware("cpu", "cpu", "float32", "test", "sdpa", 256, False, 1, 1)
RECIPE = recipe.Pretrain(
    stage="pretrain",
    data="shards",
    model=recipe.Model(layers=2, width=32, heads=2, tie=True),
    optim=recipe.PretrainOptim(learning_rate=1e-2, warmup_steps=4),
    tokens=12 * 8 * 32,
    batch_size=8,
    sequence_length=32,
    init_std=0.02,
    log_every=1,
    checkpoint_every=5,
)


def write_shards(folder: Path) -> Path:
    """A shards run of 120 short documents in two domains."""
    texts = [f"{a} + {b} = {a + b}. The cat sat on mat {a}." for a in range(12) for b in range(10)]
    found = [Document(str(i), text, "odd" if i % 2 else "even", "en", "x") for i, text in enumerate(texts)]
    encoder = tokenizer.learn(texts, 280, "deepseek-llm")
    tokenizer.write(encoder, folder / "tokenizer", "deepseek-llm")
    shards.write_split(folder / "train", found[12:], encoder, 1000)
    shards.write_split(folder / "heldout", found[:12], encoder, 1000)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def begin(path: Path, data: Path, *, resumed: bool = False, main: bool = True) -> run.Run:
    path.mkdir(exist_ok=True)
    return run.Run(path, {"shards": run.Finished(data, {"numbers": {}})}, {}, main, resumed, {})


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data) -> Path:
    """The same run without any trouble."""
    path = tmp_path_factory.mktemp("straight")
    numbers = loop.train(RECIPE, begin(path, data), CPU)
    (path / "numbers.json").write_text(json.dumps(numbers))
    return path


def test_the_loss_falls_and_the_closing_numbers_are_whole(straight):
    losses = [row["loss"] for row in rows(straight)]
    assert losses[0] == pytest.approx(math.log(280), abs=0.1)
    assert losses[-1] < losses[0] - 1
    numbers = json.loads((straight / "numbers.json").read_text())
    assert numbers["tokens"] == 12 * 8 * 32
    assert 0 < numbers["bits_per_byte"] < 8
    assert min(numbers[f"bits_per_byte.{name}"] for name in ("even", "odd")) <= numbers["bits_per_byte"]
    assert numbers["bits_per_byte_order3"] < numbers["bits_per_byte_unigram"]
    assert set(rows(straight)[0]) == tiny.COLUMNS | {"epochs", "skipped", "checkpoint_age_seconds"}


def test_held_out_bits_per_byte_equal_a_plain_sum_over_documents(straight, data):
    model, words = build.load(straight / "model", CPU), build.read_tokenizer(data / "tokenizer")
    unseen = shards.Shards.open(data, "heldout")
    nats = 0.0
    for number in range(len(unseen)):
        ids = torch.from_numpy(unseen[number].astype(np.int64))[None]
        assert ids[0, 0] == words.bos_token_id
        assert ids.shape[1] <= RECIPE.sequence_length + 1
        nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    found = json.loads((straight / "numbers.json").read_text())["bits_per_byte"]
    assert found == pytest.approx(nats / math.log(2) / unseen.bytes.sum(), rel=1e-5)


def interrupted(words, path, data, monkeypatch, at: str) -> None:
    """Train up to an update at which the machine goes down."""
    learn = Learner.update

    def dies(self, batch, rate, where):
        if where == at:
            raise KeyboardInterrupt
        return learn(self, batch, rate, where)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", dies)
        with pytest.raises(KeyboardInterrupt):
            loop.train(words, begin(path, data), CPU)


def same(path: Path, straight: Path) -> None:
    """The whole curve and all weights, bit for bit."""
    for name in ("step", "loss", "grad_norm"):
        assert [row[name] for row in rows(path)] == [row[name] for row in rows(straight)]
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(path)[name]), name


def test_resume_equals_no_resume_bit_for_bit(straight, data, tmp_path, monkeypatch):
    path = tmp_path / "run"
    interrupted(RECIPE, path, data, monkeypatch, "update 8")
    (path / "checkpoints" / "step-10.part").mkdir()  # half-written when the machine went down
    loop.train(RECIPE, begin(path, data, resumed=True), CPU)
    assert "resumed from step-5" in (path / "log.txt").read_text()
    same(path, straight)


def test_checkpoints_are_written_by_the_clock_too(straight, data, tmp_path, monkeypatch):
    path, often = tmp_path / "run", RECIPE.model_copy(update={"checkpoint_every": 1000, "checkpoint_minutes": 1e-9})
    interrupted(often, path, data, monkeypatch, "update 8")
    assert sorted(folder.name for folder in (path / "checkpoints").iterdir()) == ["step-6", "step-7"]
    loop.train(often, begin(path, data, resumed=True), CPU)
    same(path, straight)


def test_samples_after_the_checkpoint_are_written_once(data, tmp_path, monkeypatch):
    path, seen = tmp_path / "run", RECIPE.model_copy(update={"validate_every": 3, "prompts": ("1 + 1 =",)})
    interrupted(seen, path, data, monkeypatch, "update 8")
    loop.train(seen, begin(path, data, resumed=True), CPU)
    samples = [json.loads(line)["step"] for line in (path / "samples.jsonl").read_text().splitlines()]
    assert samples == [3, 6, 9, 12]


def test_the_number_of_forward_passes_does_not_change_the_gradient(data):
    words = build.read_tokenizer(data / "tokenizer")
    shape = loop.presets.resolve(RECIPE.model, len(words), 32)
    batch = np.random.default_rng(0).integers(0, 280, (8, 33))
    found = []
    for micro_tokens in (8 * 32, 32):
        model = build.build(shape, words, CPU, seed=0, init_std=0.02)
        loss.attach(model)
        one = replace(CPU, micro_tokens=micro_tokens)
        learner = Learner(RECIPE, one, Accelerator(cpu=True), model, Quiet(), 0, Guard(RECIPE.guard))
        learner.update(batch, 0.0, "here")
        found.append({name: tensor.grad for name, tensor in model.named_parameters()})
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name


def test_isolated_documents_are_learnt_from_as_if_each_stood_alone(data, tmp_path, monkeypatch):
    learn, oracle = Learner.update, []

    def nats(model, row, first, end):
        hidden_TD = model.model(input_ids=torch.from_numpy(row[None, first:end])).last_hidden_state[0]
        targets_T = torch.from_numpy(row[first + 1 : end + 1])
        return torch.nn.functional.cross_entropy(model.lm_head(hidden_TD), targets_T, reduction="sum")

    def spy(self, batch, rate, where):
        total = 0.0
        for row in batch:
            edges = [0, *(at for at in range(1, len(row) - 1) if row[at] == self.bos), len(row) - 1]
            total += sum(nats(self.model, row, *piece).item() for piece in pairwise(edges))
        oracle.append(total / batch[:, 1:].size)
        return learn(self, batch, rate, where)

    monkeypatch.setattr(Learner, "update", spy)
    alone = RECIPE.model_copy(update={"attend_across_documents": False, "tokens": 2 * 8 * 32})
    loop.train(alone, begin(tmp_path / "run", data), CPU)
    assert [row["loss"] for row in rows(tmp_path / "run")] == pytest.approx(oracle, rel=1e-5)
    loop.train(alone.model_copy(update={"attend_across_documents": True}), begin(tmp_path / "other", data), CPU)
    assert abs(rows(tmp_path / "other")[1]["loss"] - oracle[3]) > 1e-5  # the oracle tells the two apart


class Quiet:
    """An optimizer that leaves gradients where they are."""

    param_groups = ()

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_update(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Learner, "_forward", lambda self, _: (self.model.lm_head.weight.sum() * math.nan, torch.tensor(math.nan))
    )
    with pytest.raises(ModelError, match=r"update 4: loss nan.*4 update\(s\) in a row"):
        loop.train(RECIPE, begin(tmp_path / "run", data), CPU)


def test_an_update_that_is_no_number_is_left_out_and_counted(straight, data, tmp_path, monkeypatch):
    forward, calls = Learner._forward, []

    def once(self, part):
        calls.append(part)
        summed, nats = forward(self, part)
        return (summed * math.nan, nats) if len(calls) == 5 else (summed, nats)

    monkeypatch.setattr(Learner, "_forward", once)
    numbers = loop.train(RECIPE, begin(tmp_path / "run", data), CPU)
    assert numbers["skipped"] == 1
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4, *range(6, 13)]
    assert [row["loss"] for row in rows(tmp_path / "run")[:4]] == [row["loss"] for row in rows(straight)[:4]]
    assert "update 5 is left out: loss" in (tmp_path / "run" / "log.txt").read_text()


def test_a_corrupt_checkpoint_is_passed_over_and_the_end_is_the_same(straight, data, tmp_path, monkeypatch):
    path = tmp_path / "run"
    interrupted(RECIPE, path, data, monkeypatch, "update 12")
    spoilt = path / "checkpoints" / "step-10" / "tensors.safetensors"
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"?")
    loop.train(RECIPE, begin(path, data, resumed=True), CPU)
    said = (path / "log.txt").read_text()
    assert "checkpoint step-10 is passed over: the sha256 of tensors.safetensors" in said
    assert "resumed from step-5" in said
    same(path, straight)


def test_validation_prompts_and_mixture_are_written_down_and_validation_changes_nothing(straight, data, tmp_path):
    seen = {"validate_every": 6, "prompts": ("1 + 1 =", "The cat")}
    numbers = loop.train(RECIPE.model_copy(update=seen), begin(tmp_path / "seen", data), CPU)
    written = rows(tmp_path / "seen")
    scores = [row for row in written if "heldout_bits_per_byte" in row]
    assert [row["step"] for row in scores] == [6, 12]
    assert set(scores[0]) == {"step", "time", *(f"heldout_bits_per_byte{name}" for name in ("", ".even", ".odd"))}
    assert scores[1]["heldout_bits_per_byte"] == pytest.approx(numbers["bits_per_byte"], rel=1e-9)
    assert [row["loss"] for row in written if "loss" in row] == [row["loss"] for row in rows(straight)]
    samples = [json.loads(line) for line in (tmp_path / "seen" / "samples.jsonl").read_text().splitlines()]
    assert [(row["step"], row["prompt"]) for row in samples] == [
        (step, text) for step in (6, 12) for text in seen["prompts"]
    ]
    assert all(isinstance(row["text"], str) for row in samples)
    mixed = RECIPE.model_copy(update={"mixture": {"even": 0.75, "odd": 0.25}, "tokens": 4 * 8 * 32})
    numbers = loop.train(mixed, begin(tmp_path / "mixed", data), CPU)
    assert numbers["epochs.even"] > numbers["epochs.odd"] > 0
    assert set(rows(tmp_path / "mixed")[0]) >= {"epochs.even", "epochs.odd"}


def test_a_tracker_gets_every_row(straight, data, tmp_path, monkeypatch):
    begun, got = [], []
    monkeypatch.setattr(watch, "find_spec", lambda name: name)
    monkeypatch.setattr(Accelerator, "init_trackers", lambda _, name, config: begun.append((name, config["learning_rate"])))
    monkeypatch.setattr(Accelerator, "log", lambda _, row, step: got.append((step, row["loss"])))
    loop.train(RECIPE.model_copy(update={"tracker": "tensorboard"}), begin(tmp_path / "run", data), CPU)
    assert begun == [(tmp_path.name, 1e-2)]
    assert got == [(row["step"], row["loss"]) for row in rows(straight)]


def test_a_profile_may_have_the_layers_compiled(straight, data, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    loop.train(RECIPE, begin(tmp_path / "run", data), replace(CPU, compile=True))
    assert compiled == ["LlamaModel"]
    same(tmp_path / "run", straight)


def test_z_loss_is_learnt_from_and_not_reported(straight, data, tmp_path):
    z = RECIPE.model_copy(update={"optim": RECIPE.optim.model_copy(update={"z_loss": 0.1}), "tokens": 4 * 8 * 32})
    loop.train(z, begin(tmp_path / "run", data), CPU)
    assert rows(tmp_path / "run")[0]["loss"] == rows(straight)[0]["loss"]
    assert rows(tmp_path / "run")[0]["grad_norm"] != pytest.approx(rows(straight)[0]["grad_norm"], rel=1e-3)
