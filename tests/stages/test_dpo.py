"""DPO on a tiny model: it starts at ln 2, the chosen answer wins, and the loss is the paper's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from alignment import chat, recipe, run
from alignment.errors import DataError, ModelError
from alignment.models import build
from alignment.posttrain import dpo, health, mixture
from alignment.posttrain import pairs as preference
from alignment.run import Run
from tests import tiny
from tests.tiny import CPU, PAIRS, metrics

pytestmark = pytest.mark.slow
answer = preference.answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start model and pairs, as finished runs."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_start(root / "start")
    tiny.write_rows(root / "pairs" / "pairs.jsonl", PAIRS)
    unseen = [{**pair, "prompt": "Now " + pair["prompt"]} for pair in PAIRS[:7]]  # the last batch of them is not full
    tiny.write_rows(root / "pairs" / "heldout_pairs.jsonl", unseen)
    return root


def opened(root: Path, out: Path) -> Run:
    return tiny.opened(root, out, {"start": "sft", "pairs": "preferences"})


def words(**changes: Any) -> Any:
    raw = {
        "stage": "dpo",
        "start": {"run": "start"},
        "data": [{"run": "pairs"}],
        "optim": {"learning_rate": 3e-3, "batch_size": 8, "epochs": 3, "warmup": 0.1},
        "max_length": 64,
    }
    return recipe.validate(raw | changes, "t")


def test_it_starts_at_ln_2_and_the_chosen_answer_wins(world: Path, tmp_path: Path) -> None:
    numbers = dpo.train(words(), opened(world, tmp_path), CPU)
    rows = metrics(tmp_path)
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert len(rows) == 12
    watched = {"kl", "chosen_gain", *(f"margin_{name}" for name in health.BUCKETS)}
    assert set(rows[0]) == {*tiny.COLUMNS, *dpo.NAMES.values(), *watched}
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert all(row["bits_per_byte"] is None and 0 < row["mfu"] < 1 for row in rows)
    assert rows[-1]["loss"] < 0.6
    assert numbers["train_accuracy"] == numbers["heldout_accuracy"] == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["doctor.html", "log.txt", "metrics.jsonl", "model"]


def test_the_second_loss_is_the_papers_equation(world: Path, tmp_path: Path) -> None:
    """One update per epoch over all pairs: the second loss can be worked out from the model after the first."""
    optim = {"learning_rate": 3e-3, "batch_size": 32, "epochs": 1, "schedule": "constant"}
    numbers = dpo.train(words(optim=optim), opened(world, tmp_path / "one"), CPU)
    dpo.train(words(optim={**optim, "epochs": 2}), opened(world, tmp_path / "two"), CPU)
    start, after = (build.load(folder / "model", CPU) for folder in (world / "start", tmp_path / "one"))
    gained = margins(start, after, PAIRS)
    expected = -F.logsigmoid(0.1 * gained).mean()  # Rafailov et al. (2023), equation 7
    assert metrics(tmp_path / "two")[1]["loss"] == pytest.approx(float(expected), rel=1e-4)
    unseen = margins(start, after, mixture.load(world / "pairs" / "heldout_pairs.jsonl"))
    assert numbers["heldout_margin"] == pytest.approx(0.1 * float(unseen.mean()), rel=1e-4)
    assert numbers["heldout_accuracy"] == float((unseen > 0).float().mean())


def margins(start: Any, after: Any, rows: Iterable[Mapping[str, str]]) -> torch.Tensor:
    """By how much more the chosen answer's log-probability rose than the rejected one's."""
    pairs = preference.tokenise(rows, build.read_tokenizer(Path(start.name_or_path)), 64).pairs
    rose = [
        [logprob(after, pair["prompt_ids"], pair[side]) - logprob(start, pair["prompt_ids"], pair[side]) for pair in pairs]
        for side in ("chosen_ids", "rejected_ids")
    ]
    return torch.tensor(rose[0]) - torch.tensor(rose[1])


@torch.no_grad()
def logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(-1)[range(len(answer)), answer].sum())


def test_the_reference_is_computed_once_for_all_recipes_over_the_same_pairs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    dpo.train(words(), opened(world, runs / "one"), CPU)
    monkeypatch.setattr(dpo.DPOTrainer, "compute_ref_log_probs", None)
    dpo.train(words(beta=0.5, seed=1), opened(world, runs / "two"), CPU)
    assert metrics(runs / "two")[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert len(list((runs / "reference-logprobs").iterdir())) == 2  # of the pairs, and of the held-out ones


def test_the_start_model_is_hashed_for_a_reference_only_and_no_pair_is_scored_twice(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    score, runs = dpo.DPOTrainer.compute_ref_log_probs, tmp_path / "runs"

    def counted(self: Any, model: Any, inputs: Any) -> Any:
        found = score(self, model, inputs)
        scored.append(len(found[0]))
        return found

    monkeypatch.setattr(dpo.DPOTrainer, "compute_ref_log_probs", counted)
    folder = {"folder": str(world / "start" / "model")}
    for name, epochs, new in (("half", 0.5, 16 + 7), ("whole", 1, 16)):  # a pair as soon as it is learnt; 7 are held out
        optim = {"learning_rate": 1e-3, "batch_size": 8, "epochs": epochs}
        here, scored[:] = opened(world, runs / name), []
        read = hashing(monkeypatch)
        dpo.train(words(start=folder, optim=optim), here, CPU)
        assert sum(scored) == new
        assert sorted(read) == ["config.json", "model.safetensors"]
    here = opened(world, runs / "orpo")
    read = hashing(monkeypatch)
    dpo.train(words(start=folder, loss="orpo", optim=optim), here, CPU)
    assert not read


def hashing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are hashed from now on."""
    read: list[str] = []

    def hashed(path: Path) -> str:
        read.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(run, "sha256", hashed)
    return read


