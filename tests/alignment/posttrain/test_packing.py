"""Packed rows: nothing is lost, updates stay as the recipe cuts them, and no conversation sees another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig

from alignment.models import recompute, segments
from alignment.models.segments import Segment
from alignment.posttrain import neftune, packing
from tests.tiny import CPU

LLAMA = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, initializer_range=0.2,
)  # fmt: skip
V3 = DeepseekV3Config(
    vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, n_group=2, topk_group=1, num_experts_per_tok=2,
    n_shared_experts=1, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=8,
    v_head_dim=12, num_mtp_layers=0, max_position_embeddings=512, initializer_range=0.2,
)  # fmt: skip


def model(config: Any, kernel: str) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    made.config._attn_implementation = kernel
    return made.train()


def conversations(*lengths: int) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, 64, (length,), generator=draw).tolist() for length in lengths]
    return [{"input_ids": ids, "labels": [-100] * (len(ids) // 2) + ids[len(ids) // 2 :]} for ids in rows]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=8, max_size=48),
    size=st.sampled_from([4, 8]),
    most=st.integers(1, 400),
    ranks=st.sampled_from([1, 2, 4]),
)
def test_updates_keep_their_conversations_and_passes_stay_below_the_limit(
    lengths: list[int], size: int, most: int, ranks: int
) -> None:
    order = list(range(len(lengths) // size * size))[::-1]
    found = packing.passes(lengths, order, size, most, ranks)
    updates = len(order) // size
    each, left = divmod(len(found), updates)
    assert left == 0
    assert each % ranks == 0
    assert each <= size
    for number in range(updates):
        dealt = found[number * each : (number + 1) * each]
        assert Counter(i for one in dealt for i in one) == Counter(order[number * size : (number + 1) * size])
        assert all(dealt)
    limit = max(most, *(lengths[i] for i in order))
    assert all(sum(lengths[i] for i in one) <= limit for one in found)


def test_a_row_holds_every_token_and_learns_no_first_one() -> None:
    parts = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]}]
    row = packing.row(parts)
    assert row == {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, -100, 5], "seq_lengths": [3, 2]}
    batch = packing.collate([row, packing.row(parts[:1])])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 8]
    assert batch["max_length_q"] == 3
    assert "attention_mask" not in batch  # with one, the library joins conversations


@pytest.mark.parametrize("kernel", ["eager", "sdpa", segments.NAME])
@pytest.mark.parametrize("config", [LLAMA, V3], ids=["llama", "deepseek_v3"])
def test_packed_log_probabilities_are_those_of_conversations_alone(config: Any, kernel: str) -> None:
    rows = conversations(5, 210, 1, 33, 17)  # short and long ones attend by different kernels
    net = model(config, "sdpa")
    with torch.no_grad():
        alone = [F.log_softmax(net(torch.tensor([row["input_ids"]]), use_cache=False).logits[0], -1) for row in rows]
        segments.use(net)  # so that the name is known
        net.config._attn_implementation = kernel
        batch = packing.collate([packing.row(rows)])
        ends = batch["cu_seq_lens_q"].tolist()
        more = {"segments": tuple(Segment(*ends_) for ends_ in pairwise(ends))} if kernel == segments.NAME else {}
        packed = net(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False, **more).logits[0]
    assert (F.log_softmax(packed, -1) - torch.cat(alone)).abs().max() < 1e-5
    assert model(config, "sdpa").config.model_type in packing.PROVED


@pytest.mark.parametrize("config", [LLAMA, V3], ids=["llama", "deepseek_v3"])
def test_the_packed_loss_and_its_gradient_are_those_of_conversations_alone(config: Any) -> None:
    rows = conversations(5, 40, 12)
    plain = model(config, "sdpa")
    loss = torch.zeros(())
    for row in rows:
        logits = plain(torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1]
        loss = loss + F.cross_entropy(logits, torch.tensor(row["labels"][1:]), ignore_index=-100, reduction="sum")
    loss.backward()
    net = model(config, "sdpa")
    segments.use(net)
    given = packing.collate([packing.row(rows)])
    out = packing._forward(net, **given, use_cache=False)
    (-out.log_probs.sum()).backward()
    assert float(-out.log_probs.sum()) == pytest.approx(float(loss), rel=1e-5)
    for (name, there), here in zip(plain.named_parameters(), net.parameters(), strict=True):
        if there.grad is not None:
            assert torch.allclose(there.grad, here.grad, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize(("machine", "kind", "packed"), [
    (CPU, LLAMA, True), (CPU, V3, True),
    (replace(CPU, attention="eager"), LLAMA, False),  # asked for by name
    (replace(CPU, device="cuda"), LLAMA, False),  # a dense mask of all tokens of a row against all
    (replace(CPU, device="cuda", attention="flash_attention_2"), LLAMA, True),
])  # fmt: skip
def test_rows_are_packed_where_that_is_proved_and_cheaper(machine: Any, kind: Any, packed: bool) -> None:
    with torch.device("meta"):
        assert packing.possible(AutoModelForCausalLM.from_config(kind), machine) == packed


def test_noise_hangs_on_a_conversation_and_not_on_its_row() -> None:
    """NEFTune's bound is alpha / sqrt(L d), packed as well as padded, and there is none in evaluation."""
    net = model(LLAMA, "sdpa")
    neftune.attach(net, net.get_input_embeddings(), alpha=5.0)
    seen: list[torch.Tensor] = []
    net.model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    ids = torch.arange(60)[None] % 64
    given = {"position_ids": torch.cat([torch.arange(20), torch.arange(40)])[None], "use_cache": False}
    packed = {**given, "cu_seq_lens_q": torch.tensor([0, 20, 60])}
    plain = net.get_input_embeddings().weight[ids[0]].detach()
    with torch.no_grad():
        net(ids, **packed)
        net.eval()(ids, **packed)
        net.train()(ids.view(3, 20), attention_mask=torch.ones(3, 20).long(), use_cache=False)
    noise = (seen[0][0] - plain).abs()
    for part, length in ((noise[:20], 20), (noise[20:], 40)):
        assert 0.9 * 5.0 / (length * 32) ** 0.5 < part.max() <= 5.0 / (length * 32) ** 0.5 + 1e-6
    assert torch.equal(seen[1][0], plain)
    assert (seen[2].flatten(0, 1) - plain).abs().max() > 0.9 * 5.0 / (20 * 32) ** 0.5


class Counted(TorchDispatchMode):
    """Counts how often fused attention is computed."""

    times = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times += func in recompute.ATTENTION
        return func(*args, **(kwargs or {}))


def test_selective_recomputation_spares_attention_and_gives_the_same_gradient() -> None:
    ids = torch.arange(40)[None]
    found = {}
    for how in ("nothing", "layers", "selective"):
        net = model(LLAMA, "sdpa")
        if how == "selective":
            recompute.spare_attention(net)
        if how != "nothing":
            net.activation_checkpointing_enable()
        with Counted() as counted:
            net(ids, labels=ids, use_cache=False).loss.backward()
        found[how] = counted.times, [p.grad for p in net.parameters()]
    assert {how: times for how, (times, _) in found.items()} == {"nothing": 2, "layers": 4, "selective": 2}
    for how in ("layers", "selective"):
        assert all(torch.equal(a, b) for a, b in zip(found["nothing"][1], found[how][1], strict=True))
