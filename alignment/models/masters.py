"""AdamW for a model that computes in bfloat16: float32 masters take the updates, the model gets rounded copies.

As in the report (2.4): bf16 compute, float32 gradients and weights where they add up. Casting the whole module spares
the copies of activations that autocast makes (`benchmarks/bf16_on_cpu.py`); without masters an update smaller than a
part in 256 of its weight would be rounded away.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class MasterAdamW(torch.optim.AdamW):
    """AdamW on float32 copies of a model's trained parameters; casts the model itself to `dtype`.

    Its parameter groups hold the masters. `restore()` gives the model its full-precision weights back.
    """

    norm = float("nan")  # of the gradient, before the latest step clipped it

    def __init__(
        self, model: nn.Module, dtype: torch.dtype, *, weight_decay: float, clip: float | None = None, **words: Any
    ) -> None:
        """Take over a float32 model, in a process that has joined its group. Matrices decay, norms and other vectors do not.

        `clip` bounds the gradient norm in every step; without it, who steps has clipped.
        """
        self.clip = clip
        trained = [p for p in model.parameters() if p.requires_grad]
        masters = [p.detach().float().clone() for p in trained]
        self._pairs = list(zip(trained, masters, strict=True))
        self._float_buffers = {name: b.clone() for name, b in model.named_buffers() if b.is_floating_point()}
        groups = [
            {"params": [m for m in masters if m.dim() > 1], "weight_decay": weight_decay},
            {"params": [m for m in masters if m.dim() < 2], "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], fused=True, **words)
        model.to(dtype)
        if not torch.distributed.is_initialized():  # DDP sends gradients in the type of the weights
            for parameter in trained:
                parameter.grad_dtype = None  # a gradient that is made in float32 stays so
        for name, value in self._float_buffers.items():  # rotary frequencies stay exact
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, value)

    @torch.no_grad()
    def collect(self) -> None:
        """Add the model's gradients to the masters' (float32) and clear them: one forward pass is accumulated."""
        for parameter, master in self._pairs:
            if parameter.grad is not None:
                grad = parameter.grad.float()
                master.grad = grad if master.grad is None else master.grad.add_(grad)
                parameter.grad = None

    @torch.no_grad()
    def shorten(self, longest: float) -> float:
        """Clip the masters' gradients and return the norm that they had. Those within the bound are not written again."""
        weights = self.masters()
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if not norm <= longest:
            nn.utils.clip_grads_with_norm_(weights, longest, norm)
        return float(norm)

    def masters(self) -> list[torch.Tensor]:
        """The float32 weights, in the order of the model's trained parameters."""
        return [master for _, master in self._pairs]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the masters from what was collected and what is pending, round them into the model, and forget."""
        self.collect()
        if self.clip is not None:
            self.norm = self.shorten(self.clip)
        result = super().step(closure)
        self.spread()
        self.zero_grad()
        return result

    @torch.no_grad()
    def spread(self) -> None:
        """Round the masters into the model."""
        for parameter, master in self._pairs:
            parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of masters and model."""
        super().zero_grad(set_to_none)
        for parameter, _ in self._pairs:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state with the masters themselves."""
        return {**super().state_dict(), "masters": self.masters()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back state and masters, and round them into the model."""
        rest = dict(state_dict)
        saved = rest.pop("masters")
        super().load_state_dict(rest)
        for (_, master), value in zip(self._pairs, saved, strict=True):
            master.copy_(value)
        self.spread()

    @torch.no_grad()
    def restore(self) -> None:
        """Give the model its float32 weights."""
        for parameter, master in self._pairs:
            parameter.data = master.clone()


def bare(optimizer: Any) -> Any:
    """The optimizer itself: accelerate wraps it."""
    return getattr(optimizer, "optimizer", optimizer)
