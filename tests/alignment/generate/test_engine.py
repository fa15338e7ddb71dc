"""The engine against one-by-one transformers: the same tokens, the same log-probabilities, whatever the batch."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from alignment.errors import ModelError
from alignment.generate import weights
from alignment.generate.engine import Engine, Settings
from alignment.generate.library import Library
from alignment.generate.llama import Llama

NEAR_TIE = 1e-3  # logits


def prompts(count: int, seed: int = 0, longest: int = 60) -> list[list[int]]:
    dice = random.Random(seed)
    return [[dice.randrange(256) for _ in range(dice.randint(1, longest))] for _ in range(count)]


def one_by_one(model, ids: list[int], new: int, ends: set[int]) -> list[int]:
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=0,
    )
    return out[0, len(ids) :].tolist()


def assert_same_unless_near_tie(model, ids: list[int], ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    at = next(k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
    with torch.no_grad():
        logits = model(torch.tensor([ids + theirs[:at]])).logits[0, -1]
    assert logits[theirs[at]] - logits[ours[at]] < NEAR_TIE, f"token {at} differs and is no near tie"


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_greedy_equals_generating_one_by_one(llama, tokenizer, kv_heads, batch_size):
    model = llama(seed=kv_heads, kv_heads=kv_heads)
    asked = prompts(20, seed=batch_size)
    engine_ = Engine(model, tokenizer, batch_size)
    answers = engine_.generate(asked, Settings(max_new_tokens=24))
    finishes = set()
    for ids, [answer] in zip(asked, answers, strict=True):
        finishes.add(answer.finish)
        assert_same_unless_near_tie(model, ids, answer.token_ids, one_by_one(model, ids, 24, engine_.ends))
    assert finishes == {"stop", "length"}, "the batch never lost a row, so nothing was tested"


@pytest.fixture(scope="module")
def deepseek(tokenizer):
    """A model with compressed keys and experts, which runs through transformers' own forward."""
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=8, num_experts_per_tok=2,
        n_group=2, topk_group=1, first_k_dense_replace=1, q_lora_rank=32, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=16, v_head_dim=16, max_position_embeddings=256, num_mtp_layers=0,
        bos_token_id=257, eos_token_id=256, pad_token_id=None,
    )  # fmt: skip
    model = DeepseekV3ForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 1.0)
    return model


def test_who_runs_what(llama, deepseek, tokenizer):
    assert isinstance(Engine(llama(), tokenizer).forward, Llama)
    assert isinstance(Engine(deepseek, tokenizer).forward, Library)


@pytest.mark.parametrize("kind", ["llama", "grouped", "deepseek"])
def test_greedy_text_is_that_of_generating_one_by_one_with_and_without_a_shared_prefix(kind, llama, deepseek, tokenizer):
    """Random models, prompts and batches: every token equal, or at most 1 in 2,000 a near tie."""
    ties = tokens = 0
    for seed in range(4):
        dice = random.Random(seed)
        model = deepseek if kind == "deepseek" else llama(seed=seed + 10, kv_heads=4 if kind == "llama" else 1 + seed % 2)
        shared = prompts(1, seed=seed, longest=90)[0] * (seed % 2)
        asked = [shared + tail for tail in prompts(6, seed=seed, longest=30)]
        engine_ = Engine(model, tokenizer, dice.choice([1, 2, 4, 64]))
        for ids, [answer] in zip(asked, engine_.generate(asked, Settings(max_new_tokens=24)), strict=True):
            theirs = one_by_one(model, ids, 24, engine_.ends)
            assert_same_unless_near_tie(model, ids, answer.token_ids, theirs)
            ties += answer.token_ids != theirs
            tokens += len(theirs)
    assert tokens > 200
    assert ties * 2000 <= tokens, f"{ties} near ties in {tokens} tokens"


