"""Shapes and their arithmetic, against the paper's numbers."""

import pytest

from alignment.errors import RecipeError
from alignment.models import presets
from alignment.models.presets import PRESETS, Shape
from alignment.recipe import Model


@pytest.mark.parametrize(("name", "count"), [("deepseek-llm-7b", 6_910_365_696), ("deepseek-llm-67b", 67_425_001_472)])
def test_the_papers_models_have_their_exact_number_of_parameters(name, count):
    assert presets.parameters(PRESETS[name]) == count


@pytest.mark.parametrize(("name", "flops"), [("deepseek-llm-7b", 4.247e10), ("deepseek-llm-67b", 4.327e11)])
def test_operations_per_token_come_from_the_real_layer_shapes(name, flops):
    assert presets.flops_per_token(PRESETS[name], 4096) == pytest.approx(flops, rel=1e-3)


def test_equation_2_is_the_special_case_of_full_heads_and_a_width_of_eight_thirds():
    shape = Shape(layers=12, width=768, heads=12, kv_heads=12, ffn=2048)
    assert presets.flops_per_token(shape, 4096) == 72 * 12 * 768**2 + 12 * 12 * 768 * 4096


@pytest.mark.parametrize(("width", "ffn"), [(4096, 11008), (8192, 22016), (2048, 5504), (256, 688)])
def test_the_default_feed_forward_width_is_the_papers(width, ffn):
    assert presets.ffn(width) == ffn


def test_the_quickstart_is_small_enough_for_a_laptop():
    assert presets.parameters(PRESETS["quickstart"]) == 865_152


def test_explicit_fields_override_the_preset_and_the_tokenizer_gives_the_vocabulary():
    shape = presets.resolve(Model(preset="45m", layers=2), vocab=512, max_positions=64)
    assert (shape.layers, shape.width, shape.vocab, shape.max_positions) == (2, 512, 512, 64)


def test_a_shape_without_preset_gets_full_heads_and_the_papers_ratio():
    shape = presets.resolve(Model(layers=2, width=64, heads=4), vocab=512, max_positions=64)
    assert (shape.kv_heads, shape.ffn, shape.tie) == (4, 172, False)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(RecipeError, match="deepseek-llm-7b"):
        presets.resolve(Model(preset="7b"), vocab=512, max_positions=64)


@pytest.mark.parametrize("shape", [{"width": 100, "heads": 3}, {"width": 60, "heads": 4}])
def test_a_shape_that_cannot_be_built_is_refused(shape):
    with pytest.raises(RecipeError, match="width"):
        presets.resolve(Model(layers=1, **shape), vocab=512, max_positions=64)


LADDER = ("3m", "8m", "20m", "45m", "90m", "200m", "400m", "1b3")


@pytest.mark.parametrize("name", LADDER)
def test_the_ladder_keeps_the_familys_shape(name):
    shape = PRESETS[name]
    without_embeddings = presets.matrices(shape) + (2 * shape.layers + 1) * shape.width
    said = float(name.replace("1b3", "1300m").removesuffix("m")) * 1e6
    assert 0.8 < without_embeddings / said < 1.25
    assert shape.ffn == presets.ffn(shape.width)
    assert shape.width / shape.layers < 136  # the 7B's: depth before width
    assert (shape.kv_heads < shape.heads) == (name in ("400m", "1b3"))


@pytest.mark.parametrize(("layers", "width", "printed"), [
    (8, 512, 352e6), (12, 768, 963e6), (24, 1024, 3.02e9), (24, 2048, 9.66e9),
    (32, 4096, 45.1e9), (40, 5120, 85.6e9), (80, 8192, 419e9),
])  # fmt: skip
def test_operations_per_token_are_those_of_the_papers_table_3(layers, width, printed):
    heads = width // 64
    shape = Shape(layers, width, heads, heads, ffn=1)
    with_eight_thirds = presets.flops_per_token(shape, 4096) + 6 * layers * width * (8 * width - 3)  # 3 x 8/3, exactly
    assert with_eight_thirds == pytest.approx(printed, rel=2e-3)


def test_a_width_of_ones_own_gets_the_papers_feed_forward_part():
    shape = presets.resolve(Model(preset="45m", width=256, heads=4, kv_heads=4), vocab=512, max_positions=64)
    assert shape.ffn == 688
