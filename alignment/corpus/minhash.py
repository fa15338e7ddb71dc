"""What one pass over the documents leaves for deduplication: digest, MinHash bands and shingles of each.

Shingles are n-grams of tokens: of words, of characters in Chinese, of words and marks in code. A signature is the least
value of each of many hash functions over a document's shingles; two documents agree in one with the probability of their
Jaccard similarity (Broder 1997). Rows of the signature are folded into one number a band. A shard's sketches lie in four
files of plain numbers; the shingles, two bytes a byte of text, are kept so that candidates can be compared exactly.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from alignment.corpus import ngrams, tokens
from alignment.corpus.ngrams import Hashes
from alignment.errors import DataError, RecipeError

BATCH = 300_000  # characters that are scanned at once: their arrays fit the processor's cache
MULTIPLIER = 0x9FB21C651E98DF25  # odd; joins the tokens of a shingle, and the rows of a band
OPEN = 64  # files of shingles at a time
PARTS = ("digests", "keys", "counts", "grams")


@dataclass(frozen=True)
class Sketch:
    """Of N documents: digests (N x 2), a key for each band (N x bands), shingles one after another and how many each has."""

    digests: Hashes
    keys: Hashes
    counts: NDArray[np.int64]
    grams: Hashes


def sketch(texts: Sequence[str], code: Sequence[bool], *, shingle: int, hashes: int, bands: int, seed: int) -> Sketch:
    """Sketch each text on its own: the rest of the batch makes no difference. `code`: marks are tokens."""
    digests, counts, flat = _cut(texts, code, shingle)
    return Sketch(digests, keys(_rows(flat, counts, hashes, seed), bands), counts, flat)


def signatures(texts: Sequence[str], code: Sequence[bool], *, shingle: int, hashes: int, seed: int) -> NDArray[np.uint32]:
    """Sign each text: texts x hashes."""
    _, counts, flat = _cut(texts, code, shingle)
    return _rows(flat, counts, hashes, seed)


def keys(rows: NDArray[np.uint32], bands: int) -> Hashes:
    """Fold the rows of each band into one number: documents x bands."""
    documents, hashes = rows.shape
    if hashes % bands:
        raise RecipeError(f"near: {hashes} hashes cannot be cut into {bands} equal bands. Use a divisor of {hashes}.")
    whole = np.zeros((documents, bands), np.uint64)
    for column in np.moveaxis(rows.reshape(documents, bands, hashes // bands), 2, 0):
        whole = whole * np.uint64(MULTIPLIER) + column
    return ngrams.mixed(whole)


def shingles(found: tokens.Tokens, length: int) -> list[Hashes]:
    """Hash the n-grams of each text, repeated ones too; a shorter text is one shingle, one without a token has none."""
    hashes, windows = found.hashes, _windows(found.hashes, length)
    return [
        windows[begin : end - length + 1] if end - begin >= length else _windows(hashes[begin:end], end - begin)
        for begin, end in pairwise(found.offsets.tolist())
    ]


def _windows(values: Hashes, length: int) -> Hashes:
    """One number for each window: a polynomial of its values, by doubling the windows and adding single values."""
    found, size = values, 1
    for bit in f"{length:b}"[1:]:
        found = _joined(found[:-size], size, found[size:])
        size *= 2
        if bit == "1":
            found = _joined(found[:-1], 1, values[size:])
            size += 1
    return found


def _joined(first: Hashes, size: int, second: Hashes) -> Hashes:
    """Windows followed by others of this size."""
    whole: Hashes = first * np.uint64(pow(MULTIPLIER, size, 2**64))
    whole += second
    return whole


def _cut(texts: Sequence[str], code: Sequence[bool], shingle: int) -> tuple[Hashes, NDArray[np.int64], Hashes]:
    """Digests, how many shingles each text has, and all shingles in the order of the texts."""
    digests, grams = [b""] * len(texts), [np.zeros(0, np.uint64)] * len(texts)
    for places in _batches(texts, code):
        found = tokens.scan([texts[place] for place in places], marks=code[places[0]])
        for place, digest, part in zip(places, found.digests, shingles(found, shingle), strict=True):
            digests[place], grams[place] = digest, part
    counts = np.fromiter(map(len, grams), np.int64, len(grams))
    flat = np.concatenate([np.zeros(0, np.uint64), *grams])
    return np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2), counts, flat


def _batches(texts: Sequence[str], code: Sequence[bool]) -> Iterator[list[int]]:
    """Group the places of texts that are cut by the same rule."""
    for marks in (False, True):
        held, size = list[int](), 0
        for place, text in enumerate(texts):
            if code[place] == marks:
                held.append(place)
                size += len(text)
                if size > BATCH:
                    yield held
                    held, size = [], 0
        if held:
            yield held


def _rows(flat: Hashes, counts: NDArray[np.int64], hashes: int, seed: int) -> NDArray[np.uint32]:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    signed = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, hashes, seed).to_rows()
    return np.fromiter(chain.from_iterable(signed), np.uint32, len(counts) * hashes).reshape(len(counts), hashes)


# -- on disk ----------------------------------------------------------------------------------------------------------


def write(stem: Path, sketches: Iterable[Sketch]) -> int:
    """Write the sketches of a shard one after another to stem.digests, .keys, .counts and .grams; return how many texts."""
    documents = 0
    with ExitStack() as stack:
        files = {part: stack.enter_context(_file(stem, part, ".part").open("wb")) for part in PARTS}
        for found in sketches:
            for part, file in files.items():
                file.write(getattr(found, part).astype(f"<{'i' if part == 'counts' else 'u'}8", copy=False).data)
            documents += len(found.counts)
    for part in PARTS:
        os.replace(_file(stem, part, ".part"), _file(stem, part))
    return documents


class Store:
    """The sketches of several shards as one row of documents. Only the counts are held; a mapping would count as held."""

    def __init__(self, stems: Sequence[Path]) -> None:
        self._opened: dict[int, int] = {}  # shingle files, by shard
        counts = [_mapped(stem, "counts").view(np.int64) for stem in stems]
        self.counts = np.concatenate([np.zeros(0, np.int64), *counts])
        self._stems = stems
        self._first = np.cumsum([0, *map(len, counts)])  # the position each shard begins at
        self._begins = np.concatenate([np.zeros(0, np.int64), *(np.cumsum(some) - some for some in counts)])
        keys = sum(_file(stem, "keys").stat().st_size for stem in stems) // 8
        self.bands = keys // len(self) if len(self) else 0

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def digests(self) -> Hashes:
        """All digests, N x 2."""
        return np.concatenate([np.zeros((0, 2), np.uint64), *(_mapped(stem, "digests", 2) for stem in self._stems)])

    def keys(self, band: int) -> Hashes:
        """The keys of all documents in one band."""
        columns = (np.array(_mapped(stem, "keys", self.bands)[:, band]) for stem in self._stems)
        return np.concatenate([np.zeros(0, np.uint64), *columns])

    def grams(self, position: int) -> Hashes:
        """The shingles of one document as a sorted set."""
        shard = int(np.searchsorted(self._first, position, side="right")) - 1
        if shard not in self._opened:
            if len(self._opened) >= OPEN:
                self._close()
            self._opened[shard] = os.open(_file(self._stems[shard], "grams"), os.O_RDONLY)
        begin, count = int(self._begins[position]), int(self.counts[position])
        return ngrams.distinct(np.frombuffer(os.pread(self._opened[shard], 8 * count, 8 * begin), np.uint64))

    def _close(self) -> None:
        while self._opened:
            os.close(self._opened.popitem()[1])

    def __del__(self) -> None:
        self._close()


def _file(stem: Path, part: str, more: str = "") -> Path:
    return stem.with_name(f"{stem.name}.{part}{more}")


def _mapped(stem: Path, part: str, width: int | None = None) -> Hashes:
    file = _file(stem, part)
    try:
        found = np.memmap(file, np.uint64, "r") if file.stat().st_size else np.zeros(0, np.uint64)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Run the stage that writes it again.") from None
    return found if width is None else found.reshape(-1, width)
