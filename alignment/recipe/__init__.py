"""Every word a recipe may contain: YAML in, a frozen, checked object out.

`stage:` picks the schema; `section.py` holds the parts that stages are made of, `schema.py` reads strictly and words the
complaints. No torch here: `check` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from alignment import schema
from alignment.errors import RecipeError
from alignment.recipe.base import Recipe as Recipe
from alignment.recipe.comparing import Evaluate as Evaluate
from alignment.recipe.comparing import Experiment as Experiment
from alignment.recipe.comparing import Reproduce as Reproduce
from alignment.recipe.comparing import Sweep as Sweep
from alignment.recipe.posttraining import DPO as DPO
from alignment.recipe.posttraining import KTO as KTO
from alignment.recipe.posttraining import SFT as SFT
from alignment.recipe.posttraining import Mixture as Mixture
from alignment.recipe.posttraining import Preferences as Preferences
from alignment.recipe.pretraining import Corpus as Corpus
from alignment.recipe.pretraining import Curriculum as Curriculum
from alignment.recipe.pretraining import Pretrain as Pretrain
from alignment.recipe.pretraining import Shards as Shards
from alignment.recipe.pretraining import Tokenizer as Tokenizer
from alignment.section import UNPINNED as UNPINNED
from alignment.section import Adapter as Adapter
from alignment.section import Blend as Blend
from alignment.section import Chosen as Chosen
from alignment.section import Grid as Grid
from alignment.section import Guard as Guard
from alignment.section import Judge as Judge
from alignment.section import Judged as Judged
from alignment.section import Measure as Measure
from alignment.section import Model as Model
from alignment.section import Near as Near
from alignment.section import Optim as Optim
from alignment.section import PretrainOptim as PretrainOptim
from alignment.section import RawText as RawText
from alignment.section import Source as Source
from alignment.section import Start as Start
from alignment.section import Strings as Strings
from alignment.section import Watch as Watch
from alignment.sieve import Filters as Filters

STAGES: dict[str, type[Recipe]] = {
    "curriculum": Curriculum,
    "corpus": Corpus,
    "tokenizer": Tokenizer,
    "shards": Shards,
    "pretrain": Pretrain,
    "mixture": Mixture,
    "sft": SFT,
    "preferences": Preferences,
    "dpo": DPO,
    "kto": KTO,
    "evaluate": Evaluate,
    "reproduce": Reproduce,
    "experiment": Experiment,
    "sweep": Sweep,
}
TRAINING = ("pretrain", "sft", "dpo", "kto")


def load(path: Path, edits: Iterable[str] = ()) -> Recipe:
    """Read one recipe file with its edits. Raises RecipeError naming file, field and the nearest known field."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe. Name a .yaml file or a folder of them.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    raw = schema.parse(text, str(path))
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping that begins with `stage:`; this is {type(raw).__name__}.")
    return validate(schema.edit(raw, edits, str(path)), str(path))


def validate(raw: Mapping[str, Any], where: str) -> Recipe:
    """Turn a raw mapping into the stage's recipe."""
    stage = raw.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        near = get_close_matches(str(stage), STAGES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"{where}: stage: {stage!r} is not a stage.{hint} Stages: {', '.join(STAGES)}.")
    return schema.validate(STAGES[stage], raw, where)
