"""Log-probabilities of the start model, computed once and kept beside the runs under a hash of all they depend on.

    runs/smollm2-135m/reference-logprobs/HASH.npy    (pairs, 2): chosen, rejected; float32

The hash covers the model's files, the pairs' tokens, the tokenizer with its template, and what computes: another recipe
over the same pairs (beta, learning rate, loss) reads what is there, and no second model is held in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment import run
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.posttrain import supervision
from alignment.recipe import DPO, KTO
from alignment.run import Run

FOLDER = "reference-logprobs"
Table = npt.NDArray[np.float32]  # (items, answers)


@dataclass(frozen=True)
class Reference:
    """Where the reference's numbers for some items lie, or will lie."""

    file: Path
    what: str
    items: int  # each with two answers

    @property
    def said(self) -> str:
        """What the reference is, and where its numbers come from."""
        state = "read from" if self.file.exists() else "computed now, once, into"
        return f"reference: {self.what}; log-probabilities {state} {self.file}"

    def read(self) -> Table | None:
        """The table; None where nobody has computed it yet."""
        if not self.file.exists():
            return None
        try:
            table: Table = np.load(self.file, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{self.file}: cannot be read ({error}). Remove it; it is computed again.") from None
        if table.shape != (self.items, 2) or not np.isfinite(table).all():
            raise DataError(f"{self.file}: is not a table of {self.items} x 2 numbers. Remove it.")
        return table

    def write(self, table: Table) -> None:
        """Keep the table: whole or not at all, and whoever else computes the same."""
        self.file.parent.mkdir(exist_ok=True)
        draft = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        with draft.open("wb") as out:
            np.save(out, table.astype(np.float32))
        os.replace(draft, self.file)


def of(
    folder: Path, items: Sequence[Sequence[Sequence[int]]], tokenizer: Any, here: Run, hardware: Hardware, computed: str
) -> Reference:
    """Name the table for items (prompt, two answers) under the model in `folder`; `computed`: what `way` says."""
    model = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix == ".safetensors" or path.name == "config.json"):
        model.update(f"{file.name} {run.sha256(file)}\n".encode())
    data = hashlib.sha256()
    for item in items:
        for ids in item:
            data.update(np.array([len(ids), *ids], dtype=np.int32).tobytes())
    machine = f"{hardware.device} {hardware.dtype} {computed} torch {run.versions()['torch']}"
    parts = [model.hexdigest(), data.hexdigest(), supervision.signature(tokenizer), machine]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    what = f"the model in {folder} ({model.hexdigest()[:12]}), {computed}"
    return Reference(here.path.parent / FOLDER / f"{name[:32]}.npy", what, len(items))


def way(recipe: DPO | KTO, *, cast: bool) -> str:
    """Say how the reference is computed: as the policy is, before anything was learnt."""
    base = "its weights in 4 bits" if recipe.adapter and recipe.adapter.base else "its weights as they lie on disk"
    off = ", the adapter off" if recipe.adapter else ""
    return f"{base}{off}, {'cast to the type that computes' if cast else 'under autocast'}"
