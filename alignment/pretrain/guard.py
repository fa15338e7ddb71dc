"""Which updates are made: one whose loss or gradient is no number, or far from those before it, is left out.

What it remembers goes into the checkpoints, so that a resumed run judges as an undisturbed one would.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from alignment import recipe as words
from alignment.errors import ModelError

WINDOW = 64  # updates that were made, whose medians are what is usual
ENOUGH = 16  # before so many nothing is usual


def _window() -> deque[float]:
    return deque(maxlen=WINDOW)


@dataclass
class Guard:
    """Judges every update of a run by the same rule."""

    rule: words.Guard
    losses: deque[float] = field(default_factory=_window)
    norms: deque[float] = field(default_factory=_window)
    skipped: int = 0
    in_a_row: int = 0

    def refusal(self, where: str, loss: float, norm: float) -> str | None:
        """Say why the update `where` must not be made; None: it may. Raises ModelError after too many in a row."""
        reason = self._reason(loss, norm)
        if reason is None:
            self.losses.append(loss)
            self.norms.append(norm)
            self.in_a_row = 0
            return None
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row > self.rule.most:
            raise ModelError(
                f"{where}: {reason}; {self.in_a_row} update(s) in a row that cannot be made (guard.most: {self.rule.most}). "
                "Lower optim.learning_rate, or look at the data."
            )
        return reason

    def _reason(self, loss: float, norm: float) -> str | None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            return f"loss {loss}, gradient norm {norm}"
        if len(self.norms) < ENOUGH:
            return None
        if self.rule.norm is not None and norm > self.rule.norm * (usual := median(self.norms)):
            return f"gradient norm {norm:.4g}, more than {self.rule.norm:g} times the usual {usual:.4g}"
        if self.rule.loss is not None and loss > self.rule.loss + (usual := median(self.losses)):
            return f"loss {loss:.4g}, more than {self.rule.loss:g} above the usual {usual:.4g}"
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.losses.extend(state["losses"])
        self.norms.extend(state["norms"])
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
