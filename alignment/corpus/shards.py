"""Memory-mapped token shards: what pre-training reads. Written once, then order and resume are plain arithmetic.

    tokenizer/             the tokenizer they were written with
    train/  heldout/       one folder a split
        NNNNN.bin          tokens one after another: uint16, or uint32 above 65,536 entries in the vocabulary
        NNNNN.idx.npy      per document: start (tokens), bytes (of text), domain (a number into `domains`)
        shards.json        tokenizer digest, sha256 of every file, tokens, documents, bytes, domains

Each document is BOS, its tokens, EOS. Text is encoded without control tokens: a document that spells one stays text.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Encoder

from alignment import recipe as words
from alignment import tokenizer
from alignment.chat import BOS, EOS
from alignment.corpus import documents
from alignment.corpus.documents import Document
from alignment.errors import DataError, ModelError
from alignment.hardware import Hardware
from alignment.run import Run, write_text
from alignment.terminal import Progress

FORMAT = "plumbline-shards-1"
INDEX = np.dtype([("start", "<i8"), ("bytes", "<i8"), ("domain", "<i4")])
BATCH = 500  # documents encoded at once, over all threads


def write(recipe: words.Shards, here: Run, hardware: Hardware) -> dict[str, float | int | str]:  # noqa: ARG001
    """Write both splits of a corpus; return the closing numbers."""
    corpus = here.inputs[recipe.data]
    folder = here.inputs[recipe.tokenizer].path / "tokenizer"
    encoder = tokenizer.load(folder)
    shutil.copytree(folder, here.path / "tokenizer", dirs_exist_ok=True)
    numbers: dict[str, float | int | str] = {}
    other = here.inputs[recipe.held_out] if recipe.held_out else None
    held_out = int(other.numbers["documents"] if other else corpus.numbers["held_out_documents"])
    splits = {
        "train": corpus.path / "documents.jsonl",
        "heldout": other.path / "documents.jsonl" if other else corpus.path / "heldout.jsonl",
    }
    with here.progress("documents", int(corpus.numbers["documents"]) + held_out) as bar:
        for split, file in splits.items():
            found = _counted(documents.read(file), bar)
            about = write_split(here.path / split, found, encoder, recipe.shard_tokens)
            numbers |= {f"{split}_{name}": about[name] for name in ("tokens", "documents", "bytes")}
            numbers[f"{split}_bytes_per_token"] = round(about["bytes"] / about["tokens"], 4)
    return numbers


def write_split(folder: Path, found: Iterable[Document], encoder: Encoder, shard_tokens: int) -> dict[str, Any]:
    """Write one split: a shard is closed once it holds `shard_tokens`; shards.json comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "uint16" if encoder.get_vocab_size() <= 1 << 16 else "uint32"
    domains: dict[str, int] = {}
    tokens: dict[str, int] = {}
    files: dict[str, dict[str, Any]] = {}
    index: list[tuple[int, int, int]] = []
    sizes: list[dict[str, int]] = []
    pending: list[NDArray[Any]] = []
    length = 0

    def close() -> None:
        name = f"{len(sizes):05d}"
        rows = BytesIO()
        np.save(rows, np.array(index, INDEX))
        for file, content in ((f"{name}.bin", np.concatenate(pending).data), (f"{name}.idx.npy", rows.getbuffer())):
            _save(folder / file, content)
            files[file] = {"bytes": content.nbytes, "sha256": _digest(folder / file)}
        sizes.append({"tokens": length, "documents": len(index), "bytes": sum(row[1] for row in index)})

    for document, ids in _encoded(found, encoder):
        number = domains.setdefault(document.domain, len(domains))
        tokens[document.domain] = tokens.get(document.domain, 0) + len(ids)
        index.append((length, document.bytes, number))
        pending.append(np.array(ids, dtype))
        length += len(ids)
        if length >= shard_tokens:
            close()
            index, pending, length = [], [], 0
    if pending:
        close()
    if not sizes:
        raise DataError(f"{folder}: no documents to write. Check the corpus of this recipe.")
    about = {
        "format": FORMAT,
        "split": folder.name,
        "tokenizer": tokenizer.digest(encoder),
        "vocab_size": encoder.get_vocab_size(),
        "dtype": dtype,
        **{key: sum(size[key] for size in sizes) for key in ("tokens", "documents", "bytes")},
        "domains": list(domains),
        "domain_tokens": tokens,
        "shards": sizes,
        "files": files,
    }
    write_text(folder / "shards.json", json.dumps(about, indent=2, ensure_ascii=False))
    return about


