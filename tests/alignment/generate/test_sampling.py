"""The choice of tokens: frequencies, nucleus, and numbers that belong to an item."""

from __future__ import annotations

import numpy as np
import torch

from alignment.generate import sampling


def test_uniforms_are_uniform_and_belong_to_key_and_position():
    keys = [sampling.key(0, [1, 2], 0, n) for n in range(20_000)]
    drawn = sampling.uniforms(keys, [3] * len(keys))
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 45  # chi-square, 19 degrees of freedom: p < 0.001
    assert (drawn != sampling.uniforms(keys, [4] * len(keys))).all()
    assert abs(np.corrcoef(drawn, sampling.uniforms(keys, [4] * len(keys)))[0, 1]) < 0.03
    assert sampling.uniforms(keys[:1], [3])[0] == drawn[0]


def test_samples_follow_the_softmax_at_the_temperature():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(20_000, 1)
    drawn = sampling.choose(logits, 0.7, 1.0, (np.arange(20_000) + 0.5) / 20_000)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, torch.softmax(logits[0] / 0.7, -1), atol=1e-3)


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    logits = torch.log(torch.tensor([0.1, 0.5, 0.25, 0.15])).repeat(1000, 1)
    drawn = sampling.choose(logits, 1.0, 0.7, np.linspace(0, 1, 1000, endpoint=False))
    shares = torch.bincount(drawn, minlength=4) / 1000
    assert shares[0] == shares[3] == 0
    assert torch.allclose(shares[1:3], torch.tensor([2 / 3, 1 / 3]), atol=2e-3)


def test_the_last_number_below_one_never_picks_a_token_without_mass():
    logits = torch.tensor([[0.0, 0.0, float("-inf")]])
    assert sampling.choose(logits, 1.0, 1.0, np.array([1 - 2**-53])).item() == 1


def test_temperature_zero_is_greedy():
    assert sampling.choose(torch.tensor([[0.1, 0.9, 0.3]]), 0.0, 1.0, None).item() == 1
