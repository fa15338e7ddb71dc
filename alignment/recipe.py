"""Every word a recipe may contain: YAML in, a frozen, checked object out.

`stage:` picks the schema; `section.py` holds the parts that stages are made of, `schema.py` reads strictly and words the
complaints. No torch here: `check` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from alignment import schema
from alignment.errors import RecipeError
from alignment.schema import Name, Positive, Rate, Share, Words
from alignment.section import UNPINNED as UNPINNED
from alignment.section import Adapter as Adapter
from alignment.section import Chosen as Chosen
from alignment.section import Filters as Filters
from alignment.section import Grid as Grid
from alignment.section import Guard as Guard
from alignment.section import Judged as Judged
from alignment.section import Measure as Measure
from alignment.section import Model as Model
from alignment.section import Near as Near
from alignment.section import Optim as Optim
from alignment.section import PretrainOptim as PretrainOptim
from alignment.section import RawText as RawText
from alignment.section import Source as Source
from alignment.section import Start as Start


class Recipe(Words):
    """What every stage has. `fits` names the hardware profiles it was written for; it is not part of what is learnt."""

    stage: str
    seed: int = 0
    fits: Annotated[tuple[Name, ...], Field(min_length=1)] = ("cpu",)

    def runs(self) -> set[str]:
        """Name the neighbouring runs that this recipe reads."""
        return set(_names(self.model_dump(), "run")) | self._direct_runs()

    def cards(self) -> set[str]:
        """Name the data cards that this recipe reads."""
        return set(_names(self.model_dump(), "card"))

    def batches(self) -> list[tuple[int, int]]:
        """Name the training batches: sequences per update, tokens per sequence."""
        return []

    def _direct_runs(self) -> set[str]:
        return set()


def _names(value: Any, key: str) -> Iterable[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get(key), str):
            yield value[key]
        for inner in value.values():
            yield from _names(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names(inner, key)


# -- from raw text to a base model ------------------------------------------------------------------------------------


class Curriculum(Recipe):
    """Exercises that we generate ourselves: training documents, instructions, problems, held-out sets."""

    stage: Literal["curriculum"]
    documents: Positive
    instructions: Positive
    problems: Positive
    heldout_problems: Positive
    heldout_items: Positive
    shares: dict[Literal["math", "code", "choice", "talk", "refusal", "sum"], Share]
    careless: Share = 0.0  # of the instructions that can be verified: bad answers, as collected data has

    @field_validator("shares")
    @classmethod
    def _something(cls, shares: dict[str, float]) -> dict[str, float]:
        if not any(shares.values()):
            raise ValueError("at least one share must be above 0")
        return shares


class Corpus(Recipe):
    """Raw documents -> deduplicated, filtered, decontaminated, remixed documents."""

    stage: Literal["corpus"]
    data: Annotated[tuple[RawText, ...], Field(min_length=1)]
    near: Near = Near()
    filters: Filters = Filters()
    against: Name | None = None  # the run whose held-out sets must not be contained
    shares: dict[str, Share]
    max_epochs: Rate = 1.0
    bytes: Positive
    held_out: Share = 0.01

    def _direct_runs(self) -> set[str]:
        return {self.against} if self.against else set()


class Tokenizer(Recipe):
    """Byte-level BPE with the paper's pre-tokenizer."""

    stage: Literal["tokenizer"]
    data: Name
    vocab_size: Annotated[int, Field(ge=272)]  # 256 bytes + 15 special tokens and at least one merge
    padded_vocab_size: Positive | None = None  # rows of the embedding (the paper: 102,400 for 100,015); unset: as many
    sample_bytes: Positive
    shares: dict[str, Share] = Field(default_factory=dict)  # of the sample, by domain; unset: as in the corpus
    max_words: Positive = 10_000_000  # distinct words held in memory while they are counted; the rarest go first
    beside: dict[str, str] = Field(default_factory=dict)  # reference tokenizers in the report: name and folder
    digits: Literal["split", "merged"] = "split"  # the paper splits; `merged` is what recipes/claims measures it against
    template: Literal["deepseek-llm", "chatml"] = "deepseek-llm"

    def _direct_runs(self) -> set[str]:
        return {self.data}


class Shards(Recipe):
    """Documents -> memory-mapped token shards."""

    stage: Literal["shards"]
    data: Name
    tokenizer: Name
    shard_tokens: Positive = 100_000_000

    def _direct_runs(self) -> set[str]:
        return {self.data, self.tokenizer}


class Pretrain(Recipe):
    """A base model from scratch."""

    stage: Literal["pretrain"]
    data: Name
    model: Model
    optim: PretrainOptim
    tokens: Positive
    batch_size: Positive  # sequences per update
    sequence_length: Positive
    init_std: Rate = 0.006  # paper 2.3
    attend_across_documents: bool = True
    mixture: dict[str, Share] | None = None  # weights of the domains; unset: as the shards have them
    max_epochs: Rate | None = None  # passes over the text, of each domain, at most
    guard: Guard = Guard()
    log_every: Positive = 10
    checkpoint_every: Positive = 200
    checkpoint_minutes: Rate | None = None  # also whenever so much time has passed
    validate_every: Positive | None = None
    prompts: tuple[str, ...] = ()  # continued at every validation, into samples.jsonl
    tracker: Literal["tensorboard", "trackio", "wandb"] | None = None  # beside metrics.jsonl

    @model_validator(mode="after")
    def _prompts_have_their_time(self) -> Pretrain:
        if self.prompts and self.validate_every is None:
            raise ValueError("prompts are continued at validations: give validate_every too")
        return self

    def batches(self) -> list[tuple[int, int]]:
        return [(self.batch_size, self.sequence_length)]

    def _direct_runs(self) -> set[str]:
        return {self.data}


