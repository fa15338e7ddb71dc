"""The sections of a recipe: where a model and its data come from, what is kept of them, and how it is optimised.

The package `recipe` makes stages of them, and is where other modules find them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from alignment.schema import Name, Positive, Rate, Share, Shares, Words

UNPINNED = "unpinned"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")  # the projections of the Llama family


class Start(Words):
    """Where a model comes from: a neighbouring run, a hub name with a revision, or a folder (command line only)."""

    run: Name | None = None
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(default=None, pattern=rf"^([0-9a-f]{{40}}|{UNPINNED})$")
    folder: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Start:
        if sum(value is not None for value in (self.run, self.hub, self.folder)) != 1:
            raise ValueError("give exactly one of run, hub (with revision) and folder")
        if self.hub and not self.revision:
            raise ValueError("a hub name needs a revision: a commit hash, or `unpinned` until `python -m alignment pin`")
        if self.revision and not self.hub:
            raise ValueError("revision goes with hub")
        return self


class Source(Words):
    """Rows of one run or one card."""

    run: Name | None = None
    card: Name | None = None
    rows: Positive | None = None  # the first so many

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.run is None) == (self.card is None):
            raise ValueError("give exactly one of run and card")
        return self


class Blend(Words):
    """So many rows in given shares: what there is more of is capped, what there is less of is read more than once."""

    rows: Positive  # at most; fewer, where a domain's epochs do not suffice
    shares: Annotated[Shares, Field(min_length=1)]  # of the rows, by domain
    languages: Shares | None = None  # of each domain's rows; unset: as they come
    max_epochs: Rate = 1.0
    max_epochs_of: dict[str, Rate] | None = None  # domains with a cap of their own

    @model_validator(mode="after")
    def _caps(self) -> Blend:
        if unknown := sorted(set(self.max_epochs_of or {}) - set(self.shares)):
            raise ValueError(f"max_epochs_of: {', '.join(unknown)} has no share")
        return self


class RawText(Words):
    """Documents of one run, one card, or the Python that is installed."""

    run: Name | None = None
    card: Name | None = None
    installed: Literal["stdlib", "packages"] | None = None  # text that every machine with the requirements has
    files: tuple[str, ...] = ()  # of the card, by pattern (`2024-10/*`); unset: all
    stream: bool = False  # read the card's files from the hub as they come, without a copy here
    ids: tuple[str, ...] = ()  # only documents whose id has one of these patterns (`*:guide/*`)
    text: str = "text"  # the field of a row that holds it
    dump: Annotated[str, Field(min_length=1)] | None = None  # the delivery it belongs to; unset: each file is its own
    domain: str | None = None
    rows: Positive | None = None  # the first so many
    limit_bytes: Positive | None = None
    dedup: bool = True  # False: near-duplicates stay (templated text); exact ones always go
    max_bad_share: Share = 0.01  # of its rows and of its files: with more that cannot be read, the run stops

    @model_validator(mode="after")
    def _one(self) -> RawText:
        if sum(value is not None for value in (self.run, self.card, self.installed)) != 1:
            raise ValueError("give exactly one of run, card and installed")
        if not self.card and (self.files or self.stream or self.text != "text"):
            raise ValueError("files, stream and text go with card")
        return self


class Near(Words):
    """MinHash near-duplicates: candidates by banding, verified by exact Jaccard."""

    shingle: Positive = 5
    hashes: Positive = 112
    bands: Positive = 28  # four rows each: finds 99.9 % of the pairs at J = 0.7, which are then verified
    threshold: Share = 0.7
    keep: Literal["longest", "newest", "best", "first"] = "longest"  # of a cluster; newest and best by fields of the rows


class Strings(Words):
    """Text below whole documents that many repeat. The first document that has it keeps it; code is left whole."""

    line_characters: Positive = 30  # shorter lines may be repeated
    line_documents: Positive = 10  # a line may stand in so many documents
    run_tokens: Positive = 50
    run_documents: Positive = 1  # a run of so many tokens may stand in so many documents


class Model(Words):
    """A preset by name, or a shape in the family's words."""

    preset: str | None = None
    layers: Positive | None = None
    width: Positive | None = None
    heads: Positive | None = None
    kv_heads: Positive | None = None
    ffn: Positive | None = None
    tie: bool | None = None
    kind: Name | None = None  # another decoder of the library by its name (qwen3, olmo2, ...); unset: llama, as in the paper

    @model_validator(mode="after")
    def _whole(self) -> Model:
        shape = (self.layers, self.width, self.heads)
        if self.preset is None and None in shape:
            raise ValueError("give preset, or layers, width and heads")
        return self


