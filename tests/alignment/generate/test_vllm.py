"""The vLLM engine against a stand-in that takes only what vLLM 0.30.0's own signatures take."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest
import torch

from alignment.errors import HardwareError, ModelError
from alignment.generate import engine, vllm
from alignment.generate.completion import Settings
from alignment.hardware import Hardware


@dataclass
class SamplingParams:
    """The fields of vllm/sampling_params.py, 0.30.0, that we name, with its defaults."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass
class LLM:
    """Greedy decoding in ten lines, behind vllm/entrypoints/llm.py's signature of `generate`."""

    model: object
    calls: list = field(default_factory=list)
    lost: int = 0

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        assert not use_tqdm
        self.calls.append(sampling_params)
        replies = [self.reply(p["prompt_token_ids"], how) for p, how in zip(prompts, sampling_params, strict=True)]
        return replies[self.lost :]

    def reply(self, ids, how):
        given, new, weights = list(ids), [], []
        finish = "length"
        while len(new) < how.max_tokens:
            logps = self.logps(ids)[-1]
            new.append(int(logps.argmax()))
            weights.append({new[-1]: SimpleNamespace(logprob=float(logps.max()))})
            ids = [*ids, new[-1]]
            if new[-1] in (how.stop_token_ids or []):
                finish = "stop"
                break
        out = SimpleNamespace(token_ids=new, logprobs=weights if how.logprobs is not None else None, finish_reason=finish)
        logps = self.logps(given)
        known = [None, *({t: SimpleNamespace(logprob=float(logps[k, t]))} for k, t in enumerate(given[1:]))]
        return SimpleNamespace(outputs=[out], prompt_logprobs=known if how.prompt_logprobs is not None else None)

    def logps(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([ids])).logits[0].log_softmax(-1)


@pytest.fixture
def served(llama, tokenizer, monkeypatch):
    module = ModuleType("vllm")
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    model = llama()
    return vllm.Engine(LLM(model), tokenizer, model.config, "m", "float32"), engine.Engine(model, tokenizer)


def test_answers_and_scores_are_those_of_our_engine(served):
    theirs, ours = served
    prompts = ["What is it?", [3, 4, 5], "And then?"]
    free = ours.generate(prompts, Settings(max_new_tokens=12))
    stop = next(c.text[1:2] for [c] in free if len(c.text) > 2 and c.text[1:2].isascii())
    for settings in (Settings(max_new_tokens=12), Settings(max_new_tokens=12, stop=(stop,))):
        for [a], [b] in zip(theirs.generate(prompts, settings), ours.generate(prompts, settings), strict=True):
            assert a.text == b.text
            assert a.finish == b.finish
            assert a.logprobs[: len(b.logprobs)] == pytest.approx(b.logprobs, abs=1e-4)
    options = [[" A", " B"], [[7, 8], [9]], ["x"]]
    for a, b in zip(theirs.score(prompts, options), ours.score(prompts, options), strict=True):
        assert [s.logprob for s in a] == pytest.approx([s.logprob for s in b], abs=1e-4)
        assert [(s.tokens, s.bytes) for s in a] == [(s.tokens, s.bytes) for s in b]


def test_each_sample_has_a_seed_of_its_own(served):
    theirs, _ = served
    theirs.generate([[1, 2], [1, 2]], Settings(max_new_tokens=2, temperature=0.8, samples=3))
    seeds = [how.seed for how in theirs.served.calls[-1]]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_lost_answer_is_an_error(served):
    theirs, _ = served
    theirs.served.lost = 1
    with pytest.raises(ModelError, match="1 of 2"):
        theirs.generate([[1], [2]], Settings(max_new_tokens=1))


def test_without_vllm_or_a_gpu_it_says_so(monkeypatch):
    cpu = Hardware("cpu", "cpu", "float32", "t", "sdpa", 1, False, 1, 1)
    monkeypatch.setattr(vllm, "find_spec", lambda _: None)
    with pytest.raises(HardwareError, match="not installed"):
        vllm.load("model", cpu)
    monkeypatch.setattr(vllm, "find_spec", lambda _: True)
    with pytest.raises(HardwareError, match="CUDA"):
        vllm.load("model", cpu)
