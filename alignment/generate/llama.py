"""A lean forward pass of the Llama class for sampling and scoring: the same numbers as transformers', with less work.

Tokens of all rows lie one behind the other, so nothing is padded; queries, keys and values are one product, and so are
gate and up; grouped heads are not expanded; rotary positions are one complex product; keys and values of a shared prefix
are kept once (`Prefix`) and, in decoding, read once for all rows: attention over the prefix and over a row's own tokens
are computed apart and merged by their log-sum-exp.

Axes: N tokens of all rows, B rows, Q tokens of a row in one step, T own positions, P positions of the prefix, H heads,
K heads of keys and values, G = H / K, D head size, M hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from alignment.generate.linear import Linear
from alignment.generate.slots import Rows

Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values
PASS_TOKENS = {"cpu": 2048}  # at a time: what still fits a CPU's caches
PASS_TOKENS_ELSEWHERE = 16_384


@dataclass(frozen=True)
class Layer:
    """The weights of one layer."""

    norm: torch.Tensor
    qkv: Linear
    out: Linear
    norm_mlp: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class Prefix:
    """Tokens that all rows of a batch begin with, and their keys and values, layer by layer: (K, P, D)."""

    length: int
    layers: list[Pair]


def supports(config: Any) -> bool:
    """Whether this forward computes what the model's class does."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") == "default"
        and rope.get("partial_rotary_factor", 1.0) == 1.0
        and not getattr(config, "quantization_config", None)
    )


