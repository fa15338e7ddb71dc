"""Guesses at the next tokens: they save steps and change no answer."""

from __future__ import annotations

import torch

from alignment.generate.engine import Engine, Settings
from alignment.generate.llama import Slots
from alignment.generate.lookup import Lookup, worthwhile


def test_guesses_save_steps_and_change_nothing(llama, tokenizer, monkeypatch):
    model, asked, steps = llama(seed=3, context=512), [[5, 6, 7], [9]], []
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.0)  # only the last token counts, so it soon repeats itself
    step = Slots.step
    monkeypatch.setattr(Slots, "step", lambda self, tokens: (steps.append(tokens.shape), step(self, tokens))[1])
    found = []
    for drafts in (True, False):
        for temperature in (0.0, 0.3):
            engine_ = Engine(model, tokenizer, 2)
            monkeypatch.setattr(engine_.forward, "drafts", drafts)
            settings = Settings(max_new_tokens=100, temperature=temperature)
            found.append(([c.token_ids for [c] in engine_.generate(asked, settings)], len(steps)))
            steps.clear()
    guessed, plain = found[:2], found[2:]
    assert [answers for answers, _ in guessed] == [answers for answers, _ in plain]
    assert guessed[0][1] < 0.8 * plain[0][1]


def test_an_answer_may_fill_the_context(llama, tokenizer):
    model = llama(context=64)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.0)  # it repeats itself, so guesses reach beyond the context
    [[long], [short]] = Engine(model, tokenizer).generate([[1] * 24, [2]], Settings(max_new_tokens=40))
    assert len(long.token_ids) == len(short.token_ids) == 40


def test_what_stood_there_before_is_guessed_and_trusted_as_it_proves_right():
    lookup = Lookup([1, 2, 3, 4, 5, 1, 2])
    assert lookup.guess(8) == [3, 4]
    lookup.learn(2, 2)
    assert lookup.guess(8) == [3, 4, 5, 1]
    assert lookup.guess(3) == [3, 4, 5]
    lookup.learn(4, 0)
    assert lookup.guess(8) == [3]
    lookup.add(9)
    assert lookup.guess(8) == []


def test_a_repetition_is_guessed_to_go_on():
    lookup = Lookup([7, 8, 9, 8, 9])
    lookup.reach = 5
    assert lookup.guess(5) == [8, 9, 8, 9, 8]


def test_guesses_ride_along_where_they_are_worth_it():
    assert worthwhile([[]]) == 0
    assert worthwhile([[1] * 16]) == 16
    assert worthwhile([[1] * 8] * 4) == 8
    assert worthwhile([[1] * 16, *[[]] * 30]) == 0
