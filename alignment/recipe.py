"""Every word a recipe may contain: YAML in, a frozen, checked object out.

`stage:` picks the schema; `section.py` holds the parts that stages are made of, `schema.py` reads strictly and words the
complaints. No torch here: `check` answers at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from alignment import schema
from alignment.errors import RecipeError
from alignment.objectives import ELSEWHERE, Loss, weighed
from alignment.schema import Name, Positive, Rate, Share, Shares, Words, whole
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

    def starts(self) -> dict[str, Start]:
        """Name the models that this recipe reads, each by its place in the recipe."""
        return dict(_starts(self, ""))

    def _direct_runs(self) -> set[str]:
        return set()


def _starts(words: Words, place: str) -> Iterator[tuple[str, Start]]:
    for name in type(words).model_fields:
        value = getattr(words, name)
        if isinstance(value, Start):
            yield f"{place}{name}", value
        elif isinstance(value, Words):
            yield from _starts(value, f"{place}{name}.")


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
    heldout_items: Annotated[int, Field(ge=0)]  # of each held-out set; 0: the run has none
    shares: Annotated[
        dict[Literal["math", "code", "choice", "talk", "refusal", "sum"], Share], Field(min_length=1), AfterValidator(whole)
    ]
    careless: Share = 0.0  # of the instructions that can be verified: bad answers, as collected data has


class Corpus(Recipe):
    """Raw documents -> deduplicated, filtered, decontaminated, remixed documents."""

    stage: Literal["corpus"]
    data: Annotated[tuple[RawText, ...], Field(min_length=1)]
    near: Near = Near()
    strings: Strings | None = None  # lines and long runs that documents repeat; unset: they stay
    filters: Filters = Filters()
    against: Name | None = None  # the run whose held-out sets must not be contained
    shares: Annotated[Shares, Field(min_length=1)]
    languages: Shares = Field(default_factory=dict)  # of each domain's bytes; unset: as they come
    max_epochs: Rate = 1.0
    max_epochs_of: dict[str, Rate] = Field(default_factory=dict)  # domains with a cap of their own
    bytes: Positive
    held_out: Share = 0.01
    max_document_bytes: Positive = 4 << 20  # what is larger is put aside unread
    index: tuple[Name, ...] = ()  # earlier corpus runs that kept their index: what they hold is a duplicate here
    keep_index: bool = False  # keep the unique documents and their signatures, for a later `index:`
    memory_bytes: Positive = 4 << 30  # of all processes together; changes how, not what

    def _direct_runs(self) -> set[str]:
        return {name for name in (self.against, *self.index) if name}

    @model_validator(mode="after")
    def _caps(self) -> Corpus:
        if unknown := sorted(set(self.max_epochs_of) - set(self.shares)):
            raise ValueError(f"max_epochs_of: {', '.join(unknown)} has no share")
        return self


class Tokenizer(Recipe):
    """Byte-level BPE with the paper's pre-tokenizer."""

    stage: Literal["tokenizer"]
    data: Name
    vocab_size: Annotated[int, Field(ge=272)]  # 256 bytes + 15 special tokens and at least one merge
    padded_vocab_size: Positive | None = None  # rows of the embedding (the paper: 102,400 for 100,015); unset: as many
    sample_bytes: Positive
    shares: Shares = Field(default_factory=dict)  # of the sample, by domain; unset: as in the corpus
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
    held_out: Name | None = None  # a corpus whose documents are the held-out split; unset: what `data` holds out
    shard_tokens: Positive = 100_000_000

    def _direct_runs(self) -> set[str]:
        return {name for name in (self.data, self.tokenizer, self.held_out) if name}


class Pretrain(Recipe):
    """A base model from scratch, or from the first phase of a shorter run of the same recipe."""

    LATER: ClassVar[tuple[str, ...]] = ("after",)

    stage: Literal["pretrain"]
    data: Name
    after: Name | None = None  # a shorter run with `keep_turn`: what it learnt before its first turn is not learnt again
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
    keep_turn: bool = False  # keep the state before the first turn of the learning rate, for a longer run to go on from
    validate_every: Positive | None = None
    prompts: tuple[str, ...] = ()  # continued at every validation, into samples.jsonl
    tracker: Literal["tensorboard", "trackio", "wandb"] | None = None  # beside metrics.jsonl

    @model_validator(mode="after")
    def _prompts_have_their_time(self) -> Pretrain:
        if self.prompts and self.validate_every is None:
            raise ValueError("prompts are continued at validations: give validate_every too")
        return self

    @model_validator(mode="after")
    def _has_a_turn(self) -> Pretrain:
        if self.keep_turn and self.optim.schedule == "cosine":
            raise ValueError("keep_turn: a cosine falls from the first update on, so no longer run could go on from it")
        return self

    def batches(self) -> list[tuple[int, int]]:
        return [(self.batch_size, self.sequence_length)]

    def _direct_runs(self) -> set[str]:
        return {self.data, self.after} if self.after else {self.data}


