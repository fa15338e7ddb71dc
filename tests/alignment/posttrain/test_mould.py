"""A batch gives the very ids and labels that `chat.encode` gives, whatever the texts hold and whatever the template does."""

from __future__ import annotations

import random

import pytest

from alignment import chat
from alignment.posttrain import mould
from tests.tiny import byte_tokenizer

TOKENIZERS = {name: byte_tokenizer(name, merges=[("a", "b"), (":", "\u0120")]) for name in chat.TEMPLATES}
MARKS = ["<|im_end|>", "<|im_start|>", chat.BOS, chat.EOS, "<pad>", "User: ", "\n\nAssistant:", "{{ x }}"]
TRIMS = chat.TEMPLATES["chatml"].replace("message['content'] +", "(message['content'] | trim) +")
LOOKS = [
    TRIMS,
    chat.TEMPLATES["chatml"].replace("message['content'] + '", "message['content'].split('</think>')[-1] + '"),
    chat.TEMPLATES["chatml"].replace("{% if message", "{% if message['content'] and message"),
    chat.TEMPLATES["chatml"].replace(
        "message['content'] + '<|im_end|>' }}", "(message['content'] | tojson) + '<|im_end|>' }}"
    ),
]


def conversation(drawn: random.Random) -> list[chat.Message]:
    """Texts with control tokens, template text, Chinese and half characters in them; with and without a system turn."""
    said = [
        "".join(drawn.choices([*MARKS, "a", "b", " ", "\n", "ab", "好", "\u0301", ""], k=drawn.randrange(6)))
        for _ in range(6)
    ]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said[: drawn.randrange(2, 6)])]
    return [{"role": "system", "content": said[5]}, *turns] if drawn.random() < 0.3 else turns


@pytest.mark.parametrize("name", list(chat.TEMPLATES))
def test_a_batch_is_its_conversations_one_by_one(name: str) -> None:
    drawn = random.Random(0)
    batch = [conversation(drawn) for _ in range(200)]
    alone = [chat.encode(TOKENIZERS[name], messages, answer=True) for messages in batch]
    assert mould.encode(TOKENIZERS[name], batch) == [(one.input_ids, one.labels()) for one in alone]
    assert mould.encode(TOKENIZERS[name], []) == []
    assert all(made is not None for made in mould._moulds[TOKENIZERS[name]].values())


@pytest.mark.parametrize("template", LOOKS)
def test_a_template_that_looks_at_contents_is_rendered_row_by_row(template: str) -> None:
    tokenizer = byte_tokenizer("chatml")
    tokenizer.chat_template = template
    assert template != chat.TEMPLATES["chatml"]
    batch = [[{"role": "user", "content": " a "}, {"role": "assistant", "content": ' 1</think> "b" '}]]
    alone = chat.encode(tokenizer, batch[0], answer=True)
    assert mould.encode(tokenizer, batch) == [(alone.input_ids, alone.labels())]


@pytest.mark.parametrize("template", LOOKS)
def test_looking_is_noticed(template: str) -> None:
    tokenizer = byte_tokenizer("chatml")
    tokenizer.chat_template = template
    assert mould._mould(tokenizer, ("user", "assistant")) is None


def test_another_template_makes_another_mould() -> None:
    tokenizer = byte_tokenizer("chatml")
    batch = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
    before = mould.encode(tokenizer, batch)
    tokenizer.chat_template = tokenizer.chat_template.replace("'\\n'", "'\\n\\n'")
    assert mould.encode(tokenizer, batch) != before
