"""The step `duplicates`: which documents go, over all shards together, as numbers: who goes, why, and who stays instead.

Dumps are joined in the order in which they are read. Texts are not looked at again: what the first pass wrote of them
lies in files, and memory holds some tens of bytes a document. The documents of a kept index come first, and stay.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignment import recipe as words
from alignment.corpus import dedup, minhash
from alignment.corpus.intake import KINDS
from alignment.corpus.shelf import Rows, Shelf

STAYS, EQUAL, NEAR = range(3)
INDEX = -2  # who stays instead, where it is a document of an index: this and below
RULES = (("longest", "lengths", "characters"), ("newest", "dates", "date"), ("best", "quality", "quality"))
SKETCH, ROOTS = "sketch", "roots.npy"
FATE, SOUGHT = "fate.npy", "sought.npy"  # `sought`: what an audit can judge here, from this run's documents alone


@dataclass(frozen=True)
class Duplicates:
    """The work of the step: one shard. `sought` says of each shard of `read` whether near-duplicates go."""

    shards: tuple[Path, ...]
    sought: tuple[bool, ...]
    near: words.Near
    indexes: tuple[Path, ...] = ()

    def __call__(self, _: int, out: Path) -> None:
        """Write fate.npy and instead.npy (a row of `read`, or INDEX and below), and roots.npy for a later index."""
        shelf = Shelf(self.shards)
        kept = _kept(self.indexes)
        first = len(kept)
        store = minhash.Store([*(stem for index in self.indexes for stem in kept_sketches(index)), *sketches(self.shards)])
        equal = dedup.first_equal(store.digests)
        position = np.arange(len(equal))
        among = (equal == position) | (position < first)
        among[first:] &= np.repeat(np.array(self.sought, np.bool_), np.diff(shelf.first))
        found = dedup.cluster(store, self.near.threshold, among, kept, scratch=out)
        stays = self._survivors(shelf, found, first)
        stays = np.where(found.root < first, found.root, stays)  # the index was there before
        fate = np.where(stays != position, NEAR, STAYS).astype(np.uint8)
        fate[equal != position], stays[equal != position] = EQUAL, equal[equal != position]
        fate, stays = fate[first:], stays[first:]
        np.save(out / FATE, fate)
        np.save(out / SOUGHT, np.repeat(np.array(self.sought, np.bool_), np.diff(shelf.first)) & (stays >= first))
        np.save(out / "instead.npy", np.where(stays >= first, stays - first, INDEX - stays))
        own = np.unique(found.root[first:], return_index=True, return_inverse=True)[1:]
        np.save(out / ROOTS, own[0][own[1]])  # counted from this run's first document, also where the root is in an index
        lost = (found.joins + (equal != position))[first:]
        names, dump = shelf.groups("dump")
        said = {
            "documents": dict(zip(names, np.bincount(dump, minlength=len(names)).tolist(), strict=True)),
            "removed": dict(zip(names, np.bincount(dump, lost, len(names)).astype(int).tolist(), strict=True)),
            "candidates": found.candidates,
            "verified": found.verified,
        }
        (out / "said.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")

    def _survivors(self, shelf: Shelf, found: dedup.Clusters, first: int) -> Rows:
        def whole(name: str) -> NDArray[np.float64]:
            columns = [shelf.column(shard, name, KINDS[name]) for shard in range(len(self.shards))]
            return np.concatenate([np.zeros(first), *columns])  # what is said of an index has no effect

        asked = {argument: whole(name) for rule, argument, name in RULES if rule == self.near.keep}
        return dedup.survivors(found, self.near.keep, **asked)


def keep_removed(removed: Path, step: Path) -> None:
    """Keep what an audit must know: which documents went."""
    _keep(removed, {name: step / name for name in (FATE, SOUGHT)})


def keep_index(index: Path, shards: Sequence[Path], step: Path) -> None:
    """Keep what a later run needs to find duplicates of these documents."""
    sketches = {f"{shard.name}{file.suffix}": file for shard in shards for file in shard.glob(f"{SKETCH}.*")}
    _keep(index, {**sketches, ROOTS: step / ROOTS})


def _keep(folder: Path, files: Mapping[str, Path]) -> None:
    draft = folder.with_name(folder.name + ".part")
    for old in (draft, folder):  # of a run that was killed
        shutil.rmtree(old, ignore_errors=True)
    draft.mkdir()
    for name, file in files.items():
        shutil.copyfile(file, draft / name)
    draft.rename(folder)


def sketches(shards: Sequence[Path]) -> list[Path]:
    """Name the sketches of shards of `read`, for a store."""
    return [shard / SKETCH for shard in shards]


def kept_sketches(index: Path) -> list[Path]:
    """Name the sketches in an index, for a store."""
    return [file.with_suffix("") for file in sorted(index.glob("*.digests"))]


def _kept(indexes: Sequence[Path]) -> Rows:
    """The roots of all indexes, as positions in one row of documents."""
    found = np.zeros(0, np.int64)
    for index in indexes:
        found = np.concatenate([found, len(found) + np.load(index / ROOTS)])
    return found
