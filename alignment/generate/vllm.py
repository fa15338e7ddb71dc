"""The engine's two questions, answered by vLLM 0.30 for users with a GPU. Written against its signatures; not run here.

vLLM shares prefixes and fills batches by itself, so what is left is translation: ids in, per-answer seeds, and texts
cut where ours are. Its kernels are not ours: answers may differ from the other engine's, and `facts` says which it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignment.errors import HardwareError, ModelError
from alignment.generate import sampling, weights
from alignment.generate.completion import Completion, Prompt, Score, Settings
from alignment.generate.words import Words
from alignment.hardware import Hardware

SEEDS = 2**63  # vLLM hands them to torch, which takes signed 64-bit numbers


class Engine(Words):
    """A model served by vLLM inside this process."""

    def __init__(self, served: Any, tokenizer: Any, config: Any, name: str, dtype: str) -> None:
        super().__init__(tokenizer, config, name)
        self.served, self.facts = served, {"kind": "vllm", "dtype": dtype, "attention": "vllm", "device": "cuda"}

    def generate(
        self, prompts: Sequence[Prompt], settings: Settings, done: Callable[[int, list[Completion]], Any] | None = None
    ) -> list[list[Completion]]:
        """Answer every prompt `settings.samples` times; `done(i, answers)` is called when all are answered."""
        from vllm import SamplingParams

        ids = self.prompts(prompts, settings)
        seen: Counter[tuple[int, ...]] = Counter()
        asked, how = [], []
        for prompt in ids:
            again = seen[tuple(prompt)]
            seen[tuple(prompt)] += 1
            for n in range(settings.samples):
                asked.append({"prompt_token_ids": prompt})
                how.append(SamplingParams(
                    n=1,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    seed=sampling.key(settings.seed, prompt, again, n) % SEEDS,
                    stop=list(settings.stop),
                    stop_token_ids=sorted(self.ends),
                    max_tokens=settings.max_new_tokens,
                    logprobs=0,  # of the drawn token alone
                ))  # fmt: skip
        found = [self._completion(reply.outputs[0], settings) for reply in self._ask(asked, how)]
        answers = [found[i : i + settings.samples] for i in range(0, len(found), settings.samples)]
        for i, answer in enumerate(answers):
            if done is not None:
                done(i, answer)
        return answers

    def score(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[Prompt]],
        done: Callable[[int, list[Score]], Any] | None = None,
    ) -> list[list[Score]]:
        """Log-probability of each continuation after its prompt. Text after text is tokenised as one text."""
        from vllm import SamplingParams

        pairs = [
            self.join(prompt, option, i)
            for i, (prompt, options) in enumerate(zip(prompts, continuations, strict=True))
            for option in options
        ]
        how = SamplingParams(n=1, temperature=0.0, max_tokens=1, prompt_logprobs=0)  # 0: of the prompt's tokens alone
        replies = iter(self._ask([{"prompt_token_ids": before + after} for before, after in pairs], [how] * len(pairs)))
        split, scores = iter(pairs), []
        for i, options in enumerate(continuations):
            scores.append([self._score(next(split), next(replies), option) for option in options])
            if done is not None:
                done(i, scores[-1])
        return scores

    def _ask(self, asked: list[dict[str, list[int]]], how: list[Any]) -> list[Any]:
        replies = list(self.served.generate(asked, how, use_tqdm=False)) if asked else []
        if len(replies) != len(asked):
            raise ModelError(f"{self.name}: vLLM answered {len(replies)} of {len(asked)} requests. See its log.")
        return replies

    def _completion(self, output: Any, settings: Settings) -> Completion:
        ids = list(output.token_ids)
        text = self.decode(ids[:-1] if ids and ids[-1] in self.ends else ids)
        cuts = [at for stop in settings.stop if (at := text.find(stop)) >= 0]
        logprobs = [place[token].logprob for token, place in zip(ids, output.logprobs, strict=True)]
        finish = "length" if output.finish_reason == "length" and not cuts else "stop"
        return Completion(text[: min(cuts)] if cuts else text, ids, logprobs, finish)

    def _score(self, pair: tuple[list[int], list[int]], reply: Any, option: Prompt) -> Score:
        before, after = pair
        places = reply.prompt_logprobs[len(before) :]
        logprob = sum(place[token].logprob for token, place in zip(after, places, strict=True))
        text = option if isinstance(option, str) else self.decode(option)
        return Score(logprob, len(after), len(text.encode()))


def load(argument: str | Path, hardware: Hardware) -> Engine:
    """Open a run directory, a model folder or ORG/NAME@REVISION with vLLM."""
    if find_spec("vllm") is None:
        raise HardwareError("vLLM is not installed. Install requirements-gpu.txt, or use the engine plumbline.")
    if hardware.device != "cuda":
        raise HardwareError(f"{hardware.name}: vLLM needs a CUDA device. Use the engine plumbline.")
    from transformers import AutoConfig, AutoTokenizer
    from vllm import LLM

    place, revision = weights.locate(argument)
    tokenizer = AutoTokenizer.from_pretrained(place, revision=revision, trust_remote_code=False)
    config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    served = LLM(
        model=place, revision=revision, tokenizer_revision=revision, dtype=hardware.dtype, trust_remote_code=False, seed=0
    )
    return Engine(served, tokenizer, config, str(argument), hardware.dtype)
