"""What fine-tuning costs: the operations of an update, and the bits per byte of its answers."""

from __future__ import annotations

import math

import pytest
from transformers import LlamaForCausalLM

from alignment.models import build, presets
from alignment.posttrain import report


@pytest.mark.parametrize("tie", [True, False])
def test_operations_are_the_papers_and_the_head_sees_learnt_tokens_only(tie: bool) -> None:
    shape = presets.Shape(2, 32, 4, 2, 64, vocab=300, max_positions=64, tie=tie)
    model = LlamaForCausalLM(build.config(shape))
    work = report.operations(model)
    assert work(50, 0) == 50 * presets.flops_per_token(shape, 50)
    assert work(50, 7) - work(50, 0) == 7 * 6 * shape.vocab * shape.width
    model.requires_grad_(False)
    body = 50 * 4 * presets.matrices(shape)
    assert report.operations(model)(50, 0) == body + 50 * (presets.flops_per_token(shape, 50) - 6 * presets.matrices(shape))


def test_bits_per_byte_count_the_bytes_of_an_update_and_are_unknown_without_text() -> None:
    items = [report.Size(9, 4, 1.0, bytes=3), report.Size(9, 2, 1.0, bytes=5)]
    assert report.bits_per_byte(2.0, items) == pytest.approx(2.0 * 6 / math.log(2) / 8)
    assert report.bits_per_byte(0.7, [report.Size(9, 4, 1.0)]) is None
