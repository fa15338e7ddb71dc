"""How much of what deduplication should remove it removed, and how much of what it removed it should have.

A random sample of documents is joined exactly with all documents, by their shingles and not by their signatures: no pair
is missed. The unit is the sampled document, so that the intervals (Wilson 1927) are of independent draws:

    recall     of those with a similar document: one of the two went, for every such pair
    precision  of those that went: a similar document exists
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment import data_card, run
from alignment import recipe as words
from alignment.corpus import carrier, duplicates, installed, minhash, ngrams, sources
from alignment.corpus.carrier import Crew
from alignment.corpus.dedup import Places, Sets
from alignment.corpus.intake import Intake
from alignment.corpus.ngrams import Hashes
from alignment.errors import DataError

SAMPLE = 1000
THRESHOLDS = (0.7, 0.8)
LIKELY_BITS = 24
Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Pairs:
    """Documents (positions) that are as similar as asked: each of the sample with each other document."""

    sampled: Places
    other: Places
    similarity: NDArray[np.float64]


def sample(found: Sets, seed: int, size: int = SAMPLE, among: NDArray[np.bool_] | None = None) -> Places:
    """Draw documents that have shingles, without replacement."""
    drawn = np.flatnonzero((found.counts > 0) & (True if among is None else among))
    return np.sort(np.random.default_rng(seed).permutation(drawn)[:size])


def join(found: Sets, places: Places, least: float, among: NDArray[np.bool_] | None = None) -> Pairs:
    """Find every document whose Jaccard similarity with one of `places` is at least `least`, exactly."""
    sets = [found.grams(int(place)) for place in places]
    inverted = _Inverted(sets)
    sizes = np.array([len(grams) for grams in sets])
    rows: list[tuple[Places, Places, NDArray[np.float64]]] = []
    for other in np.flatnonzero((found.counts > 0) & (True if among is None else among)).tolist():
        grams = found.grams(other)
        shared = inverted.shared(grams)
        similarity = shared / (sizes + len(grams) - shared)
        near = np.flatnonzero((similarity >= least) & (places != other))
        rows.append((places[near], np.full(len(near), other), similarity[near]))
    return Pairs(*(np.concatenate(column) for column in zip(*rows, strict=True)))


class _Inverted:
    """The sets of the sample, from shingle to owners."""

    def __init__(self, sets: Sequence[Hashes]) -> None:
        flat = np.concatenate([np.zeros(0, np.uint64), *sets])
        owners = np.repeat(np.arange(len(sets)), [len(grams) for grams in sets])
        order = np.argsort(flat, kind="stable")
        self.values, self.owners, self.size = ngrams.distinct(flat), owners[order], len(sets)
        self.begins = np.append(np.searchsorted(flat[order], self.values), len(flat))
        self.likely = np.zeros(1 << LIKELY_BITS, np.bool_)
        self.likely[flat >> np.uint64(64 - LIKELY_BITS)] = True

    def shared(self, grams: Hashes) -> Places:
        """How many of these shingles each of the sample has."""
        maybe = grams[self.likely[grams >> np.uint64(64 - LIKELY_BITS)]]
        at = np.searchsorted(self.values, maybe).clip(max=len(self.values) - 1)
        at = at[self.values[at] == maybe]
        begins, counts = self.begins[at], self.begins[at + 1] - self.begins[at]
        ends = np.cumsum(counts)
        every = np.repeat(begins - ends + counts, counts) + np.arange(int(counts.sum()))
        return np.bincount(self.owners[every], minlength=self.size)


def judge(pairs: Pairs, places: Places, gone: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """Say recall and precision at a threshold, each as hits, number and interval."""
    close = pairs.similarity >= threshold
    alike = np.unique(pairs.sampled[close])
    missed = np.unique(pairs.sampled[close & ~gone[pairs.sampled] & ~gone[pairs.other]])
    went = places[gone[places]]
    return {
        "threshold": threshold,
        "pairs": int(close.sum()),
        "recall": share(len(alike) - len(missed), len(alike)),
        "precision": share(int(np.isin(went, alike).sum()), len(went)),
    }


def share(hits: int, number: int) -> dict[str, Any]:
    """A share with Wilson's 95 % interval; None where there is nothing to share."""
    if not number:
        return {"hits": 0, "of": 0, "share": None, "low": None, "high": None}
    rate, spread = hits / number, Z * Z / number
    middle = (rate + spread / 2) / (1 + spread)
    half = Z * math.sqrt(rate * (1 - rate) / number + spread / (4 * number)) / (1 + spread)
    return {"hits": hits, "of": number, "share": rate, "low": max(middle - half, 0.0), "high": min(middle + half, 1.0)}


