"""Rows as they come (Alpaca, ShareGPT, messages, judged answers, labelled pairs) -> instruction rows and preference pairs.

A reader (`layouts.py`) turns one record into a conversation, or into a pair, and refuses a record that it cannot read.
What can be read but not learnt from (an empty answer, two equal answers) is left out and counted by reason.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from isal import igzip
from isal.igzip_lib import IsalError

from alignment.corpus.documents import parse
from alignment.errors import DataError
from alignment.layouts import INSTRUCTIONS, KTO, PAIRS, Message, Pair, Record, kto

CHUNK, GROUP = 1 << 20, 1024  # characters, and rows of a .parquet, that are read at once


def instructions(
    found: Iterable[tuple[str, Record]], reader: str, card: Mapping[str, str], dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Read records into instruction rows; `card` gives name, language and domain."""
    for number, (where, record) in enumerate(found, 1):
        messages = _conversation(INSTRUCTIONS[reader](record, where), where, last="assistant")
        if reader == KTO and not record["label"]:
            dropped["answer marked bad"] += 1
            continue
        if not all(message["content"].strip() for message in messages):
            dropped[f"empty {next(m['role'] for m in messages if not m['content'].strip())} turn"] += 1
            continue
        yield {"id": f"{card['name']}-{number}", "messages": messages, "source": card["name"], **_kind(card)}


def pairs(
    found: Iterable[tuple[str, Record]], reader: str, card: Mapping[str, str], dropped: Counter[str]
) -> Iterator[dict[str, str]]:
    """Read records into pairs. A pair's prompt is one user turn: longer or steered conversations are left out."""
    read = ((where, PAIRS[reader](record, where)) for where, record in found) if reader in PAIRS else matched(found, dropped)
    for number, (where, (turns, chosen, rejected)) in enumerate(read, 1):
        turns = _conversation(turns, where, last="user")
        reason = _unusable(turns, chosen, rejected)
        if reason:
            dropped[reason] += 1
            continue
        yield {
            "id": f"{card['name']}-{number}",
            "prompt": turns[0]["content"],
            "chosen": chosen,
            "rejected": rejected,
            "reason": "labelled",
            **_kind(card),
        }


