"""What the doctor found, as plain data, and how it is said in words."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

KEPT = 3  # rows that are too long, to be shown


@dataclass
class Fault:
    """Something that one or more rows have; `count` 0: it is about the set as a whole."""

    text: str
    first: str = ""  # the name of the first row
    count: int = 0


@dataclass
class Cut:
    """Rows longer than `limit`. They are left out, never cut; this is what cutting them would take away."""

    limit: int
    count: int = 0
    tokens: int = 0  # beyond the limit
    learnt: int = 0  # of them learnt
    unasked: int = 0  # rows whose answer begins beyond the limit
    longest: list[tuple[int, str, list[int], list[int]]] = field(default_factory=list)

    def add(self, name: str, ids: list[int], labels: list[int]) -> None:
        """Count a row that is too long."""
        lost = labels[self.limit :]
        self.count += 1
        self.tokens += len(lost)
        self.learnt += len(lost) - lost.count(-100)
        self.unasked += all(label == -100 for label in labels[: self.limit])
        heapq.heappush(self.longest, (len(ids), name, ids, labels))
        if len(self.longest) > KEPT:
            heapq.heappop(self.longest)

    @property
    def text(self) -> str:
        """What cutting would do, in a sentence."""
        return (
            f"{self.count:,} longer than {self.limit:,} tokens; cut there, they would lose {self.tokens:,} tokens, "
            f"{self.learnt:,} of them learnt, and every end mark; {self.unasked:,} would lose their whole answer"
        )


@dataclass(frozen=True)
class Bias:
    """Is the chosen answer the longer one? `low` and `high` end the 95 % interval of its share among unequal pairs."""

    longer: int
    unequal: int
    low: float
    high: float
    chosen: float  # mean tokens
    rejected: float

    @property
    def confounded(self) -> bool:
        """Whether length tells the sides apart better than chance."""
        return not self.low <= 0.5 <= self.high

    @property
    def text(self) -> str:
        """The share in a sentence."""
        share = f"{self.longer / self.unequal:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.unequal:,} pairs"
        verdict = "length alone tells the sides apart" if self.confounded else "length alone does not tell the sides apart"
        means = f"{self.chosen:.1f} tokens against {self.rejected:.1f}"
        return f"the chosen answer is the longer one in {share} of unequal length ({means}): {verdict}"


@dataclass(frozen=True)
class Shown:
    """A row for people: pieces of text, each with what it is (asked, learnt, mark, cut, gap)."""

    name: str
    why: str
    pieces: list[tuple[str, str]]


@dataclass
class Diagnosis:
    """What was found in a set of rows or pairs. A violation stops a training, a note does not."""

    where: str
    kind: str  # rows, pairs
    counts: dict[str, int]
    compared: int  # rows, or sides of pairs, that were compared with their text; held-out ones too
    violations: list[Fault]
    notes: list[Fault]
    roles: dict[str, tuple[int, int]]  # tokens, learnt tokens
    lengths: dict[str, dict[str, int]]
    cut: Cut
    dropped: dict[str, int]
    shown: list[Shown]
    bias: Bias | None = None


def complaint(found: Diagnosis) -> str:
    """What is wrong, a line a violation."""
    head = f"{found.where}: the {found.kind} would not teach what is meant."
    return "\n".join([head, *(f"  {said(fault)}" for fault in found.violations)])


def said(fault: Fault) -> str:
    """A fault in words."""
    return f"{fault.count:,}: {fault.text} (first: {fault.first})" if fault.count else fault.text


def lines(found: Diagnosis) -> Iterator[str]:
    """Say the diagnosis on the terminal."""
    counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.counts.items())
    yield f"{found.where}: {counts}; compared with their text, the held-out ones too: {found.compared:,}"
    for role, (tokens, learnt) in found.roles.items():
        yield f"  {role}: {tokens:,} tokens, {learnt:,} learnt"
    if found.dropped:
        yield "  left out: " + ", ".join(f"{n:,} {reason}" for reason, n in found.dropped.items())
    if found.cut.count:
        yield f"  {found.cut.text}"
    if found.bias:
        yield f"  {found.bias.text}"
    yield from (f"  note: {said(fault)}" for fault in found.notes)
    yield from (f"  VIOLATION: {said(fault)}" for fault in found.violations)
    yield "  refused" if found.violations else "  sound"