# -- from a base model to an aligned one ------------------------------------------------------------------------------


class Mixture(Recipe):
    """Instruction rows, rendered and tokenised, with labels."""

    LATER: ClassVar[tuple[str, ...]] = ("held_out", "near", "blend")

    stage: Literal["mixture"]
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    start: Start  # whose tokenizer and chat template are used
    template: Name | None = None  # the template the model must have; unset keeps its own
    against: Name | None = None  # the run whose held-out sets must not be contained
    held_out: tuple[Name, ...] = ()  # cards of evaluation sets whose held-out items must not be contained
    near: Near | None = None  # near-duplicates are sought over all sources together; unset: equal rows alone go
    blend: Blend | None = None  # unset: every row once
    max_length: Positive
    overlong: Share = 0.05  # of the rows may be longer and are left out; more, and the doctor refuses
    validation: Share = 0.02

    def _direct_runs(self) -> set[str]:
        return {self.against} if self.against else set()

    @model_validator(mode="after")
    def _told_apart(self) -> Mixture:
        if self.near and self.near.keep in ("newest", "best"):
            raise ValueError(f"near.keep: {self.near.keep}, and instruction rows have no such field. Use longest or first")
        return self


class SFT(Recipe):
    """Supervised fine-tuning on answers only."""

    LATER: ClassVar[tuple[str, ...]] = ("watch", "neftune")

    stage: Literal["sft"]
    start: Start
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    optim: Optim
    max_length: Positive
    overlong: Share = 0.05  # of the rows may be longer and are left out; more, and the doctor refuses
    template: Name | None = None
    adapter: Adapter | None = None
    watch: Watch | None = None  # questions that are asked while it learns
    neftune: Rate | None = None  # alpha of the noise on embeddings (Jain et al., 2023); not in the paper

    def batches(self) -> list[tuple[int, int]]:
        return [(self.optim.batch_size, self.max_length)]


class Preferences(Recipe):
    """Sample several answers per question, find the better ones, and pair them with worse ones."""

    LATER: ClassVar[tuple[str, ...]] = ("prompts", "heldout", "winner", "judge", "reward", "alike", "longer")

    stage: Literal["preferences"]
    start: Start
    data: Name | None = None  # a run with problems, which a rule can judge
    prompts: tuple[Source, ...] = ()  # or instruction rows, whose first question is asked; for a rule they end in "#### 42"
    heldout: Share = 0.1  # of the prompts; problems say themselves which are
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
    winner: Literal["rule", "judge", "reward"] = "rule"
    judge: Judge | None = None  # asked twice, with the answers swapped
    reward: Start | None = None  # a sequence classifier with one label
    alike: Share | None = None  # two answers that share more of their text than this are no pair
    longer: Rate | None = None  # nor are two of which one is more than so many times as long

    def _direct_runs(self) -> set[str]:
        return {self.data} if self.data else set()

    @model_validator(mode="after")
    def _judged(self) -> Preferences:
        if (self.data is None) == (not self.prompts):
            raise ValueError("give data (a run with problems) or prompts, and not both")
        if unread := {"heldout"} & self.model_fields_set if self.data else {"kinds"} & self.model_fields_set:
            raise ValueError(f"{min(unread)} is not read with {'data' if self.data else 'prompts'}. Leave it out")
        if (self.winner == "judge") != (self.judge is not None) or (self.winner == "reward") != (self.reward is not None):
            raise ValueError("winner: judge goes with judge, winner: reward with reward, and neither with another winner")
        return self


class _Preferring(Recipe):
    """What DPO and KTO share."""

    start: Start
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
    optim: Optim
    beta: Rate = 0.1
    max_length: Positive
    overlong: Share = 0.05  # of the pairs may be longer; more, and the doctor refuses
    template: Name | None = None
    adapter: Adapter | None = None

    def batches(self) -> list[tuple[int, int]]:
        return [(self.optim.batch_size, self.max_length)]

    @model_validator(mode="after")
    def _no_dropout(self) -> _Preferring:
        if self.adapter and self.adapter.dropout:
            raise ValueError("adapter.dropout: policy and reference must be one model before the first update. Leave it out")
        return self


