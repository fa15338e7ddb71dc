"""Answers on disk: a line each, appended as it comes, so that an evaluation can be killed at any moment.

    answers/TASK.jsonl            what the first process answers, and in the end everything
    answers/TASK.rank1.jsonl      what the second answers, until the first has taken it over

A line is keyed by the digest of model, machine, settings and prompt (`harness.ask`) and never thrown away. Whoever
continues reads all files, so it may be another number of processes than before.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from alignment import run
from alignment.errors import RunError
from eval.ranks import ALONE, Ranks
from eval.samples import Asked, Row

Keep = Callable[[int, Row], None]  # the answer to item i
Advance = Callable[[int], None]
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that knows none: then nothing is held


@contextmanager
def held(out: Path, ranks: Ranks = ALONE) -> Iterator[None]:
    """Refuse a second evaluation that writes to the same place; a process that ends, however it does, lets go."""
    if not ranks.first:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise RunError(f"{out}: another evaluation writes there. Wait for it, or choose another --out.") from None
        yield


def read_rows(path: Path) -> list[Row]:
    """Read saved rows; a last line cut off by a crash is dropped. Raises RunError naming file and row."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")  # before they are decoded: a crash may cut inside a character
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(json.loads(line.decode()))
        except ValueError as error:
            raise RunError(f"{path}, row {number}: unreadable ({error}). Take that line out and evaluate again.") from None
    return found


def save(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run.write_text(path, "".join(map(_line, rows)))


def append(path: Path, row: Mapping[str, object]) -> None:
    """Add a row behind those that were written whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))


def answers(
    path: Path, asked: Sequence[Asked], ask: Callable[[list[Asked], Keep], None], ranks: Ranks, advance: Advance
) -> dict[str, Row]:
    """Answer by key: those saved before, and the others asked now, each saved as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = ranks.together(_saved(path))  # nobody writes before all have read
    # With a prompt that waits, all equal ones are asked: how a second one is drawn depends on there being a first.
    prompts = {tuple(a.ids) for a in asked if a.key not in found}
    waiting = ranks.share([a for a in asked if tuple(a.ids) in prompts])
    advance(sum(a.key in found for a in asked))
    own = path if ranks.first else _part(path, str(ranks.number))
    _mend(own)
    new: dict[str, Row] = {}
    with own.open("a", encoding="utf-8") as file:

        def keep(i: int, answer: Row) -> None:
            key = waiting[i].key
            if key not in found:
                new[key] = {"key": key, **answer}
                file.write(_line(new[key]))
                file.flush()
                advance(1)

        if waiting:
            ask(waiting, keep)
    every = ranks.together(new)
    advance(len(every) - len(new))
    found |= every
    if ranks.first:
        _take_over(path, found)
    return found


def _part(path: Path, number: str) -> Path:
    return path.with_name(f"{path.stem}.rank{number}.jsonl")


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(_part(path, "*").name))


def _saved(path: Path) -> dict[str, Row]:
    return {row["key"]: row for file in (path, *_parts(path)) for row in read_rows(file)}


def _mend(path: Path) -> None:
    """Cut the line that a crash left unfinished, so that the next one starts clean."""
    if path.exists():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(path, end)  # in place: no whole answer is written a second time


def _take_over(path: Path, found: Mapping[str, Row]) -> None:
    """Append what other processes have answered, then drop their files: killed in between, nothing is lost."""
    there = {row["key"] for row in read_rows(path)}
    if missing := [row for key, row in found.items() if key not in there]:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, missing))
    for part in _parts(path):
        part.unlink()


def _line(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
