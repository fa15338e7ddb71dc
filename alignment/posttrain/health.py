"""What a preference training does beside its loss: margins by length, drift from the reference, and alarms.

`Monitor` notes every answer of an update and gives its numbers to the report; the first update must find policy and
reference to be one model. An alarm is said once and counted in the run's numbers; it stops nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import gather_object
from transformers import TrainerCallback

from alignment.errors import ModelError
from alignment.hardware import Hardware
from alignment.run import Run

WINDOW = 20  # updates that an alarm looks back on
FALLEN = -0.1  # nats per token that chosen answers lost: one of 100 tokens is 20,000 times less likely than it was
DRIFT = 0.5  # nats per token between reference and policy
BY_LENGTH = 0.5  # correlation of margins with how much longer the chosen answer is
STUCK = 1e-3  # margin
BUCKETS = ("short", "middle", "long")
SAME = {"float32": 1e-4, "bfloat16": 1e-2}  # nats per token: what rounding leaves between two passes of one model
FIRST = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first loss


class Seen(NamedTuple):
    """A pair in an update: tokens of its answers, and the nats each gained over the reference."""

    chosen: int
    rejected: int
    chosen_gain: float
    rejected_gain: float

    @property
    def margin(self) -> float:
        """By how many nats the chosen answer gained more."""
        return self.chosen_gain - self.rejected_gain


class Monitor:
    """Collects the pairs of an update. `lengths`: tokens of both answers of all pairs, which set the buckets."""

    def __init__(self, here: Run, lengths: Sequence[int], beta: float, dtype: str) -> None:
        self.here, self.beta, self.dtype = here, beta, dtype
        self.edges = np.quantile(lengths, [1 / 3, 2 / 3])
        self.now: list[Seen] = []
        self.window: deque[list[Seen]] = deque(maxlen=WINDOW)
        self.alarms: list[str] = []

    def note(self, pairs: Sequence[Seen]) -> None:
        """Keep the pairs of one forward pass."""
        self.now += pairs

    def __call__(self, state: Any, control: Any) -> Mapping[str, float | None]:  # noqa: ARG002
        """The numbers of this update, over all ranks."""
        update, self.now = gather_object(self.now), []
        self.window.append(update)
        if state.global_step == 1:
            self._same(update)
        for alarm in self._found(state):
            if alarm.split(":")[0] not in {known.split(":")[0] for known in self.alarms}:
                self.alarms.append(alarm)
                self.here.say(f"alarm at update {state.global_step}: {alarm}")
        return numbers(update, self.edges, self.beta)

    def _same(self, update: Sequence[Seen]) -> None:
        drift = max(abs(_per_token(update, side)) for side in ("chosen", "rejected"))
        if drift > SAME[self.dtype]:
            raise ModelError(
                f"before the first update answers are {drift:.2g} nats per token away from the reference, KL is not 0: "
                "policy and reference are not one model. This is a fault of the stage or of the libraries."
            )

    def _found(self, state: Any) -> Iterator[str]:
        if len(self.window) < WINDOW:
            return
        pairs = [one for update in self.window for one in update]
        gained = _per_token(pairs, "chosen")
        if gained < FALLEN:
            yield f"chosen answers fall: {gained:+.3f} nats per token. Lower the learning rate, or raise beta"
        if (drift := kl(pairs)) > DRIFT:
            yield f"the policy drifts: {drift:.3f} nats per token. Lower the learning rate, or raise beta"
        margins, longer = [one.margin for one in pairs], [one.chosen - one.rejected for one in pairs]
        if np.std(margins) > 0 and np.std(longer) > 0:
            found = float(np.corrcoef(margins, longer)[0, 1])
            if found > BY_LENGTH:
                yield f"length is learnt: margins follow how much longer the chosen answer is (r {found:.2f})"
        if state.global_step > state.max_steps / 2 and abs(self.beta * float(np.mean(margins))) < STUCK:
            yield "nothing is learnt: the mean margin is still 0. Raise the learning rate, or look at the pairs"


def numbers(pairs: Sequence[Seen], edges: Sequence[float], beta: float) -> dict[str, float | None]:
    """Say an update in numbers; a bucket that no pair fell into has none."""
    where = np.digitize([one.chosen + one.rejected for one in pairs], edges, right=True)
    margins = np.array([beta * one.margin for one in pairs])
    buckets = {
        f"margin_{name}": float(margins[where == i].mean()) if (where == i).any() else None for i, name in enumerate(BUCKETS)
    }
    return {"kl": kl(pairs), "chosen_gain": _per_token(pairs, "chosen"), **buckets}


def kl(pairs: Sequence[Seen]) -> float:
    """Nats per token that the answers lost: KL(reference, policy) where the reference wrote them, as in the paper."""
    lost = -sum(one.chosen_gain + one.rejected_gain for one in pairs)
    return lost / sum(one.chosen + one.rejected for one in pairs)


def _per_token(pairs: Sequence[Seen], side: str) -> float:
    gained = sum(getattr(one, f"{side}_gain") for one in pairs)
    return float(gained / sum(getattr(one, side) for one in pairs))


class FirstLoss(TrainerCallback):  # type: ignore[misc]
    """Stop if policy and reference are not one model before the first update: `expected` is the loss if they are."""

    def __init__(self, expected: float, name: str, hardware: Hardware) -> None:
        self.expected, self.name, self.near = expected, name, FIRST[hardware.dtype]

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        if state.global_step == 1 and "loss" in logs and abs(logs["loss"] - self.expected) > self.near:
            raise ModelError(
                f"the first loss is {logs['loss']:.4f}, not {self.name} = {self.expected:.4f}: policy and reference are not "
                "one model. This is a fault of the stage or of the libraries; nothing was trained."
            )
