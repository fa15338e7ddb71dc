"""A longer run goes on from the first phase of a shorter one: what the multi-step schedule is for (paper 2.3).

Up to its first turn the learning rate does not depend on the budget, nor do the batches. So `keep_turn` keeps the state
there, `after` takes it up, and the longer run ends bit for bit where it would have ended had it learnt all by itself.
"""

from __future__ import annotations

from alignment import manifest
from alignment.errors import RecipeError, RunError
from alignment.pretrain import schedule
from alignment.pretrain.checkpoint import Checkpoints
from alignment.recipe import Pretrain
from alignment.run import Finished, Run

KEPT = "turn"
FREE = {"tokens", "data", "after", "max_epochs", "tracker", "prompts", "log_every", "validate_every"}
FREE |= {"checkpoint_every", "checkpoint_minutes", *manifest.FREE}  # none of them changes what the first phase learns


def kept(here: Run) -> Checkpoints:
    """Where a run keeps the state before its first turn."""
    return Checkpoints(here.path / KEPT, here.manifest.get("fingerprint"), main=here.main)


def found(recipe: Pretrain, here: Run, updates: int) -> Checkpoints:
    """The state that the shorter run kept. Raises RecipeError where this one would not have come to it."""
    name = str(recipe.after)
    shorter = here.inputs[name]
    if not (shorter.path / KEPT).exists():
        raise RunError(
            f"{shorter.path}: kept no state before its first turn. Run it with keep_turn: true, elsewhere (--runs)."
        )
    _same(recipe, here, name)
    old = Pretrain(**shorter.manifest["recipe"])
    before = old.tokens // (old.batch_size * old.sequence_length)
    for step in range(schedule.first_turn(before, old.optim)):
        was, now = (schedule.share(step, count, recipe.optim) for count in (before, updates))
        if was != now:
            raise RecipeError(
                f"after: {name}: its update {step + 1} had {was:.4g} of the peak rate, here it would have {now:.4g}. "
                f"Give more tokens than its {old.tokens:,}, and a schedule that does not depend on them."
            )
    return Checkpoints(shorter.path / KEPT, shorter.manifest["fingerprint"], main=here.main)


def _same(recipe: Pretrain, here: Run, name: str) -> None:
    shorter: Finished = here.inputs[name]
    old, new = shorter.manifest["recipe"], recipe.model_dump(mode="json")
    for field in sorted((old.keys() | new.keys()) - FREE):
        if old.get(field) != new.get(field):
            raise RecipeError(
                f"after: {name}: its {field} was {old.get(field)!r}, here it is {new.get(field)!r}. Make them equal."
            )
    was, now = shorter.manifest["inputs"][old["data"]], here.inputs[recipe.data].manifest["fingerprint"]
    if was != now:
        raise RecipeError(
            f"after: {name}: it read other tokens ({old['data']}, {was[:12]}) than {recipe.data} ({now[:12]})."
        )
