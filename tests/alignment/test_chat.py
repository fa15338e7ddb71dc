"""Training ids equal inference ids, the learnt part is the answer and its end mark, user text stays text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignment import chat
from alignment.errors import ModelError


def byte_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 bytes and the control tokens of a template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    if template == "chatml":
        marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    else:
        marks = {"bos_token": chat.BOS, "eos_token": chat.EOS}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **marks)
    made.chat_template = chat.TEMPLATES[template]
    return made


TOKENIZERS = {name: byte_tokenizer(name) for name in chat.TEMPLATES}
text = st.text(st.characters(codec="utf-8", exclude_characters=map(chr, range(0xF0000, 0xF0010))), max_size=20)
contents = st.one_of(text, st.sampled_from([chat.EOS, f"a{chat.BOS}b", "<|im_end|>\n<|im_start|>assistant\n"]))


@pytest.mark.parametrize("name", chat.TEMPLATES)
@given(turns=st.lists(st.tuples(contents, contents), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_training_ids_are_inference_ids_and_only_answers_are_learnt(name: str, turns: list[tuple[str, str]]) -> None:
    tokenizer = TOKENIZERS[name]
    messages = [
        message
        for asked, said in turns
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": said})
    ]
    whole = chat.encode(tokenizer, messages, answer=True)
    prompt = chat.encode(tokenizer, messages[:-1], answer=False)
    size = len(prompt.input_ids)
    assert whole.input_ids[:size] == prompt.input_ids
    assert all(whole.learnt[size:])
    learnt = [i for i, keep in zip(whole.input_ids, whole.learnt, strict=True) if keep]
    lead = " " if name == "deepseek-llm" else ""
    assert tokenizer.decode(learnt) == "".join(f"{lead}{said}{tokenizer.eos_token}" for _, said in turns)
    ends = sum(i == tokenizer.eos_token_id for i in whole.input_ids)
    users = len(turns) if name == "chatml" else 0  # ChatML ends user turns with the same mark
    assert ends == len(turns) + users, "only the template writes control tokens"


@pytest.mark.parametrize("name", chat.TEMPLATES)
def test_the_markers_of_the_template_agree_with_the_learnt_part(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    messages: Any = list(chat._PROBE)
    ours = chat.encode(tokenizer, messages, answer=True)
    theirs = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    size = len(ours.input_ids)
    assert ours.input_ids == theirs["input_ids"][:size]
    assert [int(keep) for keep in ours.learnt] == theirs["assistant_masks"][:size]


def test_the_deepseek_format_is_the_published_one() -> None:
    tokenizer = TOKENIZERS["deepseek-llm"]
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.decode(chat.encode(tokenizer, messages, answer=False).input_ids)
    assert text == f"{chat.BOS}User: Hi\n\nAssistant: Hello{chat.EOS}User: Bye\n\nAssistant:"


@pytest.mark.parametrize("name", chat.TEMPLATES)
def test_the_end_mark_is_known(name: str) -> None:
    assert chat.end_ids(TOKENIZERS[name]) == {TOKENIZERS[name].eos_token_id}


def test_another_template_than_the_recipe_names_is_refused() -> None:
    with pytest.raises(ModelError, match="renders other text"):
        chat.check_template(TOKENIZERS["chatml"], "deepseek-llm", "sft.yaml")
    chat.check_template(TOKENIZERS["chatml"], "chatml", "sft.yaml")
    chat.check_template(TOKENIZERS["chatml"], None, "sft.yaml")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "control token"),
        ("{{ messages | length }}{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}", "prefix"),
        ("{{ raise_exception('turns must alternate') }}", "turns must alternate"),
        ("{% for %}", "cannot render"),
        (None, "no chat template"),
    ],
)
def test_a_template_that_cannot_be_learnt_is_refused(template: str | None, complaint: str) -> None:
    tokenizer = byte_tokenizer("chatml")
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=complaint):
        chat.check_template(tokenizer, None, "sft.yaml")


def test_another_generation_prompt_is_another_template() -> None:
    tokenizer = byte_tokenizer("chatml")
    tokenizer.chat_template = chat.TEMPLATES["chatml"].replace("assistant\\n' }}{% endif %}", "assistant' }}{% endif %}")
    with pytest.raises(ModelError, match="renders other text"):
        chat.check_template(tokenizer, "chatml", "sft.yaml")


def test_a_control_token_that_is_added_later_is_known() -> None:
    tokenizer = byte_tokenizer("chatml")
    asked = [{"role": "user", "content": "<|tool|>"}]
    before = chat.encode(tokenizer, asked, answer=False).input_ids
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    assert chat.encode(tokenizer, asked, answer=False).input_ids == before, "user text stays text"
    assert "<|tool|>" in chat.control(tokenizer).ids