class DPO(_Preferring):
    """Direct preference optimisation against the start model; other losses by name, ORPO among them."""

    LATER: ClassVar[tuple[str, ...]] = ("long_prompts", "loss", "label_smoothing", "heldout")

    stage: Literal["dpo"]
    loss: Loss | Annotated[dict[Loss, Rate], Field(min_length=1)] = "sigmoid"  # one, or several with weights
    label_smoothing: Share = 0.0
    long_prompts: Literal["leave out", "cut"] = "leave out"  # cut: at their beginning, answers stay whole
    heldout: Share = 0.0  # of the prompts of cards; a preferences run has held-out pairs of its own

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every loss by name."""
        return weighed(self.loss, self.label_smoothing)  # type: ignore[arg-type]

    @field_validator("loss", mode="before")
    @classmethod
    def _here(cls, loss: Any) -> Any:
        for name in [loss] if isinstance(loss, str) else loss if isinstance(loss, dict) else ():
            if name in ELSEWHERE:
                raise ValueError(f"{name} {ELSEWHERE[name]}")
        return loss

    @model_validator(mode="after")
    def _goes_together(self) -> DPO:
        weighed(self.loss, self.label_smoothing)  # type: ignore[arg-type]
        if self.heldout and not any(source.card for source in self.data):
            raise ValueError("heldout: it is of cards, and no card is named. Leave it out")
        return self


class KTO(_Preferring):
    """Answers judged good or bad, each by itself (Ethayarajh et al. 2024); pairs are read as one of each."""

    stage: Literal["kto"]
    desirable: Rate = 1.0  # the weight of good answers
    undesirable: Rate = 1.0  # and of bad ones


class Evaluate(Recipe):
    """Models side by side on the same items, and the report."""

    LATER: ClassVar[tuple[str, ...]] = ("contamination", "invariance")

    stage: Literal["evaluate"]
    models: Annotated[tuple[Judged, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    data: Name  # the run whose heldout/ is the data root
    pairs: Name | None = None
    reference: Name | None = None  # the chat model whose log-probabilities the implicit reward is measured against
    limit: Positive | None = None
    contamination: tuple[Name, ...] = ()  # runs whose training text the items are looked up in
    invariance: bool = False  # ask some items again, each alone

    @model_validator(mode="after")
    def _scored(self) -> Evaluate:
        scored = [model.run for model in self.models if model.form == "chat"]
        if self.reference and self.reference not in scored:
            raise ValueError(f"reference {self.reference} is not one of the chat models ({', '.join(scored) or 'none'})")
        return self

    def _direct_runs(self) -> set[str]:
        return {name for name in (self.data, self.pairs, self.reference, *self.contamination) if name}


class Reproduce(Recipe):
    """A released model on benchmarks, beside the scores that were published."""

    stage: Literal["reproduce"]
    start: Start
    form: Literal["completion", "chat"]
    published: Annotated[dict[str, Annotated[float, Field(ge=0, le=100)]], Field(min_length=1)]  # per cent, by task
    limit: Positive | None = None  # items a task, at even distances


# -- what a choice does -----------------------------------------------------------------------------------------------


class Experiment(Recipe):
    """One recipe with some of its fields varied, over several seeds."""

    LATER: ClassVar[tuple[str, ...]] = ("seeded", "against_start")

    stage: Literal["experiment"]
    of: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+$")]  # below recipes/, without .yaml
    over: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]  # dotted field: its values
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    seeded: tuple[Name, ...] = ()  # of the recipes that it reads: made anew for every seed
    against_start: bool = False  # the model that the cells start from is measured too, and comes first
    measure: Measure | Annotated[tuple[Measure, ...], Field(min_length=2)]
    budget_cpu_hours: Rate  # no cell is started beyond it; not part of what is learnt

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is read off each cell."""
        return self.measure if isinstance(self.measure, tuple) else (self.measure,)

    @model_validator(mode="after")
    def _one_field(self) -> Experiment:
        if self.against_start and (len(self.over) > 1 or any(field.startswith("start") for field in self.over)):
            raise ValueError("against_start: vary exactly one field then, and not start")
        return self

    @model_validator(mode="after")
    def _seeds(self) -> Experiment:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: give every seed once")
        names = [one.name for one in self.measures]
        if len(set(names)) < len(names):
            raise ValueError("measure: name every metric and task once")
        if "seed" in self.over:
            raise ValueError("over.seed: say `seeds:` instead, so that differences are paired")
        return self


class Sweep(Recipe):
    """Small trainings over budgets, model scales, learning rates and batches: what scaling laws are fitted to (paper 3)."""

    LATER: ClassVar[tuple[str, ...]] = ("share_first_stages",)

    stage: Literal["sweep"]
    of: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+$")]  # a pretrain recipe below recipes/
    data: Annotated[tuple[Name, ...], Field(min_length=1)]  # shards beside it: every corpus gets the whole grid
    budgets: Annotated[tuple[Grid, ...], Field(min_length=1)]
    learning_rate: Chosen
    batch_tokens: Chosen
    share_first_stages: bool = False  # a cell goes on from one that differs in a smaller budget alone (paper 2.3)
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
    "kto": KTO,
    "evaluate": Evaluate,
    "reproduce": Reproduce,
    "experiment": Experiment,
    "sweep": Sweep,
}
TRAINING = ("pretrain", "sft", "dpo", "kto")


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
