"""What `sft.py` and `dpo.py` share: how each update is timed on both sides, and TRL's settings that are not its defaults."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignment.run import Run

Seen = dict[str, list[float]]  # of every update: CPU seconds at its end, loss, and what the benchmark adds
PLAIN = {
    "use_cpu": True,
    "lr_scheduler_type": "constant",
    "train_sampling_strategy": "sequential",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "num_train_epochs": 1,
}  # the same rows in the same order, and nothing written or sent


def note(seen: Seen, loss: float) -> None:
    """Note that an update has ended."""
    seen["clock"].append(time.process_time())
    seen["loss"].append(loss)


def opened(place: Path, cards: Mapping[str, Any], seen: Seen) -> Run:
    """Our side: a run that notes its updates where it would log them."""

    class Timed(Run):
        def log(self, **row: Any) -> None:
            note(seen, row["loss"])

    return Timed(place, {}, cards, True, False, {})


class Ticks(TrainerCallback):  # type: ignore[misc]
    """TRL's side: notes the updates that it logs."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def on_log(self, args: object, state: object, control: object, logs: dict[str, float], **_: object) -> None:  # noqa: ARG002
        """Note an update."""
        if "loss" in logs:
            note(self.seen, logs["loss"])
