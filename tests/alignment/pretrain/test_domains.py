"""Mixture weights: exact shares, and a place that is a function of seed and number."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from alignment import recipe, tokenizer
from alignment.corpus import shards
from alignment.corpus.documents import Document
from alignment.corpus.shards import Shards
from alignment.errors import DataError, RecipeError
from alignment.pretrain import domains, watch
from alignment.pretrain.batches import Batches
from alignment.pretrain.domains import BLOCK, Domain, Mixture

WEIGHTS = {"code": 0.2, "prose": 0.6, "math": 0.2, "law": 0.0}
KNOWN = ("law", "math", "prose", "code")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Sixty documents of two domains, in several shards."""
    texts = [f"document {i} says {'a' if i % 3 else 'b'} " * (1 + i % 4) for i in range(60)]
    found = [Document(str(i), text, "math" if i % 3 else "prose", "en", "x") for i, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("shards")
    shards.write_split(folder / "train", found, tokenizer.learn(texts, 280, "deepseek-llm"), 500)
    return Shards.open(folder, "train")


def test_a_domain_is_its_documents_in_a_row(written: Shards) -> None:
    for number in range(2):
        domain = Domain.of(written, number)
        whole = np.concatenate([written[i] for i in range(len(written)) if written.domain[i] == number])
        assert len(domain) == len(whole) > 500
        draw = np.random.default_rng(0)
        cuts = [(0, len(whole)), (0, 1), (len(whole) - 1, len(whole)), *draw.integers(0, len(whole), (50, 2))]
        for start, stop in (sorted(map(int, cut)) for cut in cuts):
            if start < stop:
                assert (domain[start:stop] == whole[start:stop]).all(), (start, stop)


def test_every_block_holds_the_exact_shares() -> None:
    mixture = Mixture.weighted(WEIGHTS, KNOWN, seed=1)
    for block in (0, 7):
        drawn = Counter(mixture.names[mixture.place(n)[0]] for n in range(block * BLOCK, (block + 1) * BLOCK))
        assert drawn == {"code": 200, "prose": 600, "math": 200}


def test_each_domain_is_read_in_order_without_a_gap_or_a_repeat() -> None:
    mixture = Mixture.weighted(WEIGHTS, KNOWN, seed=1)
    places = [mixture.place(number) for number in range(2500)]
    for domain, count in enumerate(mixture.drawn(2500)):
        assert [place for found, place in places if found == domain] == list(range(count))


def test_weights_need_not_sum_to_one_and_remainders_go_to_the_largest() -> None:
    mixture = Mixture.weighted({"law": 1, "math": 1, "prose": 1}, KNOWN, seed=0)
    assert sorted(mixture.counts) == [333, 333, 334]


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"maths": 1.0}, "'maths' is no domain of these shards. They have: law, math"),
        ({"law": 0.0}, "above 0"),
        ({"law": 1.0, "math": 1e-5}, "less than one sequence in 1000"),
    ],
)
def test_weights_that_cannot_be_kept_are_refused(weights: dict[str, float], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Mixture.weighted(weights, KNOWN, seed=0)


def words(**more: object) -> recipe.Pretrain:
    fields = {
        "stage": "pretrain",
        "data": "shards",
        "model": {"layers": 1, "width": 16, "heads": 1},
        "optim": {"learning_rate": 1e-3},
        "tokens": 4000,
        "batch_size": 6,
        "sequence_length": 20,
    }
    return recipe.Pretrain.model_validate(fields | more)


def test_a_mixed_batch_is_a_function_of_seed_and_step(written: Shards) -> None:
    mixed = words(mixture={"math": 0.5, "prose": 0.5})
    batch = Batches.of(mixed, written).batch(5)
    assert batch.shape == (6, 21)
    assert (batch == Batches.of(mixed, written).batch(5)).all()
    assert (batch != Batches.of(mixed.model_copy(update={"seed": 1}), written).batch(5)).any()


def test_epochs_are_counted_by_domain(written: Shards) -> None:
    source = Batches.of(words(mixture={"math": 0.25, "prose": 0.75}), written)
    streams = dict(zip(("math", "prose"), source.streams, strict=True))
    found = source.epochs(1000)
    assert found == {"math": 1500 / len(streams["math"]), "prose": 4500 / len(streams["prose"])}
    assert Batches.of(words(), written).epochs(10) == {"": 60 / ((len(written.tokens) - 1) // 20)}


def test_more_epochs_than_allowed_are_refused() -> None:
    domains.check_epochs({"math": 3.9, "prose": 1.0}, 4.0)
    domains.check_epochs({"": 100.0}, None)
    with pytest.raises(DataError, match=r"domain math would be read 4.10 times, max_epochs is 4"):
        domains.check_epochs({"math": 4.1, "prose": 1.0}, 4.0)


def test_a_token_stands_for_the_bytes_of_the_domains_as_they_are_weighted(written: Shards) -> None:
    assert watch.bytes_per_token(written, None) == pytest.approx(written.bytes.sum() / len(written.tokens))
    alone = {
        name: written.bytes[written.domain == number].sum() / len(Domain.of(written, number))
        for number, name in enumerate(written.domains)
    }
    for name, rate in alone.items():
        assert watch.bytes_per_token(written, {name: 2.0}) == pytest.approx(rate)
    mixed = watch.bytes_per_token(written, {"math": 3.0, "prose": 1.0})
    assert mixed == pytest.approx(0.75 * alone["math"] + 0.25 * alone["prose"])
