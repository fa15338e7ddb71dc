"""Log-probabilities of the start model, computed once and kept beside the runs under a hash of all they depend on.

    runs/smollm2-135m/reference-logprobs/HASH.npy    (pairs, 2): chosen, rejected; float32

The hash covers the model's files, the pairs' tokens, the tokenizer with its template, and what computes: another recipe
over the same pairs (beta, learning rate, loss) reads what is there, and no second model is held in memory. A pair that
nobody has asked for yet (of less than an epoch) is NaN in the table.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate.utils import broadcast_object_list

from alignment import run
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.posttrain import supervision
from alignment.recipe import DPO, KTO, Start
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

    def read(self) -> Table:
        """The table; NaN where nobody has computed it yet."""
        if not self.file.exists():
            return np.full((self.items, 2), np.nan, dtype=np.float32)
        try:
            table: Table = np.load(self.file, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{self.file}: cannot be read ({error}). Remove it; it is computed again.") from None
        if table.shape != (self.items, 2) or np.isinf(table).any():
            raise DataError(f"{self.file}: is not a table of {self.items} x 2 numbers. Remove it; it is computed again.")
        return table

    def of(self, numbers: Sequence[int], compute: Callable[[Sequence[int]], Table], *, main: bool) -> Table:
        """The rows of the items of these numbers; `main`: whether this process keeps what is new.

        `compute` is called with the places in `numbers` where an item stands first that nobody has computed yet.
        """
        table, asked = self.read(), np.asarray(numbers)
        items, first = np.unique(asked, return_index=True)
        new = np.isnan(table[items]).any(axis=1)
        if new.any():
            places = np.sort(first[new])
            table[asked[places]] = compute(places.tolist())
            if main and np.isfinite(table[items]).all():  # of a broken model nothing is kept; its training stops
                self.write(table)
        found: Table = table[asked]
        return found

    def write(self, table: Table) -> None:
        """Keep the table: whole or not at all, and whoever else computes the same."""
        self.file.parent.mkdir(exist_ok=True)
        draft = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        with draft.open("wb") as out:
            np.save(out, table.astype(np.float32))
        os.replace(draft, self.file)


@dataclass(frozen=True)
class Scorer:
    """What computes a reference: the start model and its tokenizer, told apart by content, and the way it is done."""

    folder: Path
    model: str  # `digest`
    tokenizer: str  # `supervision.signature`
    way: str  # in words
    machine: str
    kept: Path  # the folder of the tables

    def over(self, items: Sequence[Sequence[Sequence[int]]]) -> Reference:
        """Name the table for items (prompt, two answers)."""
        data = hashlib.sha256()
        for item in items:
            for ids in item:
                data.update(np.array([len(ids), *ids], dtype=np.int32).tobytes())
        parts = [self.model, data.hexdigest(), self.tokenizer, self.machine]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        what = f"the model in {self.folder} ({self.model[:12]}), {self.way}"
        return Reference(self.kept / f"{name[:32]}.npy", what, len(items))


def scorer(recipe: DPO | KTO, folder: Path, tokenizer: Any, here: Run, hardware: Hardware, *, cast: bool) -> Scorer:
    """Say what computes the reference: the start model in `folder`, as the policy is computed before it has learnt.

    `cast`: its weights are held in the type that computes. Every rank calls it.
    """
    base = "its weights in 4 bits" if recipe.adapter and recipe.adapter.base else "its weights as they lie on disk"
    off = ", the adapter off" if recipe.adapter else ""
    way = f"{base}{off}, {'cast to the type that computes' if cast else 'under autocast'}"
    return Scorer(
        folder=folder,
        model=digest(recipe.start, folder, here),
        tokenizer=supervision.signature(tokenizer),
        way=way,
        machine=f"{hardware.device} {hardware.dtype} {way} torch {run.versions()['torch']}",
        kept=here.path.parent / FOLDER,
    )


def digest(start: Start, folder: Path, here: Run) -> str:
    """Hash a start model by its weights and config: what a sealed run says of them, else what rank 0 reads."""
    found: dict[str, str] = {}
    if start.run:
        sealed = here.inputs[start.run].manifest["outputs"]
        found = {name.removeprefix("model/"): seal["sha256"] for name, seal in sealed.items() if name.startswith("model/")}
    elif here.main:
        found = {file.name: run.sha256(file) for file in folder.iterdir() if _counts(file.name)}
    lines = "".join(f"{name} {found[name]}\n" for name in sorted(found) if _counts(name))
    (same,) = broadcast_object_list([hashlib.sha256(lines.encode()).hexdigest()])
    return str(same)


def _counts(name: str) -> bool:
    return name.endswith(".safetensors") or name == "config.json"
