"""Which place of a ragged cache each live answer has, and how long it is; what a place holds is the forward's matter.

Rows in use are always the first B: a finished row's place is taken by the last one, and a step reads one slice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Rows(ABC):
    """Lengths of the rows in use; a cache says how what they hold moves."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    @abstractmethod
    def move(self, old: list[int], new: list[int], width: int) -> None:
        """Copy what rows hold, up to `width` positions, to other places."""

    def grow(self, counts: Sequence[int]) -> None:
        """Say how many tokens of the last step each row keeps; what lies beyond is overwritten later."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def keep(self, alive: Sequence[bool]) -> list[int]:
        """Drop finished rows by moving the last ones into their places; return the old index of each row kept."""
        order = list(range(len(alive)))
        hole = 0
        while hole < len(order):
            if alive[order[hole]]:
                hole += 1
                continue
            last = order.pop()
            if hole < len(order):
                order[hole] = last
        moved = [(old, new) for new, old in enumerate(order) if old != new]
        if moved:
            old, new = (list(side) for side in zip(*moved, strict=True))
            self.move(old, new, max(self.lengths[i] for i in old))
        self.lengths = [self.lengths[i] for i in order]
        return order
