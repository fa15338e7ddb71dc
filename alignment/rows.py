"""Rows as they come (Alpaca, ShareGPT, messages, GSM8K, labelled pairs) -> instruction rows and preference pairs.

A reader turns one record into a conversation, or into a pair, and refuses a record that it cannot read, naming file and
row. What can be read but not learnt from (an empty answer, two equal answers) is left out and counted by reason.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import DataError

Record = Mapping[str, Any]
Message = dict[str, str]  # role (system, user, assistant) and content
Pair = tuple[list[Message], str, str]  # prompt turns, chosen, rejected

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
NO_INPUT = {"", "noinput", "no input"}  # Alpaca says "no input" in several ways, `Noinput` among them


def instructions(
    found: Iterable[tuple[str, Record]], reader: str, card: Mapping[str, str], dropped: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Read records into instruction rows; `card` gives name, language and domain."""
    for number, (where, record) in enumerate(found, 1):
        messages = _conversation(INSTRUCTIONS[reader](record, where), where, last="assistant")
        if not all(message["content"].strip() for message in messages):
            dropped[f"empty {next(m['role'] for m in messages if not m['content'].strip())} turn"] += 1
            continue
        yield {"id": f"{card['name']}-{number}", "messages": messages, "source": card["name"], **_kind(card)}


def pairs(
    found: Iterable[tuple[str, Record]], reader: str, card: Mapping[str, str], dropped: Counter[str]
) -> Iterator[dict[str, str]]:
    """Read records into pairs. A pair's prompt is one user turn: longer or steered conversations are left out."""
    for number, (where, record) in enumerate(found, 1):
        turns, chosen, rejected = PAIRS[reader](record, where)
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


def _unusable(turns: Sequence[Message], chosen: str, rejected: str) -> str | None:
    if turns[0]["role"] == "system":
        return "system turn"
    if len(turns) > 1:
        return "several turns"
    if not (turns[0]["content"].strip() and chosen.strip() and rejected.strip()):
        return "empty turn"
    return "equal answers" if chosen == rejected else None


# -- one record -------------------------------------------------------------------------------------------------------


def alpaca(record: Record, where: str) -> list[Message]:
    """`instruction`, `input` (context, may be empty), `output`."""
    given = _text(record, "input", where) if record.get("input") is not None else ""
    asked = _text(record, "instruction", where)
    if given.strip().lower().strip("<>.") not in NO_INPUT:
        asked = f"{asked}\n\n{given}"
    return [_turn("user", asked), _turn("assistant", _text(record, "output", where))]


def sharegpt(record: Record, where: str) -> list[Message]:
    """`conversations`: a list of `from` (human, gpt, system) and `value`."""
    return [_said(turn, "from", "value", where) for turn in _list(record, "conversations", where)]


def chat_messages(record: Record, where: str) -> list[Message]:
    """`messages`: a list of `role` (user, assistant, system) and `content`."""
    return [_said(turn, "role", "content", where) for turn in _list(record, "messages", where)]


def gsm8k(record: Record, where: str) -> list[Message]:
    """`question`, `answer`. The calculator marks `<<48/2=24>>` go: no calculator listens."""
    answer = re.sub(r"<<[^<>]*>>", "", _text(record, "answer", where))
    return [_turn("user", _text(record, "question", where)), _turn("assistant", answer)]


def sharegpt_pairs(record: Record, where: str) -> Pair:
    """`conversations` up to the question, then `chosen` and `rejected`, each one turn."""
    answers = []
    for name in ("chosen", "rejected"):
        said = _said(record.get(name), "from", "value", f"{where}, {name}")
        if said["role"] != "assistant":
            raise DataError(f"{where}: {name} is said by {said['role']}. An answer is the assistant's.")
        answers.append(said["content"])
    return sharegpt(record, where), answers[0], answers[1]


def message_pairs(record: Record, where: str) -> Pair:
    """`chosen` and `rejected`: two whole conversations that differ in the last turn."""
    turns = {
        name: [_said(turn, "role", "content", where) for turn in _list(record, name, where)]
        for name in ("chosen", "rejected")
    }
    chosen, rejected = turns["chosen"], turns["rejected"]
    if chosen[:-1] != rejected[:-1] or {chosen[-1]["role"], rejected[-1]["role"]} != {"assistant"}:
        raise DataError(f"{where}: chosen and rejected must be one conversation with two last answers.")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def text_pairs(record: Record, where: str) -> Pair:
    """`prompt`, `chosen`, `rejected`: three texts."""
    chosen, rejected = _text(record, "chosen", where), _text(record, "rejected", where)
    return [_turn("user", _text(record, "prompt", where))], chosen, rejected


INSTRUCTIONS: dict[str, Callable[[Record, str], list[Message]]] = {
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "messages": chat_messages,
    "gsm8k": gsm8k,
}
PAIRS: dict[str, Callable[[Record, str], Pair]] = {
    "sharegpt-pairs": sharegpt_pairs,
    "message-pairs": message_pairs,
    "text-pairs": text_pairs,
}


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _text(record: Record, name: str, where: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        found = f"is {type(value).__name__}" if name in record else f"is missing (found: {', '.join(map(str, record))})"
        raise DataError(f"{where}: {name} {found}; a text is needed. Is this the right reader for the file?")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: {name} holds half a surrogate pair, so it is not text. Mend the row.") from None
    return value


def _list(record: Record, name: str, where: str) -> Sequence[Any]:
    value = record.get(name)
    if isinstance(value, list) and value:
        return value
    raise DataError(f"{where}: {name} is not a list of turns. Is this the right reader for the file?")


def _said(turn: Any, speaker: str, content: str, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: a turn is {type(turn).__name__}; it has {speaker} and {content}.")
    name = _text(turn, speaker, where)
    if name not in SPEAKERS:
        raise DataError(f"{where}: {speaker} {name!r} is no speaker that can be read. Known: {', '.join(SPEAKERS)}.")
    return _turn(SPEAKERS[name], _text(turn, content, where))


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
