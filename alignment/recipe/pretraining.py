"""The words of the stages from raw text to a base model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from alignment.recipe.base import Recipe
from alignment.schema import Name, Positive, Rate, Share, Shares, whole
from alignment.section import Guard, Model, Near, PretrainOptim, RawText, Strings
from alignment.sieve import Filters


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
