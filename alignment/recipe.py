"""Every word a recipe may contain: YAML in, a frozen, checked object out.

A file is read strictly (no duplicate keys, `5e-6` is a number), `--set a.b=c` edits the same mapping, `stage:` picks
the schema, and every complaint names file, dotted field and, for a typo, the nearest field. No torch here: `check`
answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignment.errors import RecipeError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]  # a run beside this one, a card, a template


class Words(BaseModel):
    """A section of a recipe: unknown words are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Start(Words):
    """Where a model comes from: a neighbouring run, a hub name with a revision, or a folder (command line only)."""

    run: Name | None = None
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = None
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
    """One origin of rows or documents."""

    run: Name | None = None
    card: Name | None = None
    installed: Literal["stdlib", "packages"] | None = None  # text that every machine with the requirements has
    domain: str | None = None
    rows: Positive | None = None  # the first so many
    limit_bytes: Positive | None = None
    dedup: bool = True  # False: near-duplicates stay (templated text); exact ones always go

    @model_validator(mode="after")
    def _one(self) -> Source:
        if sum(value is not None for value in (self.run, self.card, self.installed)) != 1:
            raise ValueError("give exactly one of run, card and installed")
        return self


class Recipe(Words):
    """What every stage has. `fits` names the hardware profiles it was written for; it is not part of what is learnt."""

    stage: str
    seed: int = 0
    fits: tuple[Name, ...] = ("cpu",)

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


class Optim(Words):
    """Optimisation in the paper's words. `batch_size` counts sequences (or pairs) per update, over the whole machine."""

    learning_rate: Rate
    batch_size: Positive
    epochs: Annotated[float, Field(gt=0)] = 1.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Share = 0.0  # share of all updates
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Rate = 1.0


class Adapter(Words):
    """LoRA: what is trained instead of the full weights. The adapter is merged into the base at the end."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


# -- from raw text to a base model ------------------------------------------------------------------------------------


class Curriculum(Recipe):
    """Exercises that we generate ourselves: training documents, instructions, problems, held-out sets."""

    stage: Literal["curriculum"]
    documents: Positive
    instructions: Positive
    problems: Positive
    heldout_problems: Positive
    heldout_items: Positive
    shares: dict[Literal["math", "code", "choice", "talk", "refusal"], Share]


class Near(Words):
    """MinHash near-duplicates: candidates by banding, verified by exact Jaccard."""

    shingle: Positive = 5
    hashes: Positive = 112
    bands: Positive = 28  # four rows each: finds 99.9 % of the pairs at J = 0.7, which are then verified
    threshold: Share = 0.7


class Filters(Words):
    """Quality rules. A document that breaks one goes, and the ledger says which."""

    min_characters: Positive = 200
    max_symbol_share: Share = 0.45
    max_repeated_line_share: Share = 0.3
    min_letter_share: Share = 0.25


class Corpus(Recipe):
    """Raw documents -> deduplicated, filtered, decontaminated, remixed documents."""

    stage: Literal["corpus"]
    data: Annotated[tuple[Source, ...], Field(min_length=1)]
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
    sample_bytes: Positive
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


class Model(Words):
    """A preset by name, or a shape in the family's words."""

    preset: str | None = None
    layers: Positive | None = None
    width: Positive | None = None
    heads: Positive | None = None
    kv_heads: Positive | None = None
    ffn: Positive | None = None
    tie: bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> Model:
        shape = (self.layers, self.width, self.heads)
        if self.preset is None and None in shape:
            raise ValueError("give preset, or layers, width and heads")
        return self


class PretrainOptim(Words):
    """AdamW and its schedule (paper 2.3). Warm-up counts updates."""

    learning_rate: Rate
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    clip: Rate = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 2000
    schedule: Literal["multi-step", "cosine"] = "multi-step"


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
    log_every: Positive = 10
    checkpoint_every: Positive = 200

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
    max_length: Positive
    validation: Share = 0.02


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


class Judged(Words):
    """A model to evaluate: a base in few-shot completion form, or a chat model 0-shot."""

    run: Name
    form: Literal["completion", "chat"]


