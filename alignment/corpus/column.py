"""Numbers of documents in files: a worker appends to them piece by piece, later steps map them into memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Kinds = Mapping[str, DTypeLike]


class Columns:
    """The columns of one shard, open for appending."""

    def __init__(self, folder: Path, kinds: Kinds) -> None:
        self.kinds = kinds
        self._files: dict[str, IO[bytes]] = {name: (folder / f"{name}.bin").open("wb") for name in kinds}

    def add(self, **values: Any) -> None:
        """Append to columns: the same number of rows to each that has one value a document."""
        for name, value in values.items():
            self._files[name].write(np.ascontiguousarray(value, self.kinds[name]).tobytes())

    def __enter__(self) -> Columns:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        for file in self._files.values():
            file.close()


def load(folder: Path, name: str, kind: DTypeLike, width: int | None = None) -> NDArray[Any]:
    """Map one column, with `width` numbers a row."""
    path = folder / f"{name}.bin"
    shape = (-1,) if width is None else (-1, width)
    if not path.stat().st_size:
        return np.zeros(0, kind).reshape(0 if width is None else (0, width))
    found: NDArray[Any] = np.memmap(path, kind, "r").view(np.ndarray).reshape(shape)
    return found


def mapped(path: Path) -> NDArray[Any]:
    """Map a .npy file."""
    found: NDArray[Any] = np.load(path) if path.stat().st_size < 1 << 16 else np.load(path, mmap_mode="r")
    return found