@pytest.mark.parametrize("kind", ["llama", "deepseek"])
def test_what_prompts_share_is_read_once(kind, llama, deepseek, tokenizer, monkeypatch):
    engine_ = Engine(llama() if kind == "llama" else deepseek, tokenizer)
    shared, tails = list(range(60)), prompts(5, longest=9)
    read = []
    for name in ("read", "rows"):
        run = getattr(engine_.forward, name)

        def counted(first, second=None, *, run=run, name=name, **words):
            if name == "rows":
                read.append(sum(map(len, second)))
            elif engine_.forward.drafts is False:
                read.append(len(first))  # transformers' forward reads a prefix without `rows`
            return run(first, second, **words)

        monkeypatch.setattr(engine_.forward, name, counted)
    asked = [shared + tail for tail in tails]
    engine_.generate(asked, Settings(max_new_tokens=1, samples=3, temperature=1.0))
    assert sum(read) == 60 + sum(map(len, tails))
    read.clear()
    engine_.score(asked, [[[1], [2], [3]]] * 5)
    assert sum(read) == 60 + sum(map(len, tails))


def test_samples_do_not_depend_on_batch_or_order(llama, tokenizer):
    model = llama()
    settings = Settings(max_new_tokens=10, temperature=0.9, top_p=0.95, samples=3, seed=7)
    for asked in (prompts(9), [list(range(40)) + tail for tail in prompts(9)]):
        wide = Engine(model, tokenizer, 64).generate(asked, settings)
        narrow = Engine(model, tokenizer, 2).generate(asked[::-1], settings)[::-1]
        assert [[c.token_ids for c in row] for row in wide] == [[c.token_ids for c in row] for row in narrow]
        assert any(row[0].token_ids != row[1].token_ids for row in wide)
        [alone] = Engine(model, tokenizer, 1).generate(asked[4:5], settings)
        assert [c.token_ids for c in alone] == [c.token_ids for c in wide[4]]


def test_a_repeated_prompt_gets_other_samples_and_another_seed_gives_other_samples(llama, tokenizer):
    engine_, ids = Engine(llama(), tokenizer), [5, 6, 7]
    drawn = Settings(max_new_tokens=16, temperature=1.0, seed=1)
    [first], [second] = engine_.generate([ids, ids], drawn)
    [[other]] = engine_.generate([ids], Settings(max_new_tokens=16, temperature=1.0, seed=2))
    assert len({tuple(c.token_ids) for c in (first, second, other)}) == 3


def test_recorded_logprobs_are_those_of_the_model(llama, tokenizer):
    model, asked = llama(), prompts(5)
    engine_ = Engine(model, tokenizer)
    answers = engine_.generate(asked, Settings(max_new_tokens=8, temperature=0.7, top_p=0.9))
    scores = engine_.score(asked, [[answer.token_ids] for [answer] in answers])
    for [answer], [score] in zip(answers, scores, strict=True):
        assert sum(answer.logprobs) == pytest.approx(score.logprob, abs=1e-3)
        assert len(answer.logprobs) == len(answer.token_ids) == score.tokens


def test_a_stop_string_ends_its_row_and_is_not_in_the_text(llama, tokenizer):
    model, asked = llama(), prompts(8)
    engine_ = Engine(model, tokenizer, 4)
    free = engine_.generate(asked, Settings(max_new_tokens=30))
    stop = next(c.text[2:4] for [c] in free if len(c.text) > 6 and c.text[2:4].isascii())
    held = engine_.generate(asked, Settings(max_new_tokens=30, stop=(stop, "never")))
    assert any(stop in c.text for [c] in free)
    for [before], [after] in zip(free, held, strict=True):
        assert after.text == before.text.split(stop)[0]
        if stop in before.text:
            assert after.finish == "stop"
            assert len(after.token_ids) <= len(before.token_ids)


