"""How often each row is read, so that domains and languages have the shares that the recipe asks for (paper 4).

A domain with more rows than its share is capped: a seeded draw says which rows stay. One with fewer is read more than once,
up to its epochs; beyond them the total gives way, never the shares.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment import data_card
from alignment.corpus import remix
from alignment.errors import RecipeError
from alignment.posttrain.spool import Spool, Times
from alignment.recipe import Blend, Mixture
from alignment.schema import nearest


def check(words: Mixture, file: Path, folder: Path = data_card.CARDS) -> None:
    """Refuse a mixture's shares of domains and languages that its cards do not have; what runs give shows when they ran."""
    if words.blend is None:
        return
    cards = [data_card.load(source.card, folder) for source in words.data if source.card]
    for place, asked, known in (
        ("shares", words.blend.shares, {card.domain for card in cards}),
        ("languages", words.blend.languages or {}, {card.language for card in cards}),
    ):
        where = f"{file}: blend.{place}"
        unknown = sorted({name for name, share in asked.items() if share > 0} - known)
        if unknown and len(cards) == len(words.data):
            raise RecipeError(f"{where}: no card of `data` gives {unknown[0]!r}. {nearest(unknown[0], sorted(known))}")
        if asked and (without := sorted(known - asked.keys())):
            raise RecipeError(f"{where}: no share for {', '.join(without)}. Give each one; 0 leaves it out.")


def times(spool: Spool, among: NDArray[np.bool_], blend: Blend, seed: int) -> tuple[Times, dict[str, Any]]:
    """Say of every row how often it is read, and in plain data how the shares were met. `among` False: not at all.

    Raises DataError where shares and rows do not match.
    """
    groups, numbers = _groups(spool, by_language=blend.languages is not None)
    counted = np.bincount(numbers[among], minlength=len(groups)).tolist()
    rows = {group: count for group, count in zip(groups, counted, strict=True) if count}
    available = {"/".join(group): count for group, count in rows.items()}
    shares: dict[str, float] = dict(blend.shares)
    if blend.languages is not None:
        pairs = {(domain, language): count for (domain, language), count in rows.items()}
        available, shares = remix.by_language(pairs, blend.shares, blend.languages)
    caps = {"/".join(group): cap for group in rows if (cap := (blend.max_epochs_of or {}).get(group[0]))}
    plan = remix.plan(available, shares, budget=blend.rows, max_epochs=blend.max_epochs, caps=caps)
    found = np.zeros(len(spool), np.int32)
    for number, group in enumerate(groups):
        if take := plan.take.get(name := "/".join(group), 0):
            mine = np.flatnonzero(among & (numbers == number))
            whole, rest = divmod(take, len(mine))
            found[mine] = whole
            drawn = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(mine)
            found[drawn[:rest]] += 1
    told = [
        {"group": name, "available": available[name], "share": plan.share[name], "taken": take, "epochs": plan.epochs[name]}
        for name, take in plan.take.items()
    ]
    return found, {"asked": blend.rows, "taken": int(found.sum()), "bound_by": plan.bound_by, "groups": told}


def _groups(spool: Spool, *, by_language: bool) -> tuple[list[tuple[str, ...]], NDArray[np.int32]]:
    """The groups that have a share, a domain or a domain in a language, and of every row the number of its own."""
    domains, domain = spool.groups("domain")
    if not by_language:
        return [(one,) for one in domains], domain
    languages, language = spool.groups("language")
    return [(one, other) for one in domains for other in languages], domain * len(languages) + language
