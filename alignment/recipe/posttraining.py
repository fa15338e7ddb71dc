"""The words of the stages from a base model to an aligned one."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from alignment.objectives import ELSEWHERE, Loss, weighed
from alignment.recipe.base import Recipe
from alignment.schema import Name, Positive, Rate, Share
from alignment.section import Adapter, Blend, Judge, Near, Optim, Source, Start, Watch


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