@pytest.mark.parametrize(
    ("loss", "smoothing"), [("sigmoid_norm", 0.0), ("robust", 0.1), ({"sigmoid": 1.0, "sft": 0.2}, 0.0), ("orpo", 0.0)]
)
def test_other_losses_begin_where_their_papers_say(world: Path, tmp_path: Path, loss: Any, smoothing: float) -> None:
    optim = {"learning_rate": 1e-3, "batch_size": 32, "schedule": "constant"}
    numbers = dpo.train(words(loss=loss, label_smoothing=smoothing, optim=optim), opened(world, tmp_path), CPU)
    start = build.load(world / "start" / "model", CPU)
    pairs = preference.tokenise(PAIRS, build.read_tokenizer(world / "start" / "model"), 64).pairs
    chosen, rejected = (
        torch.tensor([logprob(start, pair["prompt_ids"], pair[side]) / len(pair[side]) for pair in pairs])
        for side in ("chosen_ids", "rejected_ids")
    )
    odds = [side - torch.log1p(-side.exp()) for side in (chosen, rejected)]
    likelihood = -float(chosen.mean())
    expected = {
        "sigmoid_norm": math.log(2),
        "robust": math.log(2),
        "orpo": likelihood - 0.1 * float(F.logsigmoid(odds[0] - odds[1]).mean()),
    }.get(str(loss), math.log(2) + 0.2 * likelihood)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert 0 <= numbers["heldout_accuracy"] <= 1


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
        dpo.train(words(), opened(world, tmp_path / "alone" / "run"), CPU)  # where nobody has kept a reference


def test_pairs_end_in_the_end_mark_and_start_where_the_model_speaks(world: Path) -> None:
    tokenizer = build.read_tokenizer(world / "start" / "model")
    odd = [
        {**PAIRS[0], "prompt": f"Say {chat.EOS}", "chosen": "a"},
        {**PAIRS[0], "rejected": PAIRS[0]["chosen"]},
        {**PAIRS[0], "rejected": "x" * 99},
        {**PAIRS[0], "chosen": " "},
    ]
    (pair,), dropped, cut, _ = preference.tokenise(odd, tokenizer, 90)
    asked = [{"role": "user", "content": odd[0]["prompt"]}]
    assert pair["prompt_ids"] == chat.encode(tokenizer, asked, answer=False).input_ids
    assert tokenizer.eos_token_id not in pair["prompt_ids"]
    assert pair["chosen_ids"][-1] == pair["rejected_ids"][-1] == tokenizer.eos_token_id
    assert dropped == {"equal answers": 1, "longer than 90 tokens": 1, "empty answer": 1}
    assert cut.count == 1


def test_pairs_that_would_teach_something_else_are_refused_before_the_weights_load(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every chosen answer, of the held-out pairs too, loses its end mark, as a cut would have it."""
    monkeypatch.setattr(preference, "answer", lambda *given: answer(*given)[: -1 if given[2] == "chosen" else None])
    monkeypatch.setattr(build, "load", None)
    with pytest.raises(DataError, match=r"39: an answer does not end in a learnt end mark.*first: 0, chosen"):
        dpo.train(words(), opened(world, tmp_path), CPU)
    assert (tmp_path / "doctor.html").exists()


def test_a_run_without_pairs_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pairs\.jsonl"):
        dpo.train(words(data=[{"run": "start"}]), opened(world, tmp_path), CPU)
