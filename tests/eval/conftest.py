"""An engine that says what it was told to: evaluation is tested without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alignment.generate.engine import Completion, Score


class Scripted:
    """Answers by a function of the prompt's text. `fail_after` prompts it raises, as a broken sampler would."""

    name = "scripted"
    facts = {"kind": "scripted", "dtype": "none", "attention": "none", "device": "cpu"}  # noqa: RUF012
    ends = range(100_000)  # it always ends by itself
    has_template = False

    def __init__(self, say: Any, context: int = 10_000, fail_after: int | None = None) -> None:
        self.say, self.context, self.fail_after = say, context, fail_after
        self.tokenizer = SimpleNamespace()
        self.asked: list[str] = []

    def encode(self, prompt: Any) -> list[str]:
        return list(prompt)

    def generate(self, prompts: Any, settings: Any, done: Any) -> None:
        for i, prompt in enumerate(prompts):
            done(i, [self._completion(prompt, settings)])

    def score(self, prompts: Any, continuations: Any, done: Any) -> None:
        self.asked += prompts
        for i, (prompt, options) in enumerate(zip(prompts, continuations, strict=True)):
            done(i, [Score(0.0 if option.strip() == self.say(prompt) else -5.0, 1, 1) for option in options])

    def _completion(self, prompt: str, settings: Any) -> Completion:
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise RuntimeError("the sampler broke")
        self.asked.append(prompt)
        text = self.say(prompt)
        return Completion(text, list(range(len(text))), None, "stop" if len(text) < settings.max_new_tokens else "length")


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted
