"""Bring domains to the shares the recipe asks for (paper 2.1: remixing raises what is under-represented).

The shares always hold. What gives way is the total: it shrinks until no domain is read more than its cap allows. With
shares of languages too, a group is a domain in a language: each domain is divided as the languages are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_64_intdigest

from alignment.corpus.documents import Document
from alignment.errors import DataError


@dataclass(frozen=True)
class Plan:
    """Bytes to take of each domain, and the domain that held the total down, if one did."""

    take: dict[str, int]
    available: dict[str, int]
    bound_by: str | None
    share: dict[str, float] = field(default_factory=dict)  # of the total

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The plan as a table: what each group has, what is taken of it, and how often it is read."""
        return [
            {
                "group": group,
                "available_bytes": self.available[group],
                "share": self.share[group],
                "take_bytes": take,
                "epochs": self.epochs[group],
            }
            for group, take in self.take.items()
        ]

    @property
    def epochs(self) -> dict[str, float]:
        """How often each domain is read."""
        return {domain: round(self.take[domain] / self.available[domain], 3) for domain in self.take}


def plan(
    available: Mapping[str, int],
    shares: Mapping[str, float],
    *,
    budget: int,
    max_epochs: float,
    caps: Mapping[str, float] | None = None,
) -> Plan:
    """Divide a budget of bytes; `caps` are the epochs of groups that have their own.

    Raises DataError where shares and groups do not match.
    """
    wanted = {group: share for group, share in shares.items() if share > 0}
    if without := sorted(set(available) - set(shares)):
        raise DataError(f"shares: no share for {', '.join(without)}. Give each domain one; 0 leaves it out.")
    if absent := sorted(set(wanted) - set(available)):
        found = ", ".join(sorted(available))
        raise DataError(f"shares: no document of {', '.join(absent)} is left. Domains in the corpus: {found}.")
    if not wanted:
        raise DataError("shares: all are 0, so nothing would be kept. Give at least one domain a share.")
    most = {group: (caps or {}).get(group, max_epochs) for group in wanted}
    whole = sum(wanted.values())
    limits = {group: most[group] * available[group] * whole / share for group, share in wanted.items()}
    tightest = min(limits, key=lambda group: limits[group])
    total = min(budget, limits[tightest])
    take = {group: int(total * share / whole) for group, share in wanted.items()}
    share = {group: round(share / whole, 6) for group, share in wanted.items()}
    return Plan(take, dict(available), tightest if total < budget else None, share)


def by_language(
    available: Mapping[tuple[str, str], int], shares: Mapping[str, float], languages: Mapping[str, float]
) -> tuple[dict[str, int], dict[str, float]]:
    """Say bytes and shares of each domain in each language, as `plan` takes them: the group is `domain/language`.

    A domain's share is divided among the languages that it has. Raises DataError where one has no share.
    """
    bytes_: dict[str, int] = {}
    divided: dict[str, float] = {}
    for domain, share in shares.items():
        found = {language: size for (name, language), size in available.items() if name == domain}
        if without := sorted(set(found) - set(languages)):
            raise DataError(f"languages: no share for {', '.join(without)} (of {domain}). 0 leaves a language out.")
        whole = sum(languages[language] for language in found)
        if found and share > 0 and not whole:
            raise DataError(f"languages: all that {domain} has are 0, and its share is {share}. Change one of them.")
        for language, size in found.items():
            bytes_[f"{domain}/{language}"] = size
            divided[f"{domain}/{language}"] = share * languages[language] / whole if whole else 0.0
        if share > 0 and not found:
            divided[domain] = share  # `plan` says that nothing of it is left
    if without := sorted({domain for domain, _ in available} - set(shares)):
        raise DataError(f"shares: no share for {', '.join(without)}. Give each domain one; 0 leaves it out.")
    return bytes_, divided


def key(document: Document, seed: int, use: str) -> int:
    """A number that only seed, use and the document's name decide: what is taken, and in which order."""
    return xxh3_64_intdigest(f"{seed}/{use}/{document.dump}/{document.id}".encode())
