"""DPO on a tiny model: it starts at ln 2, the chosen answer wins, and the loss is the paper's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from alignment import chat, recipe
from alignment.errors import DataError, ModelError
from alignment.hardware import Hardware
from alignment.models import build
from alignment.models.presets import Shape
from alignment.posttrain import dpo, mixture
from alignment.run import Finished, Run

pytestmark = pytest.mark.slow
CPU = Hardware("cpu", "cpu", "float32", "test", "sdpa", micro_tokens=512, recompute=False, processes=1, threads=1)
PAIRS = [
    {
        "id": str(i),
        "prompt": f"What is {i}?",
        "chosen": f"It is {i}.",
        "rejected": "no" * (1 + i % 3),
        "reason": "test",
        "language": "en",
        "domain": "d",
    }
    for i in range(32)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model and pairs, as finished runs."""
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
    (root / "pairs").mkdir()
    mixture.save(root / "pairs" / "pairs.jsonl", PAIRS)
    mixture.save(root / "pairs" / "heldout_pairs.jsonl", [{**pair, "prompt": "Now " + pair["prompt"]} for pair in PAIRS[:8]])
    return root


def opened(root: Path, out: Path) -> Run:
    out.mkdir(parents=True, exist_ok=True)
    inputs = {name: Finished(root / name, {"stage": name}) for name in ("start", "pairs")}
    return Run(out, inputs, {}, True, False, {})


def words(**changes: Any) -> Any:
    raw = {
        "stage": "dpo",
        "start": {"run": "start"},
        "data": [{"run": "pairs"}],
        "optim": {"learning_rate": 3e-3, "batch_size": 8, "epochs": 3, "warmup": 0.1},
        "max_length": 64,
    }
    return recipe.validate(raw | changes, "t")


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_it_starts_at_ln_2_and_the_chosen_answer_wins(world: Path, tmp_path: Path) -> None:
    numbers = dpo.train(words(), opened(world, tmp_path), CPU)
    rows = metrics(tmp_path)
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert len(rows) == 12
    assert rows[-1]["loss"] < 0.6
    assert numbers["train_accuracy"] == numbers["heldout_accuracy"] == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.txt", "metrics.jsonl", "model"]


def test_the_second_loss_is_the_papers_equation(world: Path, tmp_path: Path) -> None:
    """One update per epoch over all pairs: the second loss can be worked out from the model after the first."""
    optim = {"learning_rate": 3e-3, "batch_size": 32, "epochs": 1, "schedule": "constant"}
    dpo.train(words(optim=optim), opened(world, tmp_path / "one"), CPU)
    dpo.train(words(optim={**optim, "epochs": 2}), opened(world, tmp_path / "two"), CPU)
    start, after = (build.load(folder / "model", CPU) for folder in (world / "start", tmp_path / "one"))
    pairs, _ = dpo.tokenise(PAIRS, build.read_tokenizer(world / "start" / "model"), 64)
    margins = []
    for pair in pairs:
        ratio = [
            logprob(after, pair["prompt_ids"], pair[side]) - logprob(start, pair["prompt_ids"], pair[side])
            for side in ("chosen_ids", "rejected_ids")
        ]
        margins.append(ratio[0] - ratio[1])
    expected = -F.logsigmoid(0.1 * torch.tensor(margins)).mean()  # Rafailov et al. (2023), equation 7
    assert metrics(tmp_path / "two")[1]["loss"] == pytest.approx(float(expected), rel=1e-4)


@torch.no_grad()
def logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())


def test_an_adapter_is_trained_against_the_bare_start(world: Path, tmp_path: Path) -> None:
    dpo.train(words(adapter={"rank": 4, "alpha": 8}), opened(world, tmp_path), CPU)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    before, after = (AutoModelForCausalLM.from_pretrained(p / "model").state_dict() for p in (world / "start", tmp_path))
    assert {n for n in before if not torch.equal(before[n], after[n])} == {n for n in before if "self_attn" in n}


def test_a_reference_that_is_not_the_policy_stops_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drifted(self: Any, model: Any, inputs: Any) -> Any:
        chosen, rejected = original(self, model, inputs)
        return chosen + 1, rejected

    original = dpo.DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(dpo.DPOTrainer, "compute_ref_log_probs", drifted)
    with pytest.raises(ModelError, match="not ln 2"):
        dpo.train(words(), opened(world, tmp_path), CPU)


def test_pairs_end_in_the_end_mark_and_start_where_the_model_speaks(world: Path) -> None:
    tokenizer = build.read_tokenizer(world / "start" / "model")
    odd = [
        {**PAIRS[0], "prompt": f"Say {chat.EOS}", "chosen": "a"},
        {**PAIRS[0], "rejected": PAIRS[0]["chosen"]},
        {**PAIRS[0], "rejected": "x" * 99},
        {**PAIRS[0], "chosen": " "},
    ]
    (pair,), dropped = dpo.tokenise(odd, tokenizer, 90)
    asked = [{"role": "user", "content": odd[0]["prompt"]}]
    assert pair["prompt_ids"] == chat.encode(tokenizer, asked, answer=False).input_ids
    assert tokenizer.eos_token_id not in pair["prompt_ids"]
    assert pair["chosen_ids"][-1] == pair["rejected_ids"][-1] == tokenizer.eos_token_id
    assert dropped == {"equal answers": 1, "longer than 90 tokens": 1, "empty answer": 1}


def test_a_run_without_pairs_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pairs\.jsonl"):
        dpo.train(words(data=[{"run": "start"}]), opened(world, tmp_path), CPU)
