"""Rows as they come (Alpaca, ShareGPT, messages, judged answers, labelled pairs) -> instruction rows and preference pairs.

A reader (`layouts.py`) turns one record into a conversation, or into a pair, and refuses a record that it cannot read.
What can be read but not learnt from (an empty answer, two equal answers) is left out and counted by reason.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import DataError
from alignment.layouts import INSTRUCTIONS, KTO, PAIRS, Message, Pair, Record, kto


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


def _unusable(turns: Sequence[Message], chosen: str, rejected: str) -> str | None:
    if turns[0]["role"] == "system":
        return "system turn"
    if len(turns) > 1:
        return "several turns"
    if not (turns[0]["content"].strip() and chosen.strip() and rejected.strip()):
        return "empty turn"
    return "equal answers" if chosen == rejected else None


def _conversation(messages: list[Message], where: str, *, last: str) -> list[Message]:
    """Check the order: at most one system turn in front, then user and assistant by turns, ending in `last`."""
    roles = [message["role"] for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    by_turns = ["user", "assistant"] * (len(spoken) // 2) + ["user"] * (len(spoken) % 2)
    if spoken == by_turns and spoken[-1:] == [last]:
        return messages
    raise DataError(f"{where}: turns are {', '.join(roles)}. Needed: user and assistant by turns, ending in {last}.")


# -- files ------------------------------------------------------------------------------------------------------------


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a .json list, .jsonl, .jsonl.gz or .parquet file; each record comes with its place, for complaints."""
    number = 0
    try:
        for number, value in enumerate(_values(path), 1):
            if not isinstance(value, dict):
                raise DataError(f"{path}, row {number}: a record is an object, this is {type(value).__name__}.")
            yield f"{path}, row {number}", value
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise DataError(f"{path}, row {number + 1}: cannot be read ({error}). Is the file whole?") from None


def _values(path: Path) -> Iterator[Any]:
    if path.name.endswith(".json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        yield from found if isinstance(found, list) else [found]
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            yield from (json.loads(line.decode()) for line in lines if line.strip())
    elif path.name.endswith(".parquet"):
        from pyarrow.parquet import ParquetFile

        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    else:
        raise DataError(f"{path}: no reader for this kind of file. Readable: .json, .jsonl, .jsonl.gz, .parquet.")