# -- a run ------------------------------------------------------------------------------------------------------------


def of_run(folder: Path, data_root: Path | None = None, *, size: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """Audit a finished corpus run; return what was found.

    The shingles are those of its index; a run that kept none reads its sources again. Raises DataError or RunError where
    these are gone or others.
    """
    done = run.read(folder, "corpus")
    if not (folder / "removed").is_dir():
        raise DataError(f"{folder}: does not say which documents went. An earlier version made it: run the recipe again.")
    if (index := folder / "index").is_dir():
        return _audited(minhash.Store(duplicates.kept_sketches(index)), folder, size, seed)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.audit-", dir=folder.parent) as place:
        return _audited(minhash.Store(_read_again(done, data_root, Path(place))), folder, size, seed)


def _audited(store: minhash.Store, folder: Path, size: int, seed: int) -> dict[str, Any]:
    fate, sought = (np.load(folder / "removed" / name) for name in (duplicates.FATE, duplicates.SOUGHT))
    if len(store) != len(fate):
        raise DataError(f"{folder}: its sources give {len(store):,} documents, the run read {len(fate):,}. Run it again.")
    places = sample(store, seed, size, sought)
    pairs = join(store, places, min(THRESHOLDS), sought)
    return {
        "documents": len(store),
        "sought": int(sought.sum()),
        "sampled": len(places),
        "seed": seed,
        "findings": [judge(pairs, places, fate > 0, threshold) for threshold in THRESHOLDS],
    }


def _read_again(done: run.Finished, data_root: Path | None, place: Path) -> list[Path]:
    """Do the step `read` once more, from the same sources; return its sketches."""
    recipe = words.Corpus.model_validate(done.manifest["recipe"])
    streamed = {source.card for source in recipe.data if source.stream}
    runs = {name: run.read(done.path.parent / name) for name in (source.run for source in recipe.data) if name}
    cards = {
        name: data_card.open_card(name, data_root, training=True, stream=name in streamed)
        for name in (source.card for source in recipe.data)
        if name
    }
    digests = {name: card.digest for name, card in cards.items()}
    if any(source.installed for source in recipe.data):
        digests["installed:"] = installed.digest()
    other = [name for name, digest in digests.items() if digest != done.manifest["cards"][name]["digest"]]
    other += [name for name, found in runs.items() if found.fingerprint != done.parents[name]]
    if other:
        raise DataError(
            f"{done.path}: {', '.join(other)} is not what the run has read. Restore it (--data-root, or beside the run), "
            "or run the recipe again, with `keep_index: true` if its sources will change."
        )
    parts = tuple(sources.parts(recipe, run.Run(place, runs, cards, False, False, {})))
    return duplicates.sketches(carrier.carry(place, Intake(parts, recipe.near, recipe.seed), len(parts), Crew(1)))


def lines(found: dict[str, Any]) -> list[str]:
    """Say an audit in words."""
    said = [f"{found['sampled']:,} of {found['sought']:,} documents, each compared with all, exactly (seed {found['seed']})"]
    for finding in found["findings"]:
        for name in ("recall", "precision"):
            part = finding[name]
            rate = "nothing to judge" if part["share"] is None else _said(part)
            said.append(f"J >= {finding['threshold']}: {name} {rate}")
    return said


def _said(part: dict[str, Any]) -> str:
    return f"{part['share']:.4f} ({part['low']:.4f} to {part['high']:.4f}), {part['hits']} of {part['of']}"
