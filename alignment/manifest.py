"""What `run.json` says of a run before it begins, and the fingerprint: what makes two runs the same."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

FORMAT = "plumbline-run-1"
# Fields of a recipe that change nothing that is learnt or measured.
FREE = ("fits", "budget_cpu_hours", "keep_turn", "overlong", "memory_bytes")
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")

Card = Mapping[str, Any]  # of a data card: revision, rows, digest


def compose(
    *, words: Mapping[str, Any], inputs: Mapping[str, str], cards: Mapping[str, Card], hardware: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what a run that is about to begin will do, with what, and where."""
    return {
        "format": FORMAT,
        "stage": words["stage"],
        "finished": False,
        "fingerprint": fingerprint(words, inputs, digests(cards)),
        "recipe": json.loads(json.dumps(words, default=str)),
        "inputs": dict(inputs),
        "cards": {name: dict(card) for name, card in cards.items()},
        "seed": words["seed"],
        "hardware": dict(hardware),
        "command": ["python", "-m", "alignment", *sys.argv[1:]],
        "git": _git(),
        "versions": versions(),
        "started": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def fingerprint(words: Mapping[str, Any], inputs: Mapping[str, str], cards: Mapping[str, str]) -> str:
    """Hash what a stage will do: its recipe, the fingerprints of its inputs, the digests of its data.

    Not the location, the hardware, the profiles it fits, the CPU time and memory it may take or the gate it must pass.
    """
    known = {key: value for key, value in words.items() if key not in FREE}
    text = json.dumps({"recipe": known, "inputs": inputs, "cards": cards}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the first field in which two manifests differ, with both values."""
    parts = (
        ("", old["recipe"], new["recipe"]),
        ("inputs.", old["inputs"], new["inputs"]),
        ("cards.", digests(old["cards"]), digests(new["cards"])),
    )
    for prefix, was, now in parts:
        before, after = _flat(was), _flat(now)
        for name in sorted(before.keys() | after.keys()):
            if name.split(".")[0] not in FREE and before.get(name) != after.get(name):
                return f"{prefix}{name}: was {before.get(name)!r}, now {after.get(name)!r}"
    return "nothing that is recorded"


def digests(cards: Mapping[str, Card]) -> dict[str, str]:
    """What counts of the cards: their content, not the revision that it came from."""
    return {name: str(card["digest"]) for name, card in cards.items()}


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import platform
    from importlib import metadata

    found = {"python": platform.python_version(), "machine": platform.machine()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "absent"
    return found


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else None
    if pairs is None or not value:  # an empty section differs from one that is not there
        return {name: value}
    return {key: v for k, inner in pairs for key, v in _flat(inner, f"{name}.{k}" if name else str(k)).items()}


def _git() -> dict[str, Any]:
    import subprocess

    def ask(*words: str) -> str | None:
        try:
            return subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None  # not a checkout: recorded as unknown

    status = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "clean": None if status is None else not status}
