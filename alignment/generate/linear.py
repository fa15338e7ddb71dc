"""Linear maps whose weights are laid out once for the CPU's kernels (oneDNN), where torch has them.

torch's default lays a float32 weight out anew at each call, which costs most where few rows are multiplied, as in
decoding. Elsewhere (other devices, other dtypes, a torch without oneDNN) this is `torch.nn.functional.linear`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

ROWS = 32  # that the layout is chosen for; any number may be multiplied


class Linear:
    """y = x W^T + b, for weights that no longer change."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, pack: bool = True) -> None:
        self.bias = bias
        self.packed = pack and can_pack(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS) if self.packed else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply (..., in) to (..., out)."""
        if self.packed:
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return y
        return F.linear(x, self.weight, self.bias)


def can_pack(weight: torch.Tensor) -> bool:
    """Whether torch can lay this weight out: float32, on a CPU, built with oneDNN."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