def _encoded(found: Iterable[Document], encoder: Encoder) -> Iterator[tuple[Document, list[int]]]:
    bos, eos = encoder.token_to_id(BOS), encoder.token_to_id(EOS)
    if bos is None or eos is None:
        raise ModelError(f"the tokenizer has no {BOS} or no {EOS}: documents could not be told apart. Train one here.")
    rest = iter(found)
    while batch := list(islice(rest, BATCH)):
        encodings = encoder.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            yield document, [bos, *encoding.ids, eos]


def _counted(found: Iterable[Document], bar: Progress) -> Iterator[Document]:
    for document in found:
        yield document
        bar.advance()


def _save(path: Path, content: memoryview) -> None:
    """Write it all, or raise: numpy's own `tofile` may fall short on a full disk."""
    with path.open("wb") as file:
        file.write(content)
    if (size := path.stat().st_size) != content.nbytes:
        raise OSError(f"{path}: {size} of {content.nbytes} bytes written")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Stream:
    """The tokens of all shards, read as one sequence: `stream[start:stop]` cuts across shards."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, cut: slice) -> NDArray[Any]:
        start, stop, step = cut.indices(len(self))
        if step != 1:
            raise ValueError("a stream is cut without a step")
        found = [self.parts[0][:0]]
        for shard in range(bisect_right(self.ends, start), len(self.parts)):
            begin = self.ends[shard] - len(self.parts[shard])
            if begin >= stop:
                break
            found.append(self.parts[shard][max(start - begin, 0) : stop - begin])
        return np.concatenate(found)

    def tolist(self) -> list[int]:
        """All tokens as plain numbers."""
        return list(chain.from_iterable(part.tolist() for part in self.parts))


@dataclass(frozen=True)
class Shards:
    """A split on disk: document i is `tokens[offsets[i]:offsets[i + 1]]`, of `bytes[i]` in `domains[domain[i]]`."""

    path: Path
    about: dict[str, Any]
    tokens: Stream
    offsets: NDArray[np.int64]  # one more than documents
    bytes: NDArray[np.int64]
    domain: NDArray[np.int32]
    domains: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, split: str) -> Shards:
        """Map a split. Raises DataError where a file is missing or has another size than was written."""
        path = folder / split
        try:
            about = json.loads((path / "shards.json").read_text(encoding="utf-8"))
            for name, file in about["files"].items():
                if (size := (path / name).stat().st_size) != file["bytes"]:
                    raise DataError(f"{path / name}: {size} bytes, not {file['bytes']} as written. Write the shards anew.")
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a finished split ({error}). Run the `shards` stage first.") from None
        names = [f"{number:05d}" for number in range(len(about["shards"]))]
        if void := [name for name in names if not about["files"][f"{name}.bin"]["bytes"]]:
            raise DataError(f"{path / void[0]}.bin: empty. Write the shards anew.")
        tokens = Stream([np.memmap(path / f"{name}.bin", dtype=about["dtype"], mode="r") for name in names])
        rows = [np.load(path / f"{name}.idx.npy") for name in names]
        starts = [
            part["start"] + end - shard["tokens"]
            for part, end, shard in zip(rows, tokens.ends, about["shards"], strict=True)
        ]
        index = np.concatenate(rows)
        offsets = np.append(np.concatenate(starts), len(tokens))
        return cls(path, about, tokens, offsets, index["bytes"], index["domain"], tuple(about["domains"]))

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, document: int) -> NDArray[Any]:
        if not 0 <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        return self.tokens[int(self.offsets[document]) : int(self.offsets[document + 1])]

    def verify(self) -> None:
        """Compare every file with its sha256. Raises DataError naming the first that differs."""
        for name, file in self.about["files"].items():
            if _digest(self.path / name) != file["sha256"]:
                raise DataError(f"{self.path / name}: changed since it was written. Write the shards anew.")
