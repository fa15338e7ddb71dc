"""What was asked of `plan`, and the answer. Only a probe loads torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alignment import hardware, recipe
from alignment.errors import HardwareError, RecipeError
from alignment.hardware import Profile
from alignment.scaling import costs, launch, laws
from alignment.scaling import plan as planning
from alignment.scaling.laws import Interval, Power
from alignment.scaling.plan import Machine, Plan

AMOUNTS = {"budget": "FLOPs", "hours": "hours", "dollars": "money", "mfu": "a share of the peak"}


@dataclass(frozen=True)
class Request:
    """The words of the command."""

    budget: float | None
    gpus: str | None
    hours: float | None
    dollars: float | None
    on: str
    mfu: float | None
    data_quality: str
    pivot: str | None
    sequence: int
    like: Path

    def __post_init__(self) -> None:
        """Refuse amounts that are none."""
        for name, what in AMOUNTS.items():
            if (said := getattr(self, name)) is not None:
                laws.check_amount(said, f"--{name}", what)

    @cached_property
    def profile(self) -> Profile:
        """The hardware profile."""
        return hardware.read(self.on)

    @cached_property
    def machine(self) -> Machine:
        """What computes."""
        return Machine.of(self.profile, self.gpus, self.mfu)

    @cached_property
    def law(self) -> tuple[Power, tuple[float, float]]:
        """The law of M for this data, and the budgets it was fitted on."""
        found = Path(self.data_quality) / "fit.json"
        if not found.exists():
            return laws.split(self.data_quality, _pivot(self.pivot)), laws.SPLIT_RANGE
        if self.pivot is not None:
            raise RecipeError("--pivot: a fit has its own factor. Leave it out.")
        said = json.loads(found.read_text(encoding="utf-8"))
        if "isoflop" not in said:
            raise RecipeError(f"{found}: has no IsoFLOP fit. Fit a sweep over model scales.")
        scale, (low, high) = said["isoflop"]["scale"], said["isoflop"]["range"]
        return Power(scale["factor"], scale["exponent"]), (low, high)

    def plan(self) -> Plan:
        """The plan for the budget, however it was said."""
        law, fitted = self.law
        _, _, vocab = launch.preparation(self.like)
        flops = self._flops(law, vocab)
        return planning.compose(flops, law, fitted, sequence=self.sequence, vocab=vocab, profile=self.profile)

    def _flops(self, law: Power, vocab: int) -> float:
        hours = self.hours
        if self.budget is not None and self.dollars is None and hours is None:
            return self.budget
        if self.dollars is not None and self.budget is None and hours is None:
            hours = self.machine.hours_for(self.dollars)
        elif hours is None or self.budget is not None or self.dollars is not None:
            raise RecipeError("give one of --budget FLOPS, --hours (of --gpus 8xH100, or of the profile), --dollars.")
        return planning.affordable(hours, self.machine, law, sequence=self.sequence, vocab=vocab)

    def loss(self, flops: float) -> Interval | None:
        """The loss that a fit predicts; None for published laws, whose constants are not stated (paper 3.2)."""
        folder = Path(self.data_quality)
        if not (folder / "fit.json").exists():
            return None
        from alignment.scaling import fit, isoflop

        return isoflop.Fit.of(*isoflop.basins(fit.rows(folder))).loss_at(flops)


def answer(asked: Request, *, probe: bool) -> Iterator[str]:
    """Say the plan, after a probe with the speed that it measured."""
    plan = asked.plan()
    speed = None
    if probe:
        speed, text = _probed(asked, plan)
        yield text
    yield from costs.lines(plan, asked.on, asked.machine, asked.loss(plan.flops), speed)


def _probed(asked: Request, plan: Plan) -> tuple[float, str]:
    if asked.gpus is not None:
        raise HardwareError("--probe measures this machine: leave --gpus out and name its profile with --on.")
    machine = hardware.prepare(asked.on)
    expected = costs.held(plan, asked.on, asked.profile, asked.profile.recompute)
    assert expected is not None, f"{plan.batch_size} was chosen for {asked.on}"
    hardware.check_memory(machine, expected.total)  # before torch is loaded, which takes a while
    from alignment.scaling import probe

    words = recipe.validate(
        {
            "stage": "pretrain",
            "data": "shards",
            "model": {"layers": plan.shape.layers, "width": plan.shape.width, "heads": plan.shape.heads},
            "optim": {"learning_rate": plan.learning_rate},
            "tokens": plan.tokens,
            "batch_size": plan.batch_size,
            "sequence_length": plan.sequence,
        },
        "probe",
    )
    assert isinstance(words, recipe.Pretrain), "said so above"
    found = probe.measure(plan, machine, words)
    text = (
        f"probe        {probe.STEPS} steps here: {found.tokens_per_second:,.0f} tokens a second, mfu {found.mfu:.3f}; "
        f"{found.memory_bytes / costs.GIB:.2f} GiB held, {expected.total / costs.GIB:.2f} reckoned without the libraries"
    )
    return found.tokens_per_second, text


def _pivot(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        flops, scale = map(float, text.split(":"))
    except ValueError:
        flops = scale = 0.0
    if not (0 < flops < math.inf and 0 < scale < math.inf):
        raise RecipeError(f"--pivot {text}: write FLOPS:SCALE, as in 1e17:1.4e8.")
    return flops, scale
