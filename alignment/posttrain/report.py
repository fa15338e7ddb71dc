"""What SFT, DPO and KTO log: TRL's numbers in the run's metrics and on its bar, beside speed and what the text cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from alignment import meter
from alignment.errors import ModelError
from alignment.hardware import Hardware
from alignment.models.masters import MasterAdamW
from alignment.run import Progress, Run

Measure = Callable[[Any, Any], Mapping[str, float]]  # the trainer's state and control -> more numbers of this update


@dataclass(frozen=True)
class Size:
    """How large an item of the data is. `bytes`: UTF-8 of the learnt text; 0 where the loss is not about text."""

    tokens: int
    learnt: int
    operations: float
    bytes: int = 0


def operations(model: Any) -> Callable[[int, int], float]:
    """Count the operations that it takes to learn from a sequence of so many tokens, so many of them learnt.

    Per weight and token 2 forward, 2 for the gradient of what came in, and 2 for that of a trained weight; the head
    sees learnt tokens only; attention as in the paper's M (section 3.2). What is recomputed does not count.
    """
    head = model.get_output_embeddings()
    body = [part for part in model.modules() if isinstance(part, nn.Linear) and part is not head]
    per_token, per_learnt = (
        sum((6 if part.weight.requires_grad else 4) * part.in_features * part.out_features for part in parts)
        for parts in (body, [head])  # not weight.numel(): two 4-bit weights are held as one
    )
    attention = 12 * model.config.num_hidden_layers * model.config.hidden_size
    return lambda tokens, learnt: float(tokens * (per_token + attention * tokens) + learnt * per_learnt)


class Report(TrainerCallback):  # type: ignore[misc]
    """Forward what TRL logs to the run's metrics and its bar; stop at a loss that is no number."""

    def __init__(
        self, trainer: Trainer, here: Run, sizes: Sequence[Size], names: Mapping[str, str], bar: Progress, peak: float
    ) -> None:
        self.here, self.names, self.bar = here, {"loss": "loss", "learning_rate": "learning_rate", **names}, bar
        self.batch, self.device = batch_size(trainer), trainer.accelerator.device
        self.masters = trainer.optimizer if isinstance(trainer.optimizer, MasterAdamW) else None
        self.sizes, self.read, self.peak = sizes, list(accumulate(size.tokens for size in sizes)), peak
        self.measure: Measure | None = None
        self.rows: list[dict[str, float]] = []
        self.began = self.before = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.began = self.before = time.monotonic()
        self.bar.advance(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        if "loss" not in logs:
            return  # TRL's closing summary
        seconds = max(time.monotonic() - self.before, 1e-9)
        step = state.global_step
        row = {ours: float(logs[theirs]) for theirs, ours in self.names.items() if theirs in logs}  # not each in every batch
        row["grad_norm"] = float(logs["grad_norm"]) if self.masters is None else self.masters.norm
        if not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"]):
            raise ModelError(
                f"update {step}: loss {row['loss']}, gradient norm {row['grad_norm']}. Nothing was saved from it. "
                "Lower optim.learning_rate, or look at the rows of this update."
            )
        update = self.sizes[(step - 1) * self.batch : step * self.batch]
        self.rows.append(row)
        self.here.log(
            step=step,
            tokens=self.read[step * self.batch - 1],
            **row,
            bits_per_byte=bits_per_byte(row["loss"], update),
            tokens_per_second=round(sum(size.tokens for size in update) / seconds, 1),
            mfu=sum(size.operations for size in update) / seconds / self.peak,
            memory_bytes=meter.memory_bytes(self.device),
            **(self.measure(state, control) if self.measure else {}),
        )
        self.bar.advance(1, loss=row["loss"])
        self.before = time.monotonic()  # what was measured beside the training does not count as its time

    @property
    def seconds(self) -> float:
        """Since the training began."""
        return round(time.monotonic() - self.began, 1)

    def closing(self, *names: str) -> dict[str, float | int | str]:
        """Means over the last tenth of the updates, of those that have the number."""
        last = self.rows[-max(1, len(self.rows) // 10) :]
        found = {name: [row[name] for row in last if name in row] for name in names}
        return {f"train_{name}": sum(values) / len(values) for name, values in found.items() if values}


def total(parts: Iterable[Size]) -> Size:
    """The size of what is learnt together."""
    tokens, learnt, work, text = zip(
        *((part.tokens, part.learnt, part.operations, part.bytes) for part in parts), strict=True
    )
    return Size(sum(tokens), sum(learnt), sum(work), sum(text))


def bits_per_byte(loss: float, update: Sequence[Size]) -> float | None:
    """Say a mean loss per learnt token in bits per byte of the answers that were learnt."""
    learnt, text = sum(size.learnt for size in update), sum(size.bytes for size in update)
    return loss * learnt / math.log(2) / text if text else None


def batch_size(trainer: Trainer) -> int:
    """Items per update, over the whole machine."""
    args = trainer.args
    return int(args.train_batch_size * args.gradient_accumulation_steps * args.world_size)


@contextmanager
def reporting(
    trainer: Trainer, here: Run, hardware: Hardware, what: str, sizes: Sequence[Size], names: Mapping[str, str]
) -> Iterator[Report]:
    """Attach the report to a trainer; `sizes` are those of its items, in order."""
    trainer.remove_callback(PrinterCallback)
    peak = meter.matmul_peak(hardware, trainer.accelerator.device) * trainer.args.world_size
    with here.progress(what, len(sizes) // batch_size(trainer)) as bar:
        report = Report(trainer, here, sizes, names, bar, peak)
        trainer.add_callback(report)
        yield report
