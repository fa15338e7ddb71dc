"""One record in a layout that is common for instructions or preferences -> a conversation, or a pair.

A layout refuses a record that it cannot read, naming file and row. Nothing is guessed: a turn by a tool, an image, an
answer that is not to be learnt are no text to learn from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignment.errors import DataError

Record = Mapping[str, Any]
Message = dict[str, str]  # role (system, user, assistant) and content
Pair = tuple[list[Message], str, str]  # prompt turns, chosen, rejected

SPEAKERS = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"},
    **{"system": "system", "developer": "system"},
}
NO_INPUT = {"", "noinput", "no input"}  # Alpaca says "no input" in several ways, `Noinput` among them
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")  # of a transcript, as in Anthropic's hh-rlhf
KTO = "kto"  # good answers are instruction rows; a good and a bad one to the same prompt are a pair


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
    """`messages`, as OpenAI writes them: `role` (user, assistant, system, developer) and `content`, a text or text parts."""
    return _turns(_list(record, "messages", where), where)


def prompt_completion(record: Record, where: str) -> list[Message]:
    """`prompt` and `completion`, each a text or a list of messages."""
    return _asked(record, "prompt", where) + _answered(record, "completion", where)


def kto(record: Record, where: str) -> list[Message]:
    """`messages`, or `prompt` and `completion`; `label`: whether the last answer is good."""
    if not isinstance(record.get("label"), bool):
        raise DataError(f"{where}: label is {record.get('label')!r}; true or false says whether the answer is good.")
    return chat_messages(record, where) if "messages" in record else prompt_completion(record, where)


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
    chosen, rejected = (_turns(_list(record, name, where), where) for name in ("chosen", "rejected"))
    return _forked(chosen, rejected, where)


def text_pairs(record: Record, where: str) -> Pair:
    """`prompt`, `chosen`, `rejected`: three texts."""
    chosen, rejected = _text(record, "chosen", where), _text(record, "rejected", where)
    return [_turn("user", _text(record, "prompt", where))], chosen, rejected


def prompt_pairs(record: Record, where: str) -> Pair:
    """A shared `prompt`; `chosen` and `rejected`: answers, or conversations that begin with the prompt."""
    prompt = _asked(record, "prompt", where)
    answers = []
    for name in ("chosen", "rejected"):
        said = _answered(record, name, where)
        answers.append(said if said[:-1] == prompt else prompt + said)
    return _forked(answers[0], answers[1], where)


def transcript_pairs(record: Record, where: str) -> Pair:
    """`chosen` and `rejected`: two whole texts of `Human:` and `Assistant:` turns that differ in the last answer."""
    chosen, rejected = (_transcript(_text(record, name, where), f"{where}, {name}") for name in ("chosen", "rejected"))
    return _forked(chosen, rejected, where)


INSTRUCTIONS: dict[str, Callable[[Record, str], list[Message]]] = {
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "messages": chat_messages,
    "prompt-completion": prompt_completion,
    "gsm8k": gsm8k,
    KTO: kto,
}
PAIRS: dict[str, Callable[[Record, str], Pair]] = {
    "sharegpt-pairs": sharegpt_pairs,
    "message-pairs": message_pairs,
    "text-pairs": text_pairs,
    "prompt-pairs": prompt_pairs,
    "transcript-pairs": transcript_pairs,
}
PAIRED = (*PAIRS, KTO)  # the readers that give pairs


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


def _asked(record: Record, name: str, where: str) -> list[Message]:
    """A prompt: a text, which the user says, or turns."""
    if isinstance(record.get(name), list):
        return _turns(_list(record, name, where), where)
    return [_turn("user", _text(record, name, where))]


def _answered(record: Record, name: str, where: str) -> list[Message]:
    """An answer: a text, which the assistant says, a turn, or turns."""
    value = record.get(name)
    if isinstance(value, Mapping | list):
        return _turns(value if isinstance(value, list) else [value], f"{where}, {name}")
    return [_turn("assistant", _text(record, name, where))]


def _forked(chosen: list[Message], rejected: list[Message], where: str) -> Pair:
    """Take two conversations apart into what they share and their last answers."""
    ends = {turns[-1]["role"] for turns in (chosen, rejected) if turns}
    if ends != {"assistant"} or chosen[:-1] != rejected[:-1]:
        raise DataError(f"{where}: chosen and rejected must be one conversation with two last answers.")
    return chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]


def _transcript(text: str, where: str) -> list[Message]:
    before, *parts = TURN.split(text)
    if before.strip() or not parts:
        raise DataError(f"{where}: a transcript begins with `Human:`. Is this the right reader for the file?")
    speakers = {"Human": "user", "Assistant": "assistant"}
    return [_turn(speakers[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True)]


def _turns(turns: Sequence[Any], where: str) -> list[Message]:
    """Turns of `role` and `content`; content may be a list of parts, as long as they are text."""
    for turn in turns:
        if isinstance(turn, Mapping) and turn.get("weight") == 0 and turn.get("role") == "assistant":
            raise DataError(f"{where}: an answer of weight 0 is not to be learnt, and here all are. Cut the row before it.")
    return [_said(_spelled(turn, where), "role", "content", where) for turn in turns]


def _spelled(turn: Any, where: str) -> Any:
    parts = turn.get("content") if isinstance(turn, Mapping) else None
    if not isinstance(parts, list):
        return turn
    for part in parts:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise DataError(f"{where}: content holds {part.get('type') if isinstance(part, Mapping) else part!r}, not text.")
    return {**turn, "content": "".join(_text(part, "text", where) for part in parts)}


def _said(turn: Any, speaker: str, content: str, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: a turn is {type(turn).__name__}; it has {speaker} and {content}.")
    name = _text(turn, speaker, where)
    if name not in SPEAKERS:
        raise DataError(f"{where}: {speaker} {name!r} is no speaker that can be read. Known: {', '.join(SPEAKERS)}.")
    return _turn(SPEAKERS[name], _text(turn, content, where))
