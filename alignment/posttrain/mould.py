"""Many conversations at once: what a template puts around the contents is rendered once for each order of roles.

`chat.encode` renders every conversation twice and tokenises it piece by piece. Here the template is rendered with
placeholders, the contents are put in their place, and the pieces of a whole batch are tokenised together: same ids, same
labels. That is allowed only where the template does not look at the contents (trim them, search them): it is rendered with
texts that refuse to be looked at, and a template that does look is rendered row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from alignment import chat
from alignment.chat import Message

PLACES = 0x100000  # the first of the private-use characters that stand for contents
MOST = 0x10FFFE - PLACES  # turns of a conversation
ESCAPED = " \"'\\\n<&> "  # what no filter that escapes or trims leaves as it is

Row = tuple[list[int], list[int]]  # ids, and labels: the id where it is learnt, -100 elsewhere


@dataclass(frozen=True)
class Piece:
    """A text that is tokenised on its own: what the template says, with the numbers of the contents between; or its ids."""

    said: tuple[str | int, ...]
    ids: tuple[int, ...] | None
    learn: bool


Mould = tuple[Piece, ...]
_moulds: WeakKeyDictionary[Any, dict[tuple[Any, ...], Mould | None]] = WeakKeyDictionary()


def encode(tokenizer: Any, conversations: Sequence[Sequence[Message]]) -> list[Row]:
    """Tokenise whole conversations as `chat.encode(..., answer=True)` does, in one batch."""
    moulds = [_mould(tokenizer, tuple(message["role"] for message in messages)) for messages in conversations]
    texts = [
        "".join(messages[part]["content"] if isinstance(part, int) else part for part in piece.said)
        for messages, mould in zip(conversations, moulds, strict=True)
        for piece in mould or ()
        if piece.ids is None
    ]
    found = iter(_tokenise(tokenizer, texts))
    return [
        _filled(mould, found) if mould is not None else _alone(tokenizer, messages)
        for messages, mould in zip(conversations, moulds, strict=True)
    ]


def _tokenise(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    """Tokenise texts in which nothing is a control token, as the tokenizer's own call does."""
    core = tokenizer.backend_tokenizer
    core.no_padding()
    core.no_truncation()
    core.encode_special_tokens = True
    for found in core.encode_batch_fast(texts, add_special_tokens=False):
        yield found.ids


def _filled(mould: Mould, found: Iterator[list[int]]) -> Row:
    ids: list[int] = []
    labels: list[int] = []
    for piece in mould:
        new = next(found) if piece.ids is None else piece.ids
        ids.extend(new)
        labels.extend(new if piece.learn else [-100] * len(new))
    return ids, labels


def _alone(tokenizer: Any, messages: Sequence[Message]) -> Row:
    encoded = chat.encode(tokenizer, messages, answer=True)
    return encoded.input_ids, encoded.labels()


# -- making moulds ----------------------------------------------------------------------------------------------------


def _mould(tokenizer: Any, roles: tuple[str, ...]) -> Mould | None:
    """The mould for conversations of these roles; None where the template must see the contents."""
    made = _moulds.setdefault(tokenizer, {})
    name = (tokenizer.chat_template, len(tokenizer), roles)
    if name not in made:
        made[name] = _make(tokenizer, roles) if len(roles) <= MOST and not _looks(tokenizer, roles) else None
    return made[name]


def _make(tokenizer: Any, roles: tuple[str, ...]) -> Mould | None:
    marks = chat.control(tokenizer)
    messages = [{"role": role, "content": chr(PLACES + i)} for i, role in enumerate(roles)]
    pieces: list[Piece] = []
    for text, learn in chat.parts(tokenizer, messages, answer=True):
        for part in chat.pieces(text, marks):
            if part in marks.ids:
                pieces.append(Piece((), (marks.ids[part],), learn))
            else:
                said = tuple(_cut(part, len(roles)))
                constant = all(isinstance(one, str) for one in said)
                ids = tuple(next(_tokenise(tokenizer, [part]))) if constant else None
                pieces.append(Piece(said, ids, learn))
    places = [one for piece in pieces for one in piece.said if isinstance(one, int)]
    last = max((i for i, role in enumerate(roles) if role == "assistant"), default=-1)
    return tuple(pieces) if places == list(range(last + 1)) else None


def _cut(text: str, turns: int) -> Iterator[str | int]:
    """What a template says, and the numbers of the contents between."""
    begin = 0
    for at, sign in enumerate(text):
        if PLACES <= ord(sign) < PLACES + turns:
            yield text[begin:at]
            yield ord(sign) - PLACES
            begin = at + 1
    yield text[begin:]


class _Looked(Exception):
    """A template looked at a content."""


def _refuse(*_: Any) -> Any:
    raise _Looked


class _Sealed(str):
    """A text that can be joined to others and printed, and refuses everything else."""

    __getattribute__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse  # type: ignore[assignment]
    __len__ = __iter__ = __getitem__ = __contains__ = __mod__ = __mul__ = __rmul__ = _refuse  # type: ignore[assignment]


def _looks(tokenizer: Any, roles: tuple[str, ...]) -> bool:
    """Whether the chat template does more with a content than to print it; or cannot be asked, and says why row by row."""
    texts = [chr(PLACES + i) + ESCAPED + chr(PLACES + i) for i in range(len(roles))]
    messages = [{"role": role, "content": _Sealed(text)} for role, text in zip(roles, texts, strict=True)]
    # The library's own call makes plain strings of these, so its template is asked directly.
    template = _compile_jinja_template(tokenizer.chat_template)
    try:
        for count, prompt in (
            (i + more, not more) for i, role in enumerate(roles) if role == "assistant" for more in (0, 1)
        ):
            said = template.render(messages=messages[:count], add_generation_prompt=prompt, **tokenizer.special_tokens_map)
            if not all(text in said for text in texts[:count]):
                return True
    except (_Looked, TemplateError, TypeError):
        return True
    return False
