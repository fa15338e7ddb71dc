"""Every n-gram of the training text on disk, sorted, so that evaluation can ask which of its items were trained on.

Two kinds, for text with and without spaces: 8 words, and 13 characters. Whitespace cuts a 64-character Chinese question
into one word, so 8 words find nothing in it, 13 characters do. At least half of an n-gram must be what the kind is for,
words of two letters and more or Chinese characters: texts that share nothing share rows of numbers and of option letters.

    texts -> (hash, document, place) -> 64 buckets by the hash's first bits -> each sorted, first place of each hash

A hash is only a candidate: a match counts when the source, read again, holds the same words there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus import ngrams, trained
from alignment.corpus.ngrams import CJK, Hashes, Windows
from alignment.errors import DataError
from alignment.run import read_manifest, write_text

FORMAT = "plumbline-index-1"
BUCKET_BITS = 6
BATCH = 1 << 21  # n-grams that are held before they go to their buckets
ENTRY = np.dtype([("hash", "<u8"), ("document", "<u4"), ("place", "<u4")])


@dataclass(frozen=True)
class Kind:
    """What an n-gram is made of; `letter` matches the pieces that half of it must be."""

    length: int
    piece: re.Pattern[str]
    letter: re.Pattern[str]

    def grams(self, text: str) -> tuple[NDArray[np.int64], Hashes]:
        """Find the n-grams of a text: the piece each begins with, and its hash."""
        pieces = self.piece.findall(text.lower()) if self.letter.search(text) else []
        letters = np.fromiter((self.letter.match(piece) is not None for piece in pieces), np.int64, len(pieces))
        seen = np.concatenate([np.zeros(1, np.int64), np.cumsum(letters)])
        starts = np.flatnonzero(2 * (seen[self.length :] - seen[: -self.length]) >= self.length)
        return starts, Windows(ngrams.hashes(pieces)).of(self.length)[starts]


KINDS = {
    "word": Kind(8, ngrams.WORDS, re.compile(rf"[^\W\d_{CJK}]{{2}}")),
    "character": Kind(13, re.compile(r"[^\W_]"), re.compile(f"[{CJK}]")),
}


@dataclass(frozen=True)
class Span:
    """A stretch of a text that the training text holds too, and where."""

    kind: str
    begin: int  # characters, in the lower-cased text
    end: int
    source: str


@dataclass(frozen=True)
class Matches:
    """What a text shares with the index. `share` is of its pieces, of the kind that finds more; None: too few words."""

    share: float | None
    spans: tuple[Span, ...]


# -- writing ----------------------------------------------------------------------------------------------------------


def write(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Index the training text of runs; return what index.json says. Raises DataError where `out` holds something."""
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: not empty. Choose another --out, or remove it yourself.")
    files = [file for folder in runs for file in trained.files(folder)]
    out.mkdir(parents=True, exist_ok=True)
    documents = _scatter(_all_texts(files), out)
    if not documents:
        raise DataError(f"{files[0].parent}: no text in it. Check that run.")
    np.save(out / "documents.npy", np.array(documents, np.uint64))
    about = {
        "format": FORMAT,
        "sources": [_source(file) for file in files],
        "documents": len(documents),
        "grams": {name: {"length": kind.length, "count": _gather(name, out)} for name, kind in KINDS.items()},
    }
    write_text(out / "index.json", json.dumps(about, indent=1, ensure_ascii=False))
    return about


def _source(file: Path) -> dict[str, Any]:
    fingerprint = read_manifest(file.parent)["fingerprint"]
    return {"file": str(file.resolve()), "bytes": file.stat().st_size, "run": file.parent.name, "fingerprint": fingerprint}


def _all_texts(files: Iterable[Path]) -> Iterator[tuple[int, int, str]]:
    for number, file in enumerate(files):
        for offset, text in trained.texts(file):
            yield number, offset, text


def _scatter(texts: Iterable[tuple[int, int, str]], out: Path) -> list[tuple[int, int]]:
    """Append the n-grams of all texts to their buckets; return file and byte of each text."""
    documents: list[tuple[int, int]] = []
    waiting: dict[str, list[NDArray[Any]]] = {name: [] for name in KINDS}
    held = 0
    for number, offset, text in texts:
        for name, kind in KINDS.items():
            starts, hashes = kind.grams(text)
            found: NDArray[Any] = np.empty(len(starts), ENTRY)
            found["hash"], found["document"], found["place"] = hashes, len(documents), starts
            waiting[name].append(found)
            held += len(found)
        documents.append((number, offset))
        if held >= BATCH:
            _pour(waiting, out)
            held = 0
    _pour(waiting, out)
    return documents


def _pour(waiting: dict[str, list[NDArray[Any]]], out: Path) -> None:
    for name, held in waiting.items():
        found = np.concatenate([np.empty(0, ENTRY), *held])
        held.clear()
        bucket = found["hash"] >> np.uint64(64 - BUCKET_BITS)
        order = np.argsort(bucket, kind="stable")
        for number, entries in zip(*_split(bucket[order], found[order]), strict=True):
            with (out / f"{name}-{number:02d}.part").open("ab") as file:
                file.write(entries.tobytes())