class Llama:
    """Weights and forward pass. `weights` are a LlamaForCausalLM's, under its names."""

    drafts = True  # a step may take several tokens a row
    model = None
    attention = "lean"

    def __init__(self, config: Any, weights: dict[str, torch.Tensor]) -> None:
        self.config = config
        self.kv, self.group = config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps = config.rms_norm_eps
        self.embedding = weights["model.embed_tokens.weight"]
        self.device, self.dtype = self.embedding.device, self.embedding.dtype
        self.layers = [_layer(weights, f"model.layers.{i}", self.size) for i in range(config.num_hidden_layers)]
        self.norm = weights["model.norm.weight"]
        self.head = Linear(self.embedding if config.tie_word_embeddings else weights["lm_head.weight"])
        self.vocab = self.embedding.shape[0]
        self.turns_PC = _turns(config, self.size, self.device)
        self.pass_tokens = PASS_TOKENS.get(self.device.type, PASS_TOKENS_ELSEWHERE)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits at positions that somebody asks about."""
        return self.head(hidden)

    def carried(self, prefix: Prefix | None) -> int:  # noqa: ARG002
        """No row holds a copy of the prefix."""
        return 0

    def read(self, ids: Sequence[int], before: Prefix | None = None) -> Prefix:
        """Compute keys and values of a prefix, behind another one if there is one."""
        found = before
        for at in range(0, len(ids), self.pass_tokens):
            _, own = self.rows(found, [ids[at : at + self.pass_tokens]], keep=True)
            new = [(k_NKD.transpose(0, 1), v_NKD.transpose(0, 1)) for k_NKD, v_NKD in own]
            length = (found.length if found else 0) + len(new[0][0][0])
            found = Prefix(length, [_joined(a, b) for a, b in zip(found.layers, new, strict=True)] if found else new)
        assert found is not None, "a prefix without tokens"
        return found

    def rows(
        self, prefix: Prefix | None, rows: Sequence[Sequence[int]], *, keep: bool = False
    ) -> tuple[torch.Tensor, list[Pair]]:
        """Run rows behind a prefix; return the hidden states of all their tokens and, if kept, keys and values."""
        past = prefix.length if prefix else 0
        flat_N = torch.tensor([token for row in rows for token in row], device=self.device)
        places_N = torch.cat([torch.arange(past, past + len(row), device=self.device) for row in rows])
        lengths = [len(row) for row in rows]
        buffers = _buffers(prefix, max(lengths), self) if prefix else None
        mask_TS = _causal(past, max(lengths), self) if prefix else None
        kept: list[Pair] = []

        def attend(index: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor) -> torch.Tensor:
            if keep:
                kept.append((k_NKD, v_NKD))
            if buffers is not None:
                assert prefix is not None
                for buffer, found in zip(buffers, prefix.layers[index], strict=True):
                    buffer[:, :past] = found
            out_NHD = torch.empty_like(q_NHD)
            start = 0
            for length in lengths:
                span = slice(start, start + length)
                start += length
                own = k_NKD[span].transpose(0, 1), v_NKD[span].transpose(0, 1)
                if buffers is not None:
                    for buffer, new in zip(buffers, own, strict=True):
                        buffer[:, past : past + length] = new
                    own = buffers[0][:, : past + length], buffers[1][:, : past + length]
                out_NHD[span] = _attention(
                    q_NHD[span], own, None if mask_TS is None else mask_TS[:length, : past + length], self.group > 1
                )
            return out_NHD

        return self._run(flat_N, places_N, attend), kept

    def slots(self, prefix: Prefix | None, size: int, capacity: int) -> Slots:
        """Make room for decoding: `size` rows of up to `capacity` own tokens."""
        return Slots(self, prefix, size, capacity)

    def _run(self, ids_N: torch.Tensor, places_N: torch.Tensor, attend: Any) -> torch.Tensor:
        """Run the layers over flat tokens; `attend(layer, queries, keys, values)` says who sees whom."""
        x_NM = F.embedding(ids_N, self.embedding)
        turns_N1C = self.turns_PC[places_N][:, None]
        heads = self.kv * (self.group + 2)
        for index, layer in enumerate(self.layers):
            qkv_NHD = layer.qkv(self._normed(x_NM, layer.norm)).view(len(ids_N), heads, self.size)
            qk_NHD = _rotated(qkv_NHD[:, : -self.kv], turns_N1C)
            q_NHD, k_NKD = qk_NHD[:, : -self.kv], qk_NHD[:, -self.kv :]
            x_NM = x_NM + layer.out(attend(index, q_NHD, k_NKD, qkv_NHD[:, -self.kv :]).flatten(1))
            gate, up = layer.gate_up(self._normed(x_NM, layer.norm_mlp)).chunk(2, -1)
            x_NM = x_NM + layer.down(F.silu(gate) * up)
        return self._normed(x_NM, self.norm)

    def _normed(self, x_NM: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x_NM, weight.shape, weight, self.eps)


class Slots(Rows):
    """Keys and values of live answers behind a prefix that is kept once. Rows in use are always the first B."""

    def __init__(self, model: Llama, prefix: Prefix | None, size: int, capacity: int) -> None:
        super().__init__()
        self.model, self.prefix = model, prefix
        self.past = prefix.length if prefix else 0
        shape = (size, model.kv, capacity, model.size)
        # zeros, not empty: a masked NaN is still a NaN
        self.layers = [
            tuple(torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(2)) for _ in model.layers
        ]

    def fill(self, kept: list[Pair], sources: Sequence[int], spans: Sequence[slice]) -> None:
        """Append rows from a prefill; one source may fill several rows (samples of one prompt)."""
        for row, source in enumerate(sources, start=len(self.lengths)):
            length = spans[source].stop - spans[source].start
            for slots, new in zip(self.layers, kept, strict=True):
                for slot, flat_NKD in zip(slots, new, strict=True):
                    slot[row, :, :length] = flat_NKD[spans[source]].transpose(0, 1)
        self.lengths += [spans[source].stop - spans[source].start for source in sources]

    def move(self, old: list[int], new: list[int], width: int) -> None:
        """Copy rows to other places."""
        for slots in self.layers:
            for slot in slots:
                slot[new, :, :width] = slot[old, :, :width]

    def step(self, tokens_BQ: torch.Tensor) -> torch.Tensor:
        """Run the next Q tokens of every row; return their hidden states (B, Q, M). `grow` says how many are kept."""
        model, (rows, steps) = self.model, tokens_BQ.shape
        row_B1 = torch.arange(rows, device=model.device)[:, None]
        at_BQ = torch.tensor(self.lengths, device=model.device)[:, None] + torch.arange(steps, device=model.device)
        width = max(self.lengths) + steps
        hidden_B1QT = torch.arange(width, device=model.device) > at_BQ[:, None, :, None]
        mask_BQT = torch.zeros(hidden_B1QT.shape, dtype=model.dtype, device=model.device)
        mask_BQT = mask_BQT.masked_fill_(hidden_B1QT, float("-inf")).repeat(1, 1, model.group, 1)
        shape = (rows, steps, model.kv, model.group, model.size)

        def attend(index: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor) -> torch.Tensor:
            keys, values = self.layers[index]
            keys[row_B1, :, at_BQ] = k_NKD.view(rows, steps, model.kv, model.size)
            values[row_B1, :, at_BQ] = v_NKD.view(rows, steps, model.kv, model.size)
            q = (q_NHD.view(shape) * model.size**-0.5).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, K, G Q, D)
            own = keys[:rows, :, :width], values[:rows, :, :width]
            if self.prefix is None:
                out = F.scaled_dot_product_attention(q, *own, attn_mask=mask_BQT, scale=1.0)
            else:
                out, lse = _part(q, *own, mask_BQT)
                flat = q.transpose(0, 1).flatten(1, 2)  # (K, B G Q, D): one product for all rows
                shared, shared_lse = _part(flat, *self.prefix.layers[index], None)
                shared = shared.view(model.kv, rows, -1, model.size).transpose(0, 1)
                shared_lse = shared_lse.view(model.kv, rows, -1, 1).transpose(0, 1)
                out = torch.lerp(out, shared, torch.sigmoid(shared_lse - lse))
            return out.reshape(rows, model.kv, model.group, steps, model.size).permute(0, 3, 1, 2, 4).flatten(0, 1)

        # a guess may lie beyond the context; it is never kept
        places_N = (self.past + at_BQ.flatten()).clamp_max(len(model.turns_PC) - 1)
        return model._run(tokens_BQ.flatten(), places_N, attend).view(rows, steps, -1)


def _part(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> Pair:
    """Attention over one part of the keys, and the log-sum-exp by which parts are merged."""
    scores = q @ k.mT
    if mask is not None:
        scores += mask
    top = scores.amax(-1, keepdim=True)
    weights = scores.sub_(top).exp_()
    whole = weights.sum(-1, keepdim=True)
    return (weights @ v).div_(whole), whole.log().add_(top)


def _attention(q_THD: torch.Tensor, own: Pair, mask: torch.Tensor | None, grouped: bool) -> torch.Tensor:
    q, k, v = q_THD.transpose(0, 1)[None], own[0][None], own[1][None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
    return out[0].transpose(0, 1)


def _causal(past: int, length: int, model: Llama) -> torch.Tensor:
    mask = torch.full((length, past + length), float("-inf"), dtype=model.dtype, device=model.device)
    return mask.triu_(past + 1)


def _buffers(prefix: Prefix, room: int, model: Llama) -> Pair:
    shape = (model.kv, prefix.length + room, model.size)
    return tuple(torch.empty(shape, dtype=model.dtype, device=model.device) for _ in range(2))  # type: ignore[return-value]


def _joined(before: Pair, new: Pair) -> Pair:
    return torch.cat([before[0], new[0]], 1), torch.cat([before[1], new[1]], 1)


def _rotated(x_NHD: torch.Tensor, turns_N1C: torch.Tensor) -> torch.Tensor:
    """Turn pairs of neighbours, in float32 at least."""
    pairs_NHC = torch.view_as_complex(x_NHD.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_NHC * turns_N1C).flatten(-2).type_as(x_NHD)


def _turns(config: Any, size: int, device: torch.device) -> torch.Tensor:
    """Unit complex numbers of all positions, (P, C = D / 2) (rotary embedding, Su et al. 2021)."""
    theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta") or getattr(config, "rope_theta", 10_000.0)
    inverse_C = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size)
    angle_PC = torch.arange(config.max_position_embeddings).float()[:, None] * inverse_C
    return torch.polar(torch.ones_like(angle_PC), angle_PC).to(device)


def _paired(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Lay the two halves of each head's rows alternately: what is turned together becomes neighbours."""
    return rows.unflatten(0, (-1, 2, size // 2)).transpose(1, 2).flatten(0, 2)


def _layer(weights: dict[str, torch.Tensor], name: str, size: int) -> Layer:
    def ready(part: str, found: torch.Tensor) -> torch.Tensor:
        return _paired(found, size) if part in ("self_attn.q_proj", "self_attn.k_proj") else found

    def fused(*parts: str) -> Linear:
        weight = torch.cat([ready(part, weights[f"{name}.{part}.weight"]) for part in parts])
        biases = [ready(part, weights[f"{name}.{part}.bias"]) for part in parts if f"{name}.{part}.bias" in weights]
        return Linear(weight, torch.cat(biases) if biases else None)

    return Layer(
        norm=weights[f"{name}.input_layernorm.weight"],
        qkv=fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=fused("self_attn.o_proj"),
        norm_mlp=weights[f"{name}.post_attention_layernorm.weight"],
        gate_up=fused("mlp.gate_proj", "mlp.up_proj"),
        down=fused("mlp.down_proj"),
    )
