"""The command with a real, tiny model: killed and continued, asked again alone, held against its training text."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment import manifest, run, terminal
from alignment.corpus import index
from eval import __main__ as command

ROOT = Path(__file__).parents[2]
ITEMS = 40
LONG = "This is the homework of"
SLOWLY = """
import sys, time
from alignment import terminal
from eval import __main__ as command, harness

evaluate = harness.evaluate

def slowly(*words, advance, **more):
    return evaluate(*words, advance=lambda n: (advance(n), time.sleep(0.1)), **more)

harness.evaluate = slowly
sys.exit(terminal.guarded(lambda: command.run_command(sys.argv[1:]), resumes=False))
"""  # time enough between two answers to be killed there


@pytest.fixture
def model(tmp_path):
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE({mark: i for i, mark in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", bos_token="<begin>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    made = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.2)
        made.lm_head.weight.normal_(0, 0.6)  # logits far apart: no near ties
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path):
    draw = random.Random(1)
    for name in ("train", "test"):
        rows = [{"question": question(draw), "answer": "#### 7", "language": "en"} for _ in range(ITEMS)]
        save(tmp_path / f"data/mini-gsm8k/{name}.jsonl", rows)
    for name in ("dev", "val"):
        rows = [{"question": f"{draw.random()}", "answer": "B", "subject": "s", "language": "en"} for _ in range(ITEMS)]
        save(tmp_path / f"data/mini-ceval/{name}.jsonl", [row | dict.fromkeys("ABCD", "x") for row in rows])
    return tmp_path / "data"


def question(draw):
    """Nine made-up words, so that no two questions share any."""
    return " ".join("".join(draw.choices("abcdefgh", k=4)) for _ in range(9)) + "?"


def save(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def answered(out):
    return sum(file.read_bytes().count(b"\n") for file in (out / "answers").glob("*.jsonl"))


def killed(words, out, at):
    """Start an evaluation and kill it once it has saved so many answers; return how many it had."""
    child = subprocess.Popen([sys.executable, "-c", SLOWLY, *words, "--out", str(out)], cwd=ROOT)
    try:
        while answered(out) < at:
            assert child.poll() is None, f"it ended by itself with {child.returncode}"
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    return answered(out)


def test_a_model_that_is_not_there_is_said_before_its_items_are_sought(capsys):
    assert terminal.guarded(lambda: command.run_command(["runs/nope", "--tasks", "gsm8k"]), resumes=False) == 2
    assert "error: runs/nope: no such run or folder." in capsys.readouterr().err


@pytest.mark.slow
def test_an_evaluation_that_is_killed_continues_and_gives_the_same_report(model, data, tmp_path):
    tasks = ["--tasks", "mini-gsm8k,mini-ceval", "--form", "completion"]
    words = [str(model), *tasks, "--data-root", str(data)]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert terminal.guarded(lambda: command.run_command([*words, "--out", str(whole)]), resumes=False) == 0
    first = killed(words, out, at=5)
    assert 5 <= first < ITEMS
    assert not (out / "report.json").exists()
    kept = (out / "answers/mini-gsm8k.jsonl").read_text().splitlines()[:first]
    second = killed(words, out, at=ITEMS + 5)
    assert ITEMS < second < 2 * ITEMS
    assert terminal.guarded(lambda: command.run_command([*words, "--out", str(out)]), resumes=False) == 0
    assert (out / "answers/mini-gsm8k.jsonl").read_text().splitlines()[:first] == kept
    assert answered(out) == 2 * ITEMS
    for file in ("report.json", "samples/mini-gsm8k.jsonl", "samples/mini-ceval.jsonl"):
        assert (out / file).read_text() == (whole / file).read_text(), file


@pytest.mark.slow
def test_items_are_asked_again_alone_and_held_against_the_training_text(model, data, tmp_path, capsys):
    asked = [json.loads(line)["question"] for line in (data / "mini-gsm8k/test.jsonl").read_text().splitlines()]
    plan = manifest.compose(words={"stage": "corpus", "seed": 0}, inputs={}, cards={}, hardware={})
    live = run.begin(tmp_path / "corpus", plan, inputs={}, cards={}, main=True, resume=False, recipe_text="")
    save(live.path / "documents.jsonl", [{"text": f"{LONG} {question}"} for question in asked[:10]])
    run.finish(live, {})
    index.write([live.path], tmp_path / "index")
    words = [str(model), "--tasks", "mini-gsm8k,mini-ceval", "--form", "completion", "--data-root", str(data)]
    words += ["--out", str(tmp_path / "out"), "--verify-invariance", "--contamination", str(tmp_path / "index")]
    assert terminal.guarded(lambda: command.run_command(words), resumes=False) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "out/report.json").read_text())["tasks"]
    for name in ("mini-gsm8k", "mini-ceval"):
        assert found[name]["invariance"]["asked_again"] == 8
        assert found[name]["invariance"]["flips"] == []
        assert f"{name}: 8 items asked again alone, 0 flipped" in said
    assert found["mini-gsm8k"]["invariance"]["texts_differ"] == 0
    assert found["mini-ceval"]["invariance"]["largest_gap"] < 1e-4
    assert [found[name]["contamination"]["marked"] for name in ("mini-gsm8k", "mini-ceval")] == [10, 0]
    assert "mini-gsm8k: 10 of 40 items share text with the index; " in said
