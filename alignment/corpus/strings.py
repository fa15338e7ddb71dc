"""Text that documents repeat, below the level of whole documents: lines, and long runs of tokens (DeepSeek LLM README 4).

The first document that holds a line or run keeps it, the others lose it. Code is left whole: a program with a hole is none.

    all documents -> hashes of lines, and of some windows of tokens   -> 64 buckets -> those of several documents
    documents that hold such a window -> hashes of all their windows  -> 64 buckets -> those of several documents

Windows are chosen by their content (winnowing, Schleimer et al. 2003): of STRIDE windows that begin one after another the
one with the least hash, so two documents that share a run of run_tokens + STRIDE - 1 tokens have chosen one window alike.
The second pass looks at every window of such documents, so a run is cut from its first token to its last.
Memory: one bucket, a 64th of all hashes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from alignment import section
from alignment.corpus import dedup, ngrams, tokens
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Hashes

STRIDE = 16
BUCKET_BITS = 6
BATCH = 300_000  # characters that are scanned at once
ENTRY = np.dtype([("hash", "<u8"), ("owner", "<u8")])
LINE = re.compile(r"[^\n]+\n?")

Entries = NDArray[Any]
Span = tuple[int, int]


def repeated(read: Callable[[], Iterable[Document]], words: section.Strings, out: Path) -> dict[str, int]:
    """Find what the documents repeat and write it into the folder `out`. `read` is called twice, for the same documents."""
    with _Buckets(out, "lines") as lines, _Buckets(out, "chosen") as chosen:
        for document, hashes in _scanned(read()):
            lines.add(np.fromiter({value for _, value in _lines(document.text, words)}, np.uint64), owner(document))
            chosen.add(_chosen(ngrams.Windows(hashes).of(words.run_tokens)), owner(document))
    found = {"lines": lines.gather(words.line_documents), "chosen": chosen.gather(words.run_documents)}
    wanted = _Lookup(out / "chosen.npy")
    with _Buckets(out, "runs") as runs:
        for document, hashes in _scanned(read()):
            windows = ngrams.Windows(hashes).of(words.run_tokens)
            if wanted.holds(_chosen(windows)).any():
                runs.add(windows, owner(document))
    return {**found, "runs": runs.gather(words.run_documents)}


def cutter(words: section.Strings, out: Path) -> Callable[[Document], tuple[Document, Counter[str]]]:
    """Return what takes from a document all that `repeated` found in one before it, and counts what it took."""
    lines, runs = _Lookup(out / "lines.npy"), _Lookup(out / "runs.npy")

    def cut(document: Document) -> tuple[Document, Counter[str]]:
        if dedup.CODE in document.domain:
            return document, Counter()
        here = owner(document)
        found = list(_lines(document.text, words))
        foreign = lines.foreign(np.array([value for _, value in found], np.uint64), here)
        spans = [span for (span, _), gone in zip(found, foreign, strict=True) if gone]
        stretches = list(_stretches(document.text, runs, words.run_tokens, here))
        if not spans and not stretches:
            return document, Counter()
        text = _without(document.text, [*spans, *stretches])
        counts = Counter(lines=len(spans), runs=len(stretches), characters=len(document.text) - len(text))
        return replace(document, text=text), counts

    return cut


def owner(document: Document) -> int:
    """Name a document by its text: after exact deduplication no two have the same name."""
    return int.from_bytes(dedup.digest(document.text)[:8], "little")


def _scanned(documents: Iterable[Document]) -> Iterator[tuple[Document, Hashes]]:
    """Documents that are not code, with the hashes of their tokens."""
    held: list[Document] = []
    size = 0
    for document in documents:
        if dedup.CODE not in document.domain:
            held.append(document)
            size += len(document.text)
        if size > BATCH:
            yield from _hashed(held)
            held, size = [], 0
    yield from _hashed(held)


def _hashed(held: list[Document]) -> Iterator[tuple[Document, Hashes]]:
    found = tokens.scan([document.text for document in held])
    for document, (begin, end) in zip(held, pairwise(found.offsets.tolist()), strict=True):
        yield document, found.hashes[begin:end]


def _lines(text: str, words: section.Strings) -> Iterator[tuple[Span, int]]:
    """The lines that are long enough: where, and the hash of what they say."""
    for line in LINE.finditer(text):
        if len(said := " ".join(line[0].lower().split())) >= words.line_characters:
            yield line.span(), xxh3_64_intdigest(said.encode("utf-8", "surrogatepass"))


def _chosen(windows: Hashes) -> Hashes:
    """Of each STRIDE windows in a row the least; of fewer the least of all."""
    if len(windows) < STRIDE:
        return windows[np.argmin(windows) :][:1] if len(windows) else windows
    return ngrams.distinct(sliding_window_view(windows, STRIDE).min(axis=1))


def _stretches(text: str, runs: _Lookup, length: int, here: int) -> Iterator[Span]:
    """Characters from the first to the last token of every repeated run."""
    places = [token.span() for token in ngrams.WORDS.finditer(text)]
    hashes = tokens.scan([text]).hashes
    if len(places) != len(hashes):
        return  # a dotted capital I is two tokens in lower case: spans would be shifted
    covered = np.zeros(len(places) + 2, np.int64)
    begins = np.flatnonzero(runs.foreign(ngrams.Windows(hashes).of(length), here))
    np.add.at(covered, begins + 1, 1)
    np.add.at(covered, begins + 1 + length, -1)
    inside = np.cumsum(covered) > 0
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    for begin, end in edges.reshape(-1, 2).tolist():
        yield places[begin][0], places[end - 1][1]


def _without(text: str, spans: list[Span]) -> str:
    parts, done = [], 0
    for begin, end in sorted(spans):
        parts.append(text[done : max(begin, done)])
        done = max(done, end)
    return "".join([*parts, text[done:]])


class _Buckets:
    """Hashes with their owners on disk, cut by the hash's first bits."""

    def __init__(self, folder: Path, name: str) -> None:
        self.files = [folder / f"{name}-{bucket:02d}.part" for bucket in range(1 << BUCKET_BITS)]
        self.target = folder / f"{name}.npy"
        self.held: list[Entries] = []
        self.size = 0

    def __enter__(self) -> _Buckets:
        for file in self.files:
            file.unlink(missing_ok=True)  # of a run that was stopped
        return self

    def __exit__(self, *_: object) -> None:
        self._pour()

    def add(self, hashes: Hashes, owner: int) -> None:
        """Add what one document holds, each once."""
        entries: Entries = np.empty(len(distinct := ngrams.distinct(hashes)), ENTRY)
        entries["hash"], entries["owner"] = distinct, owner
        self.held.append(entries)
        self.size += len(entries)
        if self.size > 1 << 20:
            self._pour()

    def _pour(self) -> None:
        entries = np.concatenate([np.empty(0, ENTRY), *self.held])
        bucket = entries["hash"] >> np.uint64(64 - BUCKET_BITS)
        order = np.argsort(bucket, kind="stable")
        cuts = np.searchsorted(bucket[order], np.arange(len(self.files) + 1))
        with ExitStack() as stack:
            for file, (begin, end) in zip(self.files, pairwise(cuts.tolist()), strict=True):
                if begin < end:
                    stack.enter_context(file.open("ab")).write(entries[order[begin:end]].tobytes())
        self.held, self.size = [], 0

    def gather(self, most: int) -> int:
        """Write the hashes that more than `most` documents hold, with the first of these; return how many there are."""
        found = [np.empty(0, ENTRY)]
        for file in (file for file in self.files if file.exists()):
            entries = np.fromfile(file, ENTRY)
            entries = entries[np.argsort(entries["hash"], kind="stable")]
            begins = np.flatnonzero(np.concatenate([[True], entries["hash"][1:] != entries["hash"][:-1]]))
            found.append(entries[begins[np.diff(np.append(begins, len(entries))) > most]])
            file.unlink()
        np.save(self.target, np.concatenate(found))
        return sum(map(len, found))


class _Lookup:
    """What `gather` wrote."""

    def __init__(self, file: Path) -> None:
        entries = np.load(file, mmap_mode="r")
        self.hashes, self.owners = np.ascontiguousarray(entries["hash"]), entries["owner"]

    def holds(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these hashes are here."""
        if not len(self.hashes):
            return np.zeros(len(hashes), np.bool_)
        at = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        same: NDArray[np.bool_] = self.hashes[at] == hashes
        return same

    def foreign(self, hashes: Hashes, here: int) -> NDArray[np.bool_]:
        """Which of these hashes are here and belong to another document."""
        found = self.holds(hashes)
        at = np.flatnonzero(found)
        found[at] = self.owners[np.searchsorted(self.hashes, hashes[at])] != np.uint64(here)
        return found
