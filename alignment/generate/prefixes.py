"""What prompts have in common, found on token ids: a tree whose nodes are computed once for all that lies below.

A common beginning is split off where that saves work: few-shot examples, one subject's five shots, a question whose
options are weighed. The root may be empty. Text is never cut before it is tokenised: tokens merge across any cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.generate.forward import Forward

LEAST = 16  # tokens: a shorter common beginning is not worth a pass of its own


@dataclass
class Node:
    """Tokens behind the parent's; `rows` are the indices of the inputs that end below no child."""

    ids: list[int]
    rows: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)


def tree(inputs: Sequence[Sequence[int]], limits: Sequence[int], least_gain: float = 0.0) -> Node:
    """Arrange inputs by what they share; of each, no more than its limit is shared.

    A node is split where its children together save more than `least_gain` of the tokens left to compute: 0 where
    splitting costs nothing (scoring); more where small groups make poor batches (decoding).
    """
    order = sorted(range(len(inputs)), key=lambda i: list(inputs[i]))
    root = Node([])
    if order:
        _Tree(inputs, limits, least_gain).grow(root, order, 0)
    return root


@dataclass(frozen=True)
class _Tree:
    inputs: Sequence[Sequence[int]]
    limits: Sequence[int]
    least_gain: float

    def grow(self, node: Node, order: list[int], depth: int) -> None:
        """Give a node its ids and children; `order` are its inputs, sorted, equal up to `depth`."""
        shared = self.shared(order)
        if len(order) == 1 or shared - depth < LEAST:
            shared = depth
        node.ids = list(self.inputs[order[0]][depth:shared])
        groups = self.groups(order, shared)
        saved = [(self.shared(group) - shared) * (len(group) - 1) for group in groups]
        left = sum(len(self.inputs[i]) - shared for i in order)
        if len(groups) == 1 or sum(saved) <= self.least_gain * left:
            node.rows = order
            return
        for group, gain in zip(groups, saved, strict=True):
            if gain > 0:
                node.children.append(Node([]))
                self.grow(node.children[-1], group, shared)
            else:
                node.rows += group

    def groups(self, order: list[int], shared: int) -> list[list[int]]:
        """Neighbours that have at least LEAST more tokens in common."""
        groups = [[order[0]]]
        for i in order[1:]:
            if self.shared([groups[-1][0], i]) - shared >= LEAST:
                groups[-1].append(i)
            else:
                groups.append([i])
        return groups

    def shared(self, order: Sequence[int]) -> int:
        """How many tokens sorted inputs have in common, within their limits."""
        first, last = self.inputs[order[0]], self.inputs[order[-1]]
        most = min(len(first), len(last), *(self.limits[i] for i in order))
        return next((k for k in range(most) if first[k] != last[k]), most)


def walk(forward: Forward, node: Node, before: Any = None, depth: int = 0) -> Iterator[tuple[Any, int, list[int]]]:
    """Compute each node's prefix once, and yield it with its length and the rows that hang from it."""
    if node.ids:
        before, depth = forward.read(node.ids, before), depth + len(node.ids)
    if node.rows:
        yield before, depth, node.rows
    for child in node.children:
        yield from walk(forward, child, before, depth)
