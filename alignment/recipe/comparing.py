"""The words of the stages that compare: models on benchmarks, and what a choice does to a model."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from alignment.recipe.base import Recipe
from alignment.schema import Name, Positive, Rate
from alignment.section import Chosen, Grid, Judged, Measure, Start


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
