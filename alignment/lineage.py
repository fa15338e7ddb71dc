"""The chain from raw text to a model: every run, its inputs and their fingerprints, read back from the manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from alignment import run
from alignment.errors import RunError


def chain(path: Path, *, verify: bool = False) -> list[run.Finished]:
    """Open a run and everything it was made from, inputs first, each once.

    Raises RunError where an input is missing or is not the one that was used. `verify` hashes every output.
    """
    found: dict[str, run.Finished] = {}

    def visit(place: Path) -> run.Finished:
        if place.name in found:
            return found[place.name]
        here = run.read(place, hash_limit=None if verify else 0)
        for name, fingerprint in here.parents.items():
            parent = visit(place.parent / name)
            if parent.fingerprint != fingerprint:
                raise RunError(
                    f"{parent.path}: is {parent.fingerprint[:12]}, but {place} was made from {fingerprint[:12]}. "
                    "The chain is broken: one of them was run again."
                )
        found[place.name] = here
        return here

    visit(path.resolve().relative_to(Path.cwd()) if path.resolve().is_relative_to(Path.cwd()) else path)
    return list(found.values())


def trace(path: Path, *, verify: bool = False) -> Iterator[str]:
    """Describe the chain, a line a run."""
    for here in chain(path, verify=verify):
        inputs = ", ".join(f"{name} {_short(value)}" for name, value in here.manifest["inputs"].items()) or "nothing before"
        cards = "".join(f", card {name} {_short(card['digest'])}" for name, card in here.manifest["cards"].items())
        size = sum(output["bytes"] for output in here.manifest["outputs"].values())
        yield (
            f"{here.fingerprint[:12]}  {here.path.name:<12} {here.manifest['stage']:<12} "
            f"{size / 1e6:9.1f} MB  {here.manifest['seconds']:7.1f} s  from {inputs}{cards}"
        )
    yield "every output hashed and found as sealed" if verify else "sizes checked; --verify hashes every output"


def _short(mark: str) -> str:
    """Twelve digits of a hash; a hub name stays whole but for its commit."""
    return re.sub(r"[0-9a-f]{40,}", lambda found: found[0][:12], mark)