def _split(buckets: Hashes, entries: NDArray[Any]) -> tuple[list[int], list[NDArray[Any]]]:
    """Cut sorted entries where their bucket changes."""
    numbers, begins = np.unique(buckets, return_index=True)
    return numbers.tolist(), np.split(entries, begins[1:]) if len(numbers) else []


def _gather(name: str, out: Path) -> int:
    """Sort each bucket, keep the first place of each hash, and join the buckets; return how many n-grams there are."""
    parts = sorted(out.glob(f"{name}-*.part"))
    count = 0
    for part in parts:
        entries = np.fromfile(part, ENTRY)
        _, first = np.unique(entries["hash"], return_index=True)
        part.write_bytes(entries[first].tobytes())
        count += len(first)
    if not count:
        return 0
    hashes = np.lib.format.open_memmap(out / f"{name}-hashes.npy", "w+", np.uint64, (count,))
    places = np.lib.format.open_memmap(out / f"{name}-places.npy", "w+", np.uint32, (count, 2))
    done = 0
    for part in parts:
        entries = np.fromfile(part, ENTRY)
        here = slice(done, done := done + len(entries))
        hashes[here], places[here, 0], places[here, 1] = entries["hash"], entries["document"], entries["place"]
        part.unlink()
    hashes.flush()
    places.flush()
    return count


# -- reading ----------------------------------------------------------------------------------------------------------


class Index:
    """An index on disk, mapped into memory. The source files must lie where they lay."""

    def __init__(self, folder: Path) -> None:
        try:
            self.about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: no index ({error}). Write one with `python -m alignment index`.") from None
        if not isinstance(self.about, dict) or self.about.get("format") != FORMAT:
            raise DataError(f"{folder}: not an index of this toolkit (format {FORMAT} expected). Write it anew.")
        self.files = [Path(source["file"]) for source in self.about["sources"]]
        for file, source in zip(self.files, self.about["sources"], strict=True):
            if not file.exists() or file.stat().st_size != source["bytes"]:
                raise DataError(f"{file}: gone or changed since {folder} was written. Restore it, or write the index anew.")
        self.documents = np.load(folder / "documents.npy", mmap_mode="r")
        kept = [name for name, grams in self.about["grams"].items() if grams["count"]]
        self.hashes = {name: np.load(folder / f"{name}-hashes.npy", mmap_mode="r") for name in kept}
        self.places = {name: np.load(folder / f"{name}-places.npy", mmap_mode="r") for name in kept}
        self._pieces = lru_cache(maxsize=4096)(self._read_pieces)

    def matches(self, text: str) -> Matches:
        """Find what a text shares with the training text, verified against it."""
        shares, spans = [], list[Span]()
        for name, kind in KINDS.items():
            starts, hashes = kind.grams(text)
            if len(starts):
                share, found = self._spans(name, text, starts, hashes)
                shares.append(share)
                spans += found
        return Matches(max(shares, default=None), tuple(spans))

    def _spans(self, name: str, text: str, starts: NDArray[np.int64], hashes: Hashes) -> tuple[float, list[Span]]:
        length = KINDS[name].length
        pieces = list(KINDS[name].piece.finditer(text.lower()))
        said = [piece[0] for piece in pieces]
        spans: list[Span] = []
        covered, last = set[int](), -2 * length
        for start, (document, place) in self._candidates(name, starts, hashes):
            if said[start : start + length] != self._pieces(name, document)[place : place + length]:
                continue  # two runs share a hash
            covered.update(range(start, start + length))
            if spans and start <= last + length:
                spans[-1] = Span(name, spans[-1].begin, pieces[start + length - 1].end(), spans[-1].source)
            else:
                end = pieces[start + length - 1].end()
                spans.append(Span(name, pieces[start].start(), end, self._where(document)))
            last = start
        return len(covered) / len(pieces), spans

    def _candidates(self, name: str, starts: NDArray[np.int64], hashes: Hashes) -> Iterator[tuple[int, tuple[int, int]]]:
        """Each start whose hash is in the index, with the document and the place it was first seen at."""
        if name not in self.hashes:
            return
        at = np.searchsorted(self.hashes[name], hashes).clip(max=len(self.hashes[name]) - 1)
        for i in np.flatnonzero(self.hashes[name][at] == hashes):
            document, place = self.places[name][at[i]].tolist()
            yield int(starts[i]), (document, place)

    def _read_pieces(self, name: str, document: int) -> list[str]:
        number, offset = self.documents[document].tolist()
        return KINDS[name].piece.findall(trained.text_at(self.files[number], offset).lower())

    def _where(self, document: int) -> str:
        number, offset = self.documents[document].tolist()
        return f"{self.about['sources'][number]['run']}/{self.files[number].name}, byte {offset}"