class PretrainOptim(Words):
    """AdamW and its schedule (paper 2.3). Warm-up counts updates; what a schedule does not read may not be given."""

    learning_rate: Rate
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip: Rate = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 2000
    schedule: Literal["multi-step", "cosine", "wsd"] = "multi-step"
    turns: tuple[Share, ...] = (0.8, 0.9)  # multi-step: shares of the tokens after which the rate steps down
    factors: tuple[Share, ...] = (0.316, 0.1)  # multi-step: to these shares of the peak
    floor: Share = 0.1  # cosine and wsd: the share of the peak at the end
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1  # wsd: the last share of the tokens, in which the rate falls
    z_loss: Annotated[float, Field(ge=0, le=0.01)] = 0.0  # times the squared log-sum of the logits; not in the paper

    @model_validator(mode="after")
    def _read_by_the_schedule(self) -> PretrainOptim:
        reads = {"multi-step": {"turns", "factors"}, "cosine": {"floor"}, "wsd": {"floor", "decay"}}
        others = {"turns", "factors", "floor", "decay"} - reads[self.schedule]
        if unread := [name for name in others if getattr(self, name) != type(self).model_fields[name].default]:
            raise ValueError(f"the {self.schedule} schedule does not read {', '.join(sorted(unread))}")
        if len(self.turns) != len(self.factors) or list(self.turns) != sorted(set(self.turns)):
            raise ValueError("turns must rise, and each needs its factor")
        return self


class Guard(Words):
    """Updates that are not made: a loss or gradient norm that is no number, or far from those before it."""

    norm: Annotated[float, Field(gt=1)] | None = None  # times the median gradient norm of the last updates
    loss: Rate | None = None  # nats per token above their median loss
    most: Annotated[int, Field(ge=0)] = 3  # so many in a row are left out; one more stops the run


class Optim(Words):
    """Optimisation in the paper's words. `batch_size` counts sequences (or pairs) per update, over the whole machine."""

    LATER: ClassVar[tuple[str, ...]] = ("optimizer",)

    learning_rate: Rate
    batch_size: Positive
    epochs: Annotated[float, Field(gt=0)] = 1.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of all updates
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Rate = 1.0
    # bitsandbytes': moments in 8 bits; pages that leave a full GPU (on a CPU there is nothing to leave, they stay).
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"] = "adamw"


class Watch(Words):
    """Questions that are asked again and again while a model learns: does it stop, or does it loop?"""

    prompts: tuple[str, ...] = ()  # asked as a user
    run: Name | None = None  # a mixture: the questions of its validation rows are asked too
    questions: Positive = 64  # the first so many of them
    every: Positive | None = None  # updates; unset: at the end of an epoch. Before the first and after the last in any case
    max_new_tokens: Positive = 256

    @model_validator(mode="after")
    def _something(self) -> Watch:
        if not self.prompts and not self.run:
            raise ValueError("give prompts, or run (a mixture whose validation questions are asked)")
        return self


class Adapter(Words):
    """What is trained instead of the full weights. The adapter is merged into the full-precision base at the end."""

    LATER: ClassVar[tuple[str, ...]] = ("kind", "base")

    kind: Literal["lora", "rslora", "dora"] = "lora"
    base: Literal["nf4"] | None = None  # QLoRA: the frozen weights in 4 bits (NF4, quantised twice) while it is trained
    rank: Positive = 16
    alpha: Positive = 32  # the product is scaled by alpha / rank; rslora: by alpha / sqrt(rank)
    dropout: Share = 0.0
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = ATTENTION


class Judge(Words):
    """Who compares two answers: a model of ours, or one behind an OpenAI-style endpoint (its key: OPENAI_API_KEY)."""

    start: Start | None = None
    endpoint: Annotated[str, Field(pattern=r"^https?://\S+[^/]$")] | None = None  # without /chat/completions
    model: str | None = None  # as the endpoint calls it
    max_new_tokens: Positive = 16  # the verdict stands first

    @model_validator(mode="after")
    def _one(self) -> Judge:
        if (self.start is None) == (self.endpoint is None) or (self.endpoint is None) != (self.model is None):
            raise ValueError("give start, or endpoint with model")
        return self


class Judged(Words):
    """A model to evaluate: a base in few-shot completion form, or a chat model 0-shot."""

    run: Name
    form: Literal["completion", "chat"]


class Measure(Words):
    """What is read off a cell: one of its closing numbers, or its score on an evaluation task."""

    metric: str | None = None
    task: str | None = None

    @property
    def name(self) -> str:
        """The metric's or task's name."""
        return self.metric or self.task or ""

    @model_validator(mode="after")
    def _one(self) -> Measure:
        if bool(self.metric) == bool(self.task):
            raise ValueError("give exactly one of metric and task")
        return self


class Grid(Words):
    """The runs of a sweep at one budget: every model scale with every seed. C = M D gives their tokens."""

    flops: Rate  # C: training, without embeddings
    scales: Annotated[tuple[Rate, ...], Field(min_length=1)]  # M: FLOPs a token; the nearest real shape is built
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)


class Chosen(Words):
    """A learning rate or batch: values that are all tried, or a power law of the budget."""

    values: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = None
    factor: Rate | None = None
    exponent: float | None = None

    def at(self, flops: float) -> list[float]:
        """The values for a budget."""
        if self.values is not None:
            return list(self.values)
        assert self.factor is not None, "a law without its factor"
        assert self.exponent is not None, "a law without its exponent"
        return [self.factor * flops**self.exponent]

    @model_validator(mode="after")
    def _one(self) -> Chosen:
        if (self.values is None) == (self.factor is None) or (self.factor is None) != (self.exponent is None):
            raise ValueError("give values, or factor and exponent of a law")
        return self