class Evaluate(Recipe):
    """Models side by side on the same items, and the report."""

    stage: Literal["evaluate"]
    models: Annotated[tuple[Judged, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    data: Name  # the run whose heldout/ is the data root
    pairs: Name | None = None
    reference: Name | None = None  # whose log-probabilities the implicit reward is measured against
    limit: Positive | None = None

    def _direct_runs(self) -> set[str]:
        return {name for name in (self.data, self.pairs, self.reference) if name}


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
}
TRAINING = ("pretrain", "sft", "dpo")


# -- reading ----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `5e-6` is a number and a key may stand only once."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(_\d+)*)?\.?\d+[eE][-+]?\d+$"), list("-+0123456789.")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: {key!r} stands twice. Keep one.")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, where: str) -> Any:
    """Read strict YAML; `where` names the source in a complaint."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecipeError as error:
        raise RecipeError(f"{where}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "the text is not YAML"
        raise RecipeError(f"{where}:{line} {problem}. Mend the YAML.") from None


def edit(raw: dict[str, Any], edits: Iterable[str], where: str) -> dict[str, Any]:
    """Apply `a.b=c` edits to a raw mapping and return the edited copy; the value is read as YAML."""
    for change in edits:
        field, equals, text = change.partition("=")
        keys = field.split(".")
        if not equals or not all(keys):
            raise RecipeError(f"--set {change}: write --set field=value, or --set section.field=value.")
        value = parse(text, f"--set {field}")
        raw = _replaced(raw, keys, value, where, field)
    return raw


def _replaced(raw: Any, keys: list[str], value: Any, where: str, field: str) -> Any:
    if isinstance(raw, list):
        if not keys[0].isdigit() or int(keys[0]) >= len(raw):
            raise RecipeError(f"{where}: --set {field}: {keys[0]!r} is not an item of a list of {len(raw)}.")
        items = list(raw)
        items[int(keys[0])] = _replaced(raw[int(keys[0])], keys[1:], value, where, field) if keys[1:] else value
        return items
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: --set {field}: the part before .{keys[0]} is a value, not a section.")
    inner = _replaced(raw.get(keys[0], {}), keys[1:], value, where, field) if keys[1:] else value
    return {**raw, keys[0]: inner}


def load(path: Path, edits: Iterable[str] = ()) -> Recipe:
    """Read one recipe file with its edits. Raises RecipeError naming file, field and the nearest known field."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe. Name a .yaml file or a folder of them.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    raw = parse(text, str(path))
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping that begins with `stage:`; this is {type(raw).__name__}.")
    return validate(edit(raw, edits, str(path)), str(path))


def validate(raw: Mapping[str, Any], where: str) -> Recipe:
    """Turn a raw mapping into the stage's recipe."""
    stage = raw.get("stage")
    if stage not in STAGES:
        near = get_close_matches(str(stage), STAGES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"{where}: stage: {stage!r} is not a stage.{hint} Stages: {', '.join(STAGES)}.")
    try:
        return STAGES[stage].model_validate(dict(raw))
    except ValidationError as error:
        lines = [_complaint(where, STAGES[stage], issue) for issue in error.errors()]
        raise RecipeError("\n".join(lines)) from None


def _complaint(where: str, schema: type[Words], issue: Any) -> str:
    parts = [str(part) for part in issue["loc"]]
    dotted = ".".join(parts) or "recipe"
    if issue["type"] == "extra_forbidden":
        known = _fields(schema, parts[:-1])
        near = get_close_matches(parts[-1], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Known fields: {', '.join(known)}."
        return f"{where}: {dotted}: unknown field.{hint}"
    if issue["type"] == "missing":
        return f"{where}: {dotted}: missing. This stage needs it."
    message = issue["msg"].removeprefix("Value error, ")
    given = "" if isinstance(issue["input"], dict | list) else f", not {issue['input']!r}"
    return f"{where}: {dotted}: {message[0].lower()}{message[1:]}{given}."


def _fields(schema: Any, path: list[str]) -> list[str]:
    """The field names at a dotted path of a schema; list positions are passed through."""
    for part in path:
        if part.isdigit():
            continue
        field = schema.model_fields.get(part)
        schema = _section(field.annotation) if field else None
        if schema is None:
            return []
    return list(schema.model_fields)


def _section(annotation: Any) -> type[Words] | None:
    if isinstance(annotation, type) and issubclass(annotation, Words):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner))), None)
