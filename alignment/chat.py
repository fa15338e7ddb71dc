"""The one truth of what a chat model sees: templates by name, and `encode()` for training, sampling and evaluation.

The learnt part of a conversation is found by incremental rendering: the text up to an answer (with the generation
prompt) must be a prefix of the text with that answer; what follows is learnt, up to and with the end mark. Both parts
are tokenised apart, so training ids equal inference ids by construction. User text is shielded while the template is
rendered and tokenised without control tokens, so nobody can write an end mark into a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from alignment.errors import ModelError

Message = Mapping[str, str]  # role (system, user, assistant) and content

BOS, EOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"  # DeepSeek LLM's own

TEMPLATES = {
    # DeepSeek-LLM README 5. The generation prompt ends without a space; the space belongs to the answer.
    "deepseek-llm": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ 'Assistant:' }}"
        "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
        "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
    # ChatML, as in Qwen and SmolLM2 (which adds a system turn of its own where none is given).
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{{ '\\n' }}{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}

_PROBE: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "And 2 + 2?"},
    {"role": "assistant", "content": "4"},
)


@dataclass(frozen=True)
class Marks:
    """The control tokens of a tokenizer: their ids by name, and the pattern that cuts a text at them."""

    ids: dict[str, int]
    cut: re.Pattern[str] | None


_known: WeakKeyDictionary[Any, tuple[int, Marks]] = WeakKeyDictionary()  # reading them costs as much as encoding a row


@dataclass(frozen=True)
class Encoded:
    """Token ids of a conversation, and which of them are learnt (answers with their end marks)."""

    input_ids: list[int]
    learnt: list[bool]

    def labels(self) -> list[int]:
        """Ids where learnt, -100 elsewhere."""
        return [i if keep else -100 for i, keep in zip(self.input_ids, self.learnt, strict=True)]


def encode(tokenizer: Any, messages: Sequence[Message], *, answer: bool) -> Encoded:
    """Tokenise a conversation: whole (`answer=True`), or up to the place where the model speaks (`answer=False`)."""
    marks = control(tokenizer)
    ids: list[int] = []
    learnt: list[bool] = []
    for text, learn in parts(tokenizer, [_shield(message, marks) for message in messages], answer=answer):
        _extend(tokenizer, ids, learnt, text, marks, learn=learn)
    return Encoded(ids, learnt)


def parts(tokenizer: Any, messages: Sequence[Message], *, answer: bool) -> Iterator[tuple[str, bool]]:
    """Render a conversation in parts, learnt or not, as `encode` tokenises them. No message may hold a control token."""
    marks = control(tokenizer)
    done = ""
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt, said = _split(tokenizer, messages[: position + 1], marks)
        yield _after(done, prompt), False
        yield said, True
        done = prompt + said
    if not answer:
        yield _after(done, _render(tokenizer, messages, prompt=True)), False


def end_ids(tokenizer: Any) -> set[int]:
    """The ids that end an answer: the tokenizer's EOS and the template's own end mark."""
    ends = {tokenizer.eos_token_id} - {None}
    if tokenizer.chat_template:
        marks = control(tokenizer)
        _, said = _split(tokenizer, [dict(m) for m in _PROBE[:3]], marks)
        ends.add(marks.ids[next(mark for mark in pieces(said, marks)[::-1] if mark in marks.ids)])
    return ends


def check_template(tokenizer: Any, wanted: str | None, where: str) -> None:
    """Refuse a model without a usable chat template, or with another one than the recipe names.

    A model keeps its own template. It is usable if every rendered prompt is a prefix of the rendered conversation and
    every answer ends in a control token.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"{where}: the model has no chat template. Start from a chat model, or from a run of ours.")
    if wanted is not None and wanted not in TEMPLATES:
        raise ModelError(f"{where}: no template {wanted!r} is known. Known: {', '.join(TEMPLATES)}.")
    try:
        encode(tokenizer, _PROBE, answer=True)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    if wanted is None:
        return
    for messages, prompt in ((_PROBE, False), (_PROBE[:-1], True)):
        stored = _render(tokenizer, messages, prompt=prompt)
        if stored != _render(tokenizer, messages, prompt=prompt, template=TEMPLATES[wanted]):
            raise ModelError(
                f"{where}: the recipe says template {wanted!r}, the model's stored template renders other text. "
                "Leave `template` out to keep the model's own, or start from another model."
            )


def _split(tokenizer: Any, messages: Sequence[Message], marks: Marks) -> tuple[str, str]:
    """Split a conversation that ends in an answer into prompt text and learnt text (answer and end mark)."""
    prompt = _render(tokenizer, messages[:-1], prompt=True)
    whole = _render(tokenizer, messages)
    if not whole.startswith(prompt):
        raise ModelError(
            "the chat template's prompt is not a prefix of its conversation, so no answer can be learnt as it is asked. "
            "Use a model with another template."
        )
    found = pieces(whole[len(prompt) :], marks)
    last = max((i for i, piece in enumerate(found) if piece in marks.ids), default=None)
    if last is None:
        raise ModelError("the chat template ends an answer without a control token: the model would never stop.")
    return prompt, "".join(found[: last + 1])


def _after(done: str, prompt: str) -> str:
    if not prompt.startswith(done):
        raise ModelError("the chat template rewrites earlier turns, so a conversation cannot be learnt as it is asked.")
    return prompt[len(done) :]


def _render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool = False, template: str | None = None) -> str:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=prompt, chat_template=template
        )
    except (TemplateError, TypeError) as error:
        raise ModelError(f"the chat template cannot render this conversation ({error}).") from None
    return str(text)


def control(tokenizer: Any) -> Marks:
    """Read the control tokens of a tokenizer."""
    size, marks = _known.get(tokenizer, (0, None))
    if marks is None or size != len(tokenizer):  # tokens were added since
        ids = {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        longest_first = "|".join(map(re.escape, sorted(ids, key=len, reverse=True)))
        marks = Marks(ids, re.compile(f"({longest_first})") if ids else None)
        _known[tokenizer] = len(tokenizer), marks
    return marks


# A control string inside a message becomes private-use characters for the time of rendering.
def _shield(message: Message, marks: Marks) -> dict[str, str]:
    content = message["content"]
    for i, mark in enumerate(marks.ids):
        if mark in content:
            content = content.replace(mark, chr(0xF0000 + i))
    return {**message, "content": content}


def _unshield(text: str, marks: Marks) -> str:
    if max(text, default="") < "\U000f0000":
        return text
    names = list(marks.ids)
    return "".join(names[ord(c) - 0xF0000] if 0 <= ord(c) - 0xF0000 < len(names) else c for c in text)


def pieces(text: str, marks: Marks) -> list[str]:
    """Cut a rendered text at control tokens; they are pieces of their own."""
    return [piece for piece in marks.cut.split(text) if piece] if marks.cut else [text]


def _extend(tokenizer: Any, ids: list[int], learnt: list[bool], text: str, marks: Marks, *, learn: bool) -> None:
    for piece in pieces(text, marks):
        if piece in marks.ids:
            new = [marks.ids[piece]]
        else:
            plain = _unshield(piece, marks)
            new = tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids.extend(new)
        learnt.extend([learn] * len(new))