def judged(
    found: Iterable[tuple[str, Record]], reader: str, card: Mapping[str, str], dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Read records into answers judged good or bad; a pair is one of each. As for pairs, a prompt is one user turn."""
    if reader != KTO:
        for pair in pairs(found, reader, card, dropped):
            yield from split(pair)
        return
    for number, (where, record) in enumerate(found, 1):
        *turns, answer = _conversation(kto(record, where), where, last="assistant")
        if reason := _unusable(turns, answer["content"]):
            dropped[reason] += 1
            continue
        asked = {"prompt": turns[0]["content"], "answer": answer["content"]}
        yield {"id": f"{card['name']}-{number}", **asked, "good": record["label"], **_kind(card)}


def split(pair: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A pair as two answers, each judged by itself."""
    rest = {name: pair[name] for name in ("prompt", "language", "domain")}
    for side in ("chosen", "rejected"):
        yield {"id": f"{pair['id']}-{side}", "answer": pair[side], "good": side == "chosen", **rest}


def _kind(card: Mapping[str, str]) -> dict[str, str]:
    return {"language": card["language"], "domain": card["domain"]}


def matched(found: Iterable[tuple[str, Record]], dropped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    """Pair judged answers to one prompt, good with bad, in the order in which they come."""
    waiting: dict[tuple[str, bool], deque[str]] = {}
    for where, record in found:
        *turns, answer = _conversation(kto(record, where), where, last="assistant")
        good, prompt = record["label"], json.dumps(turns)
        others = waiting.get((prompt, not good))
        if others:
            other = others.popleft()
            yield where, (turns, *((answer["content"], other) if good else (other, answer["content"])))
        else:
            waiting.setdefault((prompt, good), deque()).append(answer["content"])
    if left := sum(map(len, waiting.values())):
        dropped["no answer of the other verdict"] += left


def _unusable(turns: Sequence[Message], *answers: str) -> str | None:
    if turns[0]["role"] == "system":
        return "system turn"
    if len(turns) > 1:
        return "several turns"
    if not all(text.strip() for text in (turns[0]["content"], *answers)):
        return "empty turn"
    return "equal answers" if len(set(answers)) < len(answers) else None


def _conversation(messages: list[Message], where: str, *, last: str) -> list[Message]:
    """Check the order: at most one system turn in front, then user and assistant by turns, ending in `last`."""
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    by_turns = ["user", "assistant"] * (len(spoken) // 2) + ["user"] * (len(spoken) % 2)
    if spoken == by_turns and spoken[-1:] == [last]:
        return messages
    raise DataError(f"{where}: turns are {', '.join(roles)}. Needed: user and assistant by turns, ending in {last}.")


# -- files ------------------------------------------------------------------------------------------------------------


def records(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a .json list, .jsonl (also .gz or .xz) or .parquet file; each record comes with its place, for complaints.

    A file is not held as a whole. `columns`: a .json object without them is taken for lists of records by name.
    """
    number = 0
    try:
        for number, value in enumerate(_values(path, columns), 1):
            if not isinstance(value, dict):
                raise DataError(f"{path}, row {number}: a record is an object, this is {type(value).__name__}.")
            yield f"{path}, row {number}", value
    except BROKEN as error:
        raise DataError(f"{path}, row {number + 1}: cannot be read ({error}). Is the file whole?") from None


BROKEN: tuple[type[Exception], ...] = (  # its stub calls IsalError an instance
    *(OSError, EOFError, lzma.LZMAError, ValueError, RecursionError),
    IsalError,  # type: ignore[assignment]
)
OPEN: dict[str, Callable[..., Any]] = {".gz": igzip.open, ".xz": lzma.open}


def _values(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    if path.name.endswith(".json"):
        yield from _json(path, columns)
    elif path.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz")):
        with OPEN.get(path.suffix, open)(path, "rb") as lines:
            yield from (parse(line) for line in lines if line.strip())
    elif path.name.endswith(".parquet"):
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            for batch in file.iter_batches(GROUP):
                yield from batch.to_pylist()
    else:
        raise DataError(f"{path}: no reader for this kind of file. Readable: .json, .jsonl, .gz or .xz of it, .parquet.")


def _json(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """A list of records, one record, records one after another (as some call .json what is .jsonl), or one list by name."""
    with path.open(encoding="utf-8") as file:
        first = " "
        while first.isspace():
            first = file.read(1)
        if not first:
            raise ValueError("the file is empty")
        if first == "[":
            yield from _parsed(file, "", end="]")
            return
        found = _parsed(file, first, end="")
        begin = list(islice(found, 2))
        named = begin[0] if len(begin) == 1 and isinstance(begin[0], dict) and not set(columns) & begin[0].keys() else {}
        if columns and len(named) == 1 and isinstance(some := next(iter(named.values())), list):
            begin = some
        yield from begin
        yield from found


def _parsed(file: TextIO, text: str, end: str) -> Iterator[Any]:
    """Parse values one after another; with an `end`, commas stand between them and nothing may come after it."""
    decode, at, ended, comma = json.JSONDecoder().raw_decode, 0, False, True  # comma: a value may come
    while True:
        while at < len(text) and text[at] in " \t\r\n":
            at += 1
        stop = len(text)
        if at < len(text):
            if end and text[at] == end:
                if text[at + 1 :].strip() or file.read().strip():
                    raise ValueError(f"something stands after the last {end}")
                return
            if end and not comma:
                if text[at] != ",":
                    raise ValueError("no comma between two records")
                at, comma = at + 1, True
                continue
            try:
                value, stop = decode(text, at)
            except ValueError:
                if ended:
                    raise
        elif ended:
            if end:
                raise ValueError(f"the list has no {end}")
            return
        if stop < len(text) or ended:
            yield value
            at, comma = stop, False
        else:  # the value may go on: twice as much is read each time, so a long one costs no square
            more = file.read(max(CHUNK, len(text) - at))
            text, at, ended = text[at:] + more, 0, not more
