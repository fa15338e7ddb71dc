"""The texts that a run hands to training, each with the place it can be read again from.

A corpus or a curriculum holds documents, a curriculum also instructions and problems, a mixture token ids (decoded by
the tokenizer that made them), a preferences run pairs. What is held out is not trained on, so it is not among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from alignment import run
from alignment.errors import DataError

Row = dict[str, Any]
PLACES = ("tokenizer", "model")  # where a run keeps its tokenizer


def files(folder: Path) -> list[Path]:
    """Name the files of a finished run that hold training text."""
    run.read(folder)
    found = [folder / name for name in READERS if (folder / name).exists()]
    if not found:
        stage = run.read_manifest(folder)["stage"]
        raise DataError(f"{folder}: a {stage} run holds no text to train on. Name a run that holds {', '.join(READERS)}.")
    return found


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Read all texts of a file, each with the byte its row begins at."""
    offset = 0
    with file.open("rb") as lines:
        for line in lines:
            if text := _text(file, line, offset):
                yield offset, text
            offset += len(line)


def text_at(file: Path, offset: int) -> str:
    """Read the one text whose row begins at a byte."""
    with file.open("rb") as lines:
        lines.seek(offset)
        return _text(file, lines.readline(), offset)


def _text(file: Path, line: bytes, offset: int) -> str:
    try:
        return READERS[file.name](json.loads(line), file.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}, byte {offset}: no row of ours ({error!r}). Was the file changed?") from None


def _problem(row: Row, _: Path) -> str:
    return "" if row.get("split") == "heldout" else str(row["prompt"])


def _decoded(row: Row, folder: Path) -> str:
    text: str = _tokenizer(folder).decode(row["input_ids"], skip_special_tokens=True)
    return text


@cache
def _tokenizer(folder: Path) -> Any:
    """The tokenizer of a mixture: that of the run, the folder or the hub name that its recipe starts from."""
    from tokenizers import Tokenizer

    start = run.read_manifest(folder)["recipe"]["start"]
    if start.get("hub"):
        from huggingface_hub import hf_hub_download

        return Tokenizer.from_file(hf_hub_download(start["hub"], "tokenizer.json", revision=start["revision"]))
    places = [Path(start["folder"])] if start.get("folder") else [folder.parent / start["run"] / x for x in PLACES]
    for place in places:
        if (place / "tokenizer.json").exists():
            return Tokenizer.from_file(str(place / "tokenizer.json"))
    raise DataError(f"{folder}: {places[-1]}/tokenizer.json is gone, so its token ids cannot be read. Restore it.")


READERS: dict[str, Callable[[Row, Path], str]] = {
    "documents.jsonl": lambda row, _: str(row["text"]),
    "instructions.jsonl": lambda row, _: "\n".join(turn["content"] for turn in row["messages"]),
    "problems.jsonl": _problem,
    "rows.jsonl": _decoded,
    "pairs.jsonl": lambda row, _: "\n".join(row[name] for name in ("prompt", "chosen", "rejected")),
}
