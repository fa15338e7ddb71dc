"""Text to ids and back for one model, and what must fit its context: shared by every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment import chat
from alignment.errors import ModelError
from alignment.generate import weights
from alignment.generate.completion import Prompt, Settings


class Words:
    """A tokenizer and the context it speaks into. `ends` are the tokens that end an answer."""

    def __init__(self, tokenizer: Any, config: Any, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        self.context = weights.context(config, name)
        self.ends = chat.end_ids(tokenizer)
        self.opening = weights.opening(tokenizer)

    @property
    def has_template(self) -> bool:
        """Whether the model can be asked in chat form."""
        return bool(self.tokenizer.chat_template)

    def encode(self, prompt: Prompt) -> list[int]:
        """Tokenise text behind the model's opening token, never into control tokens; ids pass unchanged."""
        return self.opening + self._plain(prompt) if isinstance(prompt, str) else list(prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without control tokens, spaces as they are."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def prompts(self, prompts: Sequence[Prompt], settings: Settings) -> list[list[int]]:
        """Encode prompts that leave room for an answer."""
        found = [self.encode(prompt) for prompt in prompts]
        for i, ids in enumerate(found):
            if not ids:
                raise ModelError(f"{self.name}: prompt {i} is empty. Give it at least one token.")
            if len(ids) + settings.max_new_tokens > self.context:
                raise ModelError(
                    f"{self.name}: prompt {i} has {len(ids)} tokens; with {settings.max_new_tokens} new ones it "
                    f"exceeds the model's context of {self.context}. Shorten the prompt or max_new_tokens."
                )
        return found

    def join(self, prompt: Prompt, option: Prompt, index: int) -> tuple[list[int], list[int]]:
        """Ids before and in a continuation. Tokens may merge where text meets text: from there it is scored."""
        before = self.encode(prompt)
        if isinstance(prompt, str) and isinstance(option, str):
            whole = self.encode(prompt + option)
            same = next((k for k, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
            before, after = whole[: min(same, len(whole) - 1)], whole[min(same, len(whole) - 1) :]
        else:
            after = self._plain(option) if isinstance(option, str) else list(option)
        if not before or not after:
            empty = "prompt" if not before else "continuation"
            raise ModelError(f"{self.name}: item {index} has an empty {empty}. Give it at least one token.")
        if len(before) + len(after) - 1 > self.context:
            raise ModelError(
                f"{self.name}: item {index} has {len(before) + len(after)} tokens, the model's context is "
                f"{self.context}. Shorten the prompt (fewer shots)."
            )
        return before, after

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