# -- from a base model to an aligned one ------------------------------------------------------------------------------


class Mixture(Recipe):
    """Instruction rows, rendered and tokenised, with labels."""

    stage: Literal["mixture"]
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    start: Start  # whose tokenizer and chat template are used
    template: Name | None = None  # the template the model must have; unset keeps its own
    against: Name | None = None  # the run whose held-out sets must not be contained
    max_length: Positive
    validation: Share = 0.02

    def _direct_runs(self) -> set[str]:
        return {self.against} if self.against else set()


class SFT(Recipe):
    """Supervised fine-tuning on answers only."""

    stage: Literal["sft"]
    start: Start
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    optim: Optim
    max_length: Positive
    template: Name | None = None
    adapter: Adapter | None = None

    def batches(self) -> list[tuple[int, int]]:
        return [(self.optim.batch_size, self.max_length)]


class Preferences(Recipe):
    """Sample several answers per problem, verify them, pair right with wrong."""

    stage: Literal["preferences"]
    start: Start
    data: Name
    kinds: Annotated[tuple[Literal["number", "choice", "code", "refusal"], ...], Field(min_length=1)] = (
        "number",
        "choice",
        "code",
        "refusal",
    )
    samples: Annotated[int, Field(ge=2)] = 4
    temperature: Rate = 1.0
    top_p: Share = 1.0
    max_new_tokens: Positive
    pairs_per_problem: Positive = 1

    def _direct_runs(self) -> set[str]:
        return {self.data}


class DPO(Recipe):
    """Direct preference optimisation against the start model."""

    stage: Literal["dpo"]
    start: Start
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    optim: Optim
    beta: Rate = 0.1
    max_length: Positive
    template: Name | None = None
    adapter: Adapter | None = None

    def batches(self) -> list[tuple[int, int]]:
        return [(self.optim.batch_size, self.max_length)]


class Evaluate(Recipe):
    """Models side by side on the same items, and the report."""

    stage: Literal["evaluate"]
    models: Annotated[tuple[Judged, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    data: Name  # the run whose heldout/ is the data root
    pairs: Name | None = None
    reference: Name | None = None  # the chat model whose log-probabilities the implicit reward is measured against
    limit: Positive | None = None
    contamination: tuple[Name, ...] = ()  # runs whose training text the items are looked up in
    invariance: bool = False  # ask some items again, each alone

    @model_serializer(mode="wrap")
    def _asked_for(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the checks that are not asked for: a run from before there were any keeps its fingerprint."""
        return {name: value for name, value in write(self).items() if value or name not in ("contamination", "invariance")}

    @model_validator(mode="after")
    def _scored(self) -> Evaluate:
        scored = [model.run for model in self.models if model.form == "chat"]
        if self.reference and self.reference not in scored:
            raise ValueError(f"reference {self.reference} is not one of the chat models ({', '.join(scored) or 'none'})")
        return self

    def _direct_runs(self) -> set[str]:
        return {name for name in (self.data, self.pairs, self.reference, *self.contamination) if name}


# -- what a choice does -----------------------------------------------------------------------------------------------


class Experiment(Recipe):
    """One recipe with some of its fields varied, over several seeds."""

    stage: Literal["experiment"]
    of: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+$")]  # below recipes/, without .yaml
    over: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]  # dotted field: its values
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    measure: Measure
    budget_cpu_hours: Rate  # no cell is started beyond it; not part of what is learnt

    @model_validator(mode="after")
    def _seeds(self) -> Experiment:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: give every seed once")
        if "seed" in self.over:
            raise ValueError("over.seed: say `seeds:` instead, so that differences are paired")
        return self


class Sweep(Recipe):
    """Small trainings over budgets, model scales, learning rates and batches: what scaling laws are fitted to (paper 3)."""

    stage: Literal["sweep"]
    of: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+$")]  # a pretrain recipe below recipes/
    data: Annotated[tuple[Name, ...], Field(min_length=1)]  # shards beside it: every corpus gets the whole grid
    budgets: Annotated[tuple[Grid, ...], Field(min_length=1)]
    learning_rate: Chosen
    batch_tokens: Chosen
    budget_cpu_hours: Rate  # no cell is started beyond it; not part of what is learnt

    @property
    def over(self) -> dict[str, list[str]]:
        """What is varied of the things that other recipes make."""
        return {"data": list(self.data)}


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
    "evaluate": Evaluate,
    "experiment": Experiment,
    "sweep": Sweep,
}
TRAINING = ("pretrain", "sft", "dpo")


# -- reading ----------------------------------------------------------------------------------------------------------


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
