"""A pair in one pass is the pair in two: the same log-probabilities, the same gradients, whatever the two sides share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.dpo_trainer import DataCollatorForPreference

from alignment.models import segments
from alignment.posttrain import shared

PAIRS = [  # prompt, chosen, rejected: of unequal lengths, with and without a common beginning
    ([1, 5, 6, 7], [8, 9, 10, 2], [8, 9, 2]),
    ([1], [3, 2], [4, 4, 4, 4, 4, 2]),
    ([1, *range(3, 40)], [50, 2], [51, *range(3, 20), 2]),
]


def batch() -> dict[str, torch.Tensor]:
    rows = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), pair, strict=True)) for pair in PAIRS]
    return dict(DataCollatorForPreference(pad_token_id=0)(rows))


def model() -> Any:
    torch.manual_seed(0)
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    made = LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, initializer_range=0.3, **shape)
    )
    return made.train()


def library(learner: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The log-probability of every sequence's answer, by the library's padded pass."""
    ids, mask = inputs["input_ids"], inputs["completion_mask"][:, 1:]
    logits = learner(ids, attention_mask=inputs["attention_mask"], use_cache=False).logits[:, :-1]
    return (logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0] * mask).sum(1)


def ours(learner: Any, inputs: dict[str, torch.Tensor]) -> Any:
    shared.attach(SimpleNamespace(model=learner, accelerator=SimpleNamespace(unwrap_model=lambda it: it)))  # type: ignore[arg-type]
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return learner(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True)


def loss(logps: torch.Tensor) -> torch.Tensor:
    chosen, rejected = logps.chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def gradient(learner: Any) -> torch.Tensor:
    return torch.cat([part.grad.flatten() for part in learner.parameters()]).double()


@pytest.mark.parametrize("short", [0, 512])
def test_one_pass_gives_the_log_probabilities_and_gradients_of_two(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the fused kernel (no sequence counts as short) and with plain attention."""
    monkeypatch.setattr(segments, "SHORT", short)
    inputs = batch()
    plain, fast = model(), model()
    expected = library(plain, inputs)
    found = ours(fast, inputs).log_probs.sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    loss(expected).backward()
    loss(found).backward()
    one, two = gradient(plain), gradient(fast)
    assert float(F.cosine_similarity(one, two, dim=0)) > 0.999999
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


def test_what_the_sides_share_is_computed_once() -> None:
    inputs = batch()
    learner = model()
    widths: list[int] = []
    learner.model.layers[0].mlp.register_forward_pre_hook(lambda _, given: widths.append(given[0].shape[1]))
    ours(learner, inputs)
    alike = [4 + 2, 1, 38]  # the prompt, and what both answers begin with
    assert widths == [sum(2 * len(p) + len(c) + len(r) for p, c, r in PAIRS) - sum(alike)]


def test_a_pair_does_not_see_the_others() -> None:
    whole = ours(model(), batch()).log_probs
    alone = PAIRS[2]
    rows = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), alone, strict=True))]
    single = ours(model(), dict(DataCollatorForPreference(pad_token_id=0)(rows))).log_probs
    torch.testing.assert_close(single, whole[[2, 5]][:, : single.shape[1]], rtol=1e-5, atol=1e-5)


def test_log_probabilities_are_the_librarys_in_value_and_slope() -> None:
    torch.manual_seed(1)
    hidden, weight = torch.randn(7, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    targets, slopes = torch.randint(11, (7,)), torch.randn(7)
    found = []
    for way in ("library", "ours"):
        asked = [part.clone().float().requires_grad_() for part in (hidden, weight)]
        if way == "ours":
            logps, right = segments.LogProbs.apply(*asked, targets)
            assert torch.equal(right, (asked[0] @ asked[1].T).argmax(1) == targets)
        else:
            logps = (asked[0] @ asked[1].T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        (logps * slopes).sum().backward()
        found.append([logps.detach(), *(part.grad for part in asked)])
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
