"""What can be said of a recipe before it runs: whether it fits, and for pre-training what it will take."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignment import experiment, hardware, recipe
from alignment.errors import RecipeError
from alignment.experiment import Planned


def check(item: Planned) -> None:
    """Refuse a recipe that does not fit its profiles, or names a card, a share or a preset that there is not."""
    for name in item.recipe.fits:
        hardware.check_fit(item.recipe, name, item.file)
    if (named := item.recipe.cards()) | (held_out := set(experiment.held_out_names(item.recipe))):
        from alignment import data_card

        for name in sorted(named):
            data_card.check(name, training=True)
        for name in sorted(held_out):
            data_card.check(name, training=False)
    if isinstance(item.recipe, recipe.Mixture):
        from alignment.posttrain import quota

        quota.check(item.recipe, item.file)
    if isinstance(item.recipe, recipe.Experiment):
        from alignment import cells

        cells.grid(item.recipe, cells.chain(item.recipe)[-1])
    if isinstance(item.recipe, recipe.Sweep):
        from alignment.scaling import sweep

        sweep.grid(item.recipe)
    if isinstance(item.recipe, recipe.Pretrain):
        from alignment.models import presets

        try:
            presets.resolve(item.recipe.model, vocab=1, max_positions=item.recipe.sequence_length)
        except RecipeError as error:
            raise RecipeError(f"{item.file}: {error}") from None


def forecast(item: Planned, profile: str) -> str:
    """What a pre-training recipe amounts to: parameters, operations, updates, and the memory of each process."""
    from alignment.models import memory, presets

    words = item.recipe
    assert isinstance(words, recipe.Pretrain), f"{item.file}: a forecast of {words.stage}"
    shape = presets.resolve(words.model, _vocabulary(item), words.sequence_length)
    machine = hardware.read(profile)
    micro, passes = hardware.split(machine, words.batch_size, words.sequence_length)
    each = presets.flops_per_token(shape, words.sequence_length)
    length, sharded = words.sequence_length, hardware.is_sharded(profile)
    held = memory.estimate(shape, machine, micro * length, sharded=sharded, length=length)
    parts = ", ".join(f"{name} {_size(size)}" for name, size in asdict(held).items())
    return "\n".join(
        [
            f"  {presets.parameters(shape):,} parameters, vocabulary {shape.vocab:,}",
            f"  {each:.4g} FLOPs a token without embeddings (paper 3.2), {each * words.tokens:.4g} in all",
            f"  {words.tokens // (words.batch_size * words.sequence_length):,} updates of "
            f"{words.batch_size * words.sequence_length:,} tokens",
            f"  {profile}: {machine.processes} process(es), {passes} pass(es) of {micro} sequence(s) an update; "
            f"{_size(held.total)} each ({parts})",
        ]
    )


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _vocabulary(item: Planned) -> int:
    """The rows of the embedding that the recipes beside this one will give it."""
    words: Any = item.recipe
    for name in ("data", "tokenizer"):
        file = item.file.parent / f"{getattr(words, name, None)}.yaml"
        if not file.exists():
            raise RecipeError(f"{item.file}: {file} is not there, so the vocabulary is not known. Put its recipe beside it.")
        words = recipe.load(file)
    return int(getattr(words, "padded_vocab_size", None) or words.vocab_size)
