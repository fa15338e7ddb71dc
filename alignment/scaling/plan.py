"""A budget becomes a run: scale and tokens, a real shape, learning rate, batch, schedule. Answers at once, without torch.

The laws give M and D; the shape that can be built has a scale of its own, from which the tokens follow exactly (C = M D).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignment import hardware
from alignment.errors import HardwareError, RecipeError
from alignment.hardware import Profile
from alignment.models import presets
from alignment.models.presets import Shape
from alignment.scaling import laws, shapes
from alignment.scaling.laws import Power

TURNS = ((0.0, 1.0), (0.8, 0.316), (0.9, 0.1))  # paper 2.3: from this share of the tokens on, this share of the peak
NEAR = 0.05  # of the laws: what lies farther off is said


@dataclass(frozen=True)
class Plan:
    """What a budget buys. Tokens and batches are whole updates and whole sequences."""

    flops: float  # the budget
    scale_law: float  # M and D as the law has them
    tokens_law: float
    shape: Shape
    scale: int  # M of the shape
    sequence: int
    batch_law: float  # tokens
    batch_size: int  # sequences
    learning_rate: float
    updates: int
    warnings: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """All tokens of the run."""
        return self.updates * self.batch_size * self.sequence

    @property
    def warmup(self) -> int:
        """Updates of warm-up."""
        return laws.warmup(self.updates)

    @property
    def operations(self) -> float:
        """All operations of the run: the budget's, and the output layer's, which the machine has to make as well."""
        return self.tokens * (self.scale + head(self.shape))


def head(shape: Shape) -> int:
    """Operations of the output layer for one token."""
    return 6 * shape.vocab * shape.width


def compose(flops: float, law: Power, fitted: tuple[float, float], *, sequence: int, vocab: int, profile: Profile) -> Plan:
    """Plan the run of a budget by a law of the model's scale that was fitted on budgets from `fitted[0]` to `fitted[1]`."""
    scale = law(flops)
    shape = shapes.nearest(scale, sequence, vocab)
    real = presets.flops_per_token(shape, sequence)
    wanted = laws.BATCH_TOKENS(flops)
    size = batch_size(wanted, sequence, profile)
    updates = int(flops / real / (size * sequence))
    warnings = [
        laws.beyond(flops, fitted, "model and tokens"),
        laws.beyond(flops, laws.SCHEDULE_RANGE, "learning rate and batch"),
        _off("the shape's scale", real, scale),
        _off("the batch", size * sequence, wanted),
    ]
    if updates < 1:
        raise RecipeError(
            f"--budget {flops:g}: not one update of {size} sequences of {sequence}. Raise it, or shorten them."
        )
    return Plan(
        flops=flops,
        scale_law=scale,
        tokens_law=flops / scale,
        shape=shape,
        scale=real,
        sequence=sequence,
        batch_law=wanted,
        batch_size=size,
        learning_rate=float(f"{laws.LEARNING_RATE(flops):.3g}"),
        updates=updates,
        warnings=tuple(text for text in warnings if text),
    )


def _off(what: str, found: float, wanted: float) -> str | None:
    if abs(found / wanted - 1) <= NEAR:
        return None
    return f"{what}: {found:.4g} is what can be had, {found / wanted:.3g} times the law's {wanted:.4g}."


def batch_size(tokens: float, sequence: int, profile: Profile) -> int:
    """The batch in whole sequences that every process gets equally many of: in full forward passes where that costs
    no more than a twentieth of the batch, else in shorter ones.
    """
    micro = max(1, profile.micro_tokens // sequence)
    while True:
        unit = profile.processes * micro
        size = unit * max(1, round(tokens / sequence / unit))
        if micro == 1 or abs(size * sequence / tokens - 1) <= NEAR:
            return size
        micro //= 2


# -- budgets in other words -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Processes and what each makes of an hour. None: not stated."""

    processes: int
    peak_flops: float | None
    mfu: float | None
    price_per_hour: float | None

    @classmethod
    def of(cls, profile: Profile, gpus: str | None, mfu: float | None) -> Machine:
        """Take a profile's numbers; `gpus` as in 8xH100 and `mfu` override them."""
        count, peak = profile.processes, profile.peak_flops
        if gpus is not None:
            match = re.fullmatch(r"(\d+)x([A-Za-z0-9]+)", gpus)
            if not match or int(match[1]) < 1:
                raise HardwareError(f"--gpus {gpus}: write a number and a kind, as in 8xH100.")
            if match[2].upper() not in hardware.PEAK_FLOPS:
                known = ", ".join(hardware.PEAK_FLOPS)
                raise HardwareError(f"--gpus {gpus}: {match[2]} is not known ({known}). Or --on a profile with peak_flops.")
            count, peak = int(match[1]), hardware.PEAK_FLOPS[match[2].upper()]
        return cls(count, peak, mfu if mfu is not None else profile.mfu, profile.price_per_hour)

    def speed(self) -> float:
        """Operations a second of all processes. Raises HardwareError where peak or MFU is not stated."""
        if self.peak_flops is None:
            raise HardwareError("the peak is not known: say --gpus 8xH100, or peak_flops in the hardware profile.")
        if self.mfu is None:
            raise HardwareError(
                "the share of the peak that training reaches is not known: say --mfu, or mfu in the hardware profile "
                "(measured: `mfu` in metrics.jsonl of a run, or plan --probe)."
            )
        return self.processes * self.peak_flops * self.mfu

    def hours_for(self, money: float) -> float:
        """Hours of all processes that a sum of money buys."""
        if self.price_per_hour is None:
            raise HardwareError("--dollars: the price is not known: say price_per_hour in the hardware profile (--on).")
        return money / self.price_per_hour / self.processes


def affordable(hours: float, machine: Machine, law: Power, *, sequence: int, vocab: int) -> float:
    """The budget, embeddings left out, of so many hours: the output layer takes its share of them.

    That share depends on the shape, the shape on the budget; they agree after a few rounds.
    """
    flops = operations = hours * 3600 * machine.speed()
    for _ in range(20):
        shape = shapes.nearest(law(flops), sequence, vocab)
        scale = presets.flops_per_token(shape, sequence)
        flops = operations * scale / (scale + head(shape))
    return flops
