"""Bring domains to the shares the recipe asks for (paper 2.1: remixing raises what is under-represented).

The shares always hold. What gives way is the total: it shrinks until no domain is read more than `max_epochs` times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xxhash import xxh3_64_intdigest

from alignment.corpus.documents import Document
from alignment.errors import DataError


@dataclass(frozen=True)
class Plan:
    """Bytes to take of each domain, and the domain that held the total down, if one did."""

    take: dict[str, int]
    available: dict[str, int]
    bound_by: str | None

    @property
    def epochs(self) -> dict[str, float]:
        """How often each domain is read."""
        return {domain: round(self.take[domain] / self.available[domain], 3) for domain in self.take}


def plan(available: Mapping[str, int], shares: Mapping[str, float], *, budget: int, max_epochs: float) -> Plan:
    """Divide a budget of bytes. Raises DataError where shares and domains do not match."""
    wanted = {domain: share for domain, share in shares.items() if share > 0}
    if without := sorted(set(available) - set(shares)):
        raise DataError(f"shares: no share for {', '.join(without)}. Give each domain one; 0 leaves it out.")
    if absent := sorted(set(wanted) - set(available)):
        found = ", ".join(sorted(available))
        raise DataError(f"shares: no document of {', '.join(absent)} is left. Domains in the corpus: {found}.")
    if not wanted:
        raise DataError("shares: all are 0, so nothing would be kept. Give at least one domain a share.")
    whole = sum(wanted.values())
    limits = {domain: max_epochs * available[domain] * whole / share for domain, share in wanted.items()}
    tightest = min(limits, key=lambda domain: limits[domain])
    total = min(budget, limits[tightest])
    take = {domain: int(total * share / whole) for domain, share in wanted.items()}
    return Plan(take, dict(available), tightest if total < budget else None)


def remix(documents: Sequence[Document], plan: Plan, seed: int) -> list[Document]:
    """Take each domain's bytes, pass after pass, in an order that only the seed and the ids decide."""
    taken: list[tuple[str, Document]] = []
    for domain, wanted in plan.take.items():
        pool = [document for document in documents if document.domain == domain]
        left, turn = wanted, 0
        while left > 0:
            for document in sorted(pool, key=lambda document: _order(document, seed, f"take {turn}")):
                if left <= 0:
                    break
                taken.append((f"mix {turn}", document))
                left -= document.bytes
            turn += 1
    # A fresh hash: those of the documents taken are the lowest of their domain, and would set the domains apart.
    return [document for _, document in sorted(taken, key=lambda entry: _order(entry[1], seed, entry[0]))]


def split(documents: Sequence[Document], share: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Hold out a share of each domain's bytes, at least one document, by a hash of the ids.

    A repeated document is held out once and never trained; of a domain with a single document nothing is held out.
    """
    domains: dict[str, dict[tuple[str, str], Document]] = {}
    for document in sorted(documents, key=lambda document: _order(document, seed, "hold out")):
        domains.setdefault(document.domain, {})[document.dump, document.id] = document
    held_out: dict[tuple[str, str], Document] = {}
    for _, unique in sorted(domains.items()):
        left = share * sum(document.bytes for document in unique.values())
        for name in list(unique)[:-1]:
            if left <= 0:
                break
            held_out[name] = unique[name]
            left -= unique[name].bytes
    train = [document for document in documents if (document.dump, document.id) not in held_out]
    return train, list(held_out.values())


def _order(document: Document, seed: int, use: str) -> int:
    return xxh3_64_intdigest(f"{seed}/{use}/{document.dump}/{document.id}".encode())
