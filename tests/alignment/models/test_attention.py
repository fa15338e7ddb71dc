"""The attention kernel for short rows, against float32 SDPA and in what it refuses."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from alignment.errors import ModelError
from alignment.models.attention import short

ROWS, HEADS, KEYS, LENGTH, WIDTH = 3, 6, 2, 20, 10
MODULE = SimpleNamespace(training=True, config=SimpleNamespace(model_type="llama"))


def drawn() -> list[torch.Tensor]:
    """Queries, keys and values in bfloat16, laid out as the library does."""
    draw = torch.Generator().manual_seed(0)
    sizes = ((ROWS, LENGTH, heads, WIDTH) for heads in (HEADS, KEYS, KEYS))
    return [torch.randn(size, generator=draw).bfloat16().transpose(1, 2) for size in sizes]


def mask(dtype: torch.dtype) -> torch.Tensor:
    """Causal, and rows of different lengths."""
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1).repeat(ROWS, 1, 1, 1)
    hidden[1, :, :, LENGTH // 2 :] = True
    return torch.zeros(ROWS, 1, LENGTH, LENGTH, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)


def test_in_bfloat16_it_is_as_near_to_float32_as_the_kernel_it_stands_for() -> None:
    draw = torch.randn(ROWS, HEADS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))

    def passed(dtype: torch.dtype, fused: bool) -> list[torch.Tensor]:
        inputs = [part.to(dtype).requires_grad_() for part in drawn()]
        if fused:
            out = F.scaled_dot_product_attention(*inputs, attn_mask=mask(dtype), enable_gqa=True)
        else:
            out = short(MODULE, *inputs, mask(dtype), WIDTH**-0.5)[0].transpose(1, 2)
        return [out.detach().float(), *(part.float() for part in torch.autograd.grad(out, inputs, draw.to(dtype)))]

    exact = passed(torch.float32, fused=True)
    for ours, theirs, wanted in zip(passed(torch.bfloat16, False), passed(torch.bfloat16, True), exact, strict=True):
        assert (ours - wanted).norm() <= 2 * (theirs - wanted).norm() < 0.02 * wanted.norm()
    for ours, wanted in zip(passed(torch.float32, False), exact, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_it_refuses_what_it_would_leave_out() -> None:
    with pytest.raises(ModelError, match="softcap"):
        short(MODULE, *drawn(), mask(torch.bfloat16), 1.0, softcap=30.0)
