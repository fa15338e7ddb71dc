"""Pre-training end to end on tiny models: it learns, it resumes exactly, and the machine does not change the result."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
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
from alignment.errors import HardwareError, ModelError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.pretrain import loop
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


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A shards run of 120 short documents in two domains."""
    folder = tmp_path_factory.mktemp("shards")
    texts = [f"{a} + {b} = {a + b}. The cat sat on mat {a}." for a in range(12) for b in range(10)]
    found = [Document(str(i), text, "odd" if i % 2 else "even", "en", "x") for i, text in enumerate(texts)]
    encoder = tokenizer.learn(texts, 280, "deepseek-llm")
    tokenizer.write(encoder, folder / "tokenizer", "deepseek-llm")
    shards.write_split(folder / "train", found[12:], encoder, 1000)
    shards.write_split(folder / "heldout", found[:12], encoder, 1000)
    return folder


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
    assert set(rows(straight)[0]) == tiny.COLUMNS
    assert not (straight / "checkpoints").exists()


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


def test_resume_equals_no_resume_bit_for_bit(straight, data, tmp_path, monkeypatch):
    learn = loop.Learner.update

    def dies(self, batch, rate, where):
        if where == "update 8":
            raise KeyboardInterrupt
        return learn(self, batch, rate, where)

    path = tmp_path / "run"
    monkeypatch.setattr(loop.Learner, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        loop.train(RECIPE, begin(path, data), CPU)
    (path / "checkpoints" / "step-10.part").mkdir()  # half-written when the machine went down
    monkeypatch.setattr(loop.Learner, "update", learn)
    loop.train(RECIPE, begin(path, data, resumed=True), CPU)
    assert [row["loss"] for row in rows(path)] == [row["loss"] for row in rows(straight)]
    assert [row["step"] for row in rows(path)] == list(range(1, 13))
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(path)[name]), name


def test_the_number_of_forward_passes_does_not_change_the_gradient(data):
    words = build.read_tokenizer(data / "tokenizer")
    shape = loop.presets.resolve(RECIPE.model, len(words), 32)
    batch = np.random.default_rng(0).integers(0, 280, (8, 33))
    found = []
    for micro_tokens in (8 * 32, 32):
        model = build.build(shape, words, CPU, seed=0, init_std=0.02)
        learner = loop.Learner(RECIPE, replace(CPU, micro_tokens=micro_tokens), Accelerator(cpu=True), model, Quiet(), 0)
        learner.update(batch, 0.0, "here")
        found.append({name: tensor.grad for name, tensor in model.named_parameters()})
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name


def test_isolated_documents_are_learnt_from_as_if_each_stood_alone(data, tmp_path, monkeypatch):
    learn, oracle = loop.Learner.update, []

    def nats(model, row, first, end):
        logits_TV = model(input_ids=torch.from_numpy(row[None, first:end])).logits[0]
        return torch.nn.functional.cross_entropy(logits_TV, torch.from_numpy(row[first + 1 : end + 1]), reduction="sum")

    def spy(self, batch, rate, where):
        total = 0.0
        for row in batch:
            edges = [0, *(at for at in range(1, len(row) - 1) if row[at] == self.bos), len(row) - 1]
            total += sum(nats(self.model, row, *piece).item() for piece in pairwise(edges))
        oracle.append(total / batch[:, 1:].size)
        return learn(self, batch, rate, where)

    monkeypatch.setattr(loop.Learner, "update", spy)
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
    monkeypatch.setattr(loop.F, "cross_entropy", lambda logits, *_, **__: logits.sum() * math.nan)
    with pytest.raises(ModelError, match="update 1: loss nan"):
        loop.train(RECIPE, begin(tmp_path / "run", data), CPU)


def test_more_processes_than_were_started_are_refused(data, tmp_path):
    with pytest.raises(HardwareError, match="2 process"):
        loop.train(RECIPE, begin(tmp_path / "run", data), replace(CPU, processes=2))


def test_two_processes_learn_what_one_does(straight, data, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    path = tmp_path / "run"
    path.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(worker)]
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    subprocess.run([*command, str(path), str(data)], check=True, env={**os.environ, **settings}, timeout=300)
    for one, two in zip(rows(straight), rows(path), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
    numbers = json.loads((path / "numbers.json").read_text())
    assert numbers["bits_per_byte"] == pytest.approx(
        json.loads((straight / "numbers.json").read_text())["bits_per_byte"], abs=1e-4
    )


WORKER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
import test_pretrain as here
from alignment.pretrain import loop
from tests import tiny

path, data = Path(sys.argv[1]), Path(sys.argv[2])
main = os.environ["RANK"] == "0"
numbers = loop.train(here.RECIPE, here.begin(path, data, main=main), replace(here.CPU, processes=2))
if main:
    (path / "numbers.json").write_text(json.dumps(numbers))
"""
