"""The norm for training on a CPU, against the library's, in both passes."""

from copy import deepcopy

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from alignment.models import norm


@pytest.mark.parametrize("shape", [(2, 96), (5, 7, 24), (2, 3, 4, 16)])
def test_it_is_the_librarys_and_in_bfloat16_as_near_to_it(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    x, by_y = (torch.randn(shape, generator=draw).bfloat16() for _ in range(2))
    found = {dtype: passes(x, by_y, dtype) for dtype in (torch.float32, torch.bfloat16)}
    for ours, theirs in zip(*found[torch.float32], strict=True):
        torch.testing.assert_close(ours, theirs)
    exact = found[torch.float32][1]
    for ours, theirs, wanted in zip(*found[torch.bfloat16], exact, strict=True):
        assert ours.dtype == theirs.dtype == torch.bfloat16
        assert (ours - wanted).norm() <= (theirs - wanted).norm() < 0.01 * wanted.norm()


def passes(x: torch.Tensor, by_y: torch.Tensor, dtype: torch.dtype) -> list[list[torch.Tensor]]:
    """Output and gradients of ours, and of the library's."""
    theirs = LlamaRMSNorm(x.shape[-1], eps=1e-5).bfloat16()
    torch.nn.init.uniform_(theirs.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
    theirs.to(dtype)
    ours = deepcopy(theirs)
    norm.attach(ours)
    found = []
    for layer in (ours, theirs):
        given = x.to(dtype).clone().requires_grad_()
        y = layer(given)
        found.append([y.detach(), *torch.autograd.grad(y, [given, layer.weight], by_y.to(dtype))])
        assert torch.equal(given.detach(), x.to(dtype)), "it wrote into what it read"
    return found