@pytest.mark.parametrize("kind", ["llama", "deepseek"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
@torch.inference_mode()
def test_scores_equal_plain_log_softmax(kind, batch_size, llama, deepseek, tokenizer):
    model = llama(kv_heads=2) if kind == "llama" else deepseek
    examples = list(range(50))
    asked = prompts(4) + [examples + question for question in prompts(4, seed=1)]
    options = [prompts(3, seed=i, longest=6) for i in range(8)]
    options[5] = [[1, 2, 3], [1, 2, 3, 4], [1]]  # one continues the other
    scores = Engine(model, tokenizer, batch_size).score(asked, options)
    for ids, continuations, row in zip(asked, options, scores, strict=True):
        for continuation, score in zip(continuations, row, strict=True):
            logps = model(torch.tensor([ids + continuation]), use_cache=False).logits[0].log_softmax(-1)
            plain = sum(float(logps[len(ids) - 1 + k, token]) for k, token in enumerate(continuation))
            assert score.logprob == pytest.approx(plain, abs=1e-4)
            assert score.tokens == len(continuation)


def test_letters_of_one_question_share_a_forward_pass(llama, tokenizer, monkeypatch):
    model = llama()
    engine_ = Engine(model, tokenizer)
    passes = []
    run = engine_.forward.rows
    monkeypatch.setattr(engine_.forward, "rows", lambda prefix, rows: (passes.append(len(rows)), run(prefix, rows))[1])
    scores = engine_.score(["Question? Answer: "] * 2, [list("ABCD")] * 2)
    assert passes == [1]
    assert [s.bytes for s in scores[0]] == [1, 1, 1, 1]
    assert scores[0] == scores[1]


def test_text_prompts_open_with_bos_and_hold_no_control_tokens(llama, tokenizer):
    engine_ = Engine(llama(), tokenizer)
    assert engine_.encode("ab")[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in engine_.encode("a" + tokenizer.eos_token + "b")
    assert engine_.encode([1, 2]) == [1, 2]
    assert engine_.has_template


def test_a_prompt_that_does_not_fit_is_named(llama, tokenizer):
    engine_ = Engine(llama(context=32), tokenizer)
    with pytest.raises(ModelError, match=r"prompt 1 has 30 tokens"):
        engine_.generate([[1], [1] * 30], Settings(max_new_tokens=8))
    with pytest.raises(ModelError, match=r"item 0 has 40 tokens"):
        engine_.score([[1] * 30], [[[2] * 10]])


def test_empty_input_gives_empty_output_and_an_empty_prompt_is_refused(llama, tokenizer):
    engine_ = Engine(llama(), tokenizer)
    assert engine_.generate([], Settings(max_new_tokens=4)) == []
    assert engine_.score([], []) == []
    with pytest.raises(ModelError, match="prompt 0 is empty"):
        engine_.generate([[]], Settings(max_new_tokens=4))


def test_each_prompt_is_handed_over_once_as_soon_as_it_is_done(llama, tokenizer):
    told: dict[int, object] = {}
    engine_ = Engine(llama(), tokenizer, 3)
    answers = engine_.generate(prompts(7), Settings(max_new_tokens=5, temperature=1.0, samples=2), told.__setitem__)
    assert [told[i] for i in range(7)] == answers
    told.clear()
    scores = engine_.score(prompts(7), [prompts(2)] * 7, told.__setitem__)
    assert [told[i] for i in range(7)] == scores


def test_broken_weights_are_an_error_and_no_answer(llama, tokenizer):
    model = llama()
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    engine_ = Engine(model, tokenizer)
    with pytest.raises(ModelError, match="NaN"):
        engine_.generate([[1, 2]], Settings(max_new_tokens=2))
    with pytest.raises(ModelError, match="NaN"):
        engine_.score([[1, 2]], [[[3]]])


def test_sampling_leaves_a_model_in_training_as_it_was(llama, tokenizer):
    model = llama().train()
    Engine(model, tokenizer).generate([[1, 2]], Settings(max_new_tokens=2))
    assert model.training


def test_a_model_that_bends_its_logits_is_refused(llama, tokenizer, monkeypatch):
    model = llama()
    forward = model.forward

    def bent(*a, **k):
        out = forward(*a, **k)
        out.logits = torch.tanh(out.logits)
        return out

    monkeypatch.setattr(model, "forward", bent)
    with pytest.raises(ModelError, match="after the LM head"):
        Engine(model, tokenizer)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"top_p": 0.0}, {"samples": 0}, {"stop": ("",)}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ModelError):
        Settings(**{"max_new_tokens": 4, **wrong})


def test_a_sliding_window_bounds_the_context(llama):
    model = llama()
    model.config.sliding_window = 40
    assert weights.context(model.config, "m") == 40
