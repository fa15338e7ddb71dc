"""Score the checkpoints of a pre-training run as they appear: `python -m eval RUN --watch`. The trainer knows nothing of it.

    RUN/checkpoints/step-N -> a model folder for the time being -> RUN/eval/step-N/report.json -> a line of checkpoints.jsonl

Both lie outside the run's seal. Started again, it goes on where it stopped; it ends after the finished run's own model.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment import hardware, run, terminal
from alignment.errors import DataError
from alignment.hardware import Hardware
from eval import harness, journal, tasks
from eval.harness import Judged
from eval.task import Task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
SCORES = "checkpoints.jsonl"


@app.command()
def main(
    path: Annotated[Path, typer.Argument(help="The directory of a pre-training run, unfinished or not.", metavar="RUN")],
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run's checkpoints.")] = True,  # noqa: ARG001
    task_names: Annotated[str, typer.Option("--tasks", help="Comma-separated; default: the run's own held-out sets.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Items a task, at even distances.")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="The folder that holds gsm8k/, ...; mini-* of a run: its own.")
    ] = None,
    on: Annotated[str, typer.Option(help="Hardware profile.")] = "cpu",
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="Between two looks.")] = 10.0,
) -> None:
    """Score the checkpoints of a run as they appear, until it is finished. Ctrl-C ends it sooner."""
    from eval.__main__ import heldout

    words = [word.strip() for word in task_names.split(",") if word.strip()]
    wanted = tasks.named(words) if words else own(path)
    root = data_root or heldout(str(path), wanted)
    for row in follow(path, wanted, root, hardware.prepare(on), limit=limit, poll_seconds=poll_seconds):
        scores = ", ".join(f"{name} {score:.1%}" for name, score in row["scores"].items())
        terminal.console().print(f"step {row['step']:,}: {scores}", markup=False)


def own(path: Path) -> list[Task]:
    """The tasks whose items the run's own curriculum has kept apart."""
    from eval.__main__ import heldout

    mini = [task for name, task in tasks.TASKS.items() if name.startswith("mini-")]
    root = heldout(str(path), mini[:1])
    return [task for task in mini if root is not None and (root / task.name).is_dir()]


@dataclass(frozen=True)
class Found:
    """A model to score: the step it was made at, its folder, and what tells it from others."""

    step: int
    folder: Path
    identity: str


def follow(
    path: Path, wanted: Sequence[Task], root: Path | None, machine: Hardware, *, limit: int | None, poll_seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield a row of scores for each checkpoint, in order, and at last for the finished model.

    Raises DataError for a run of another stage.
    """
    if (stage := run.read_manifest(path)["stage"]) != "pretrain":
        raise DataError(f"{path}: a {stage} run has no checkpoints that can be scored. Leave --watch out.")
    scores, passed, gone = path / "eval" / SCORES, set[int](), set[int]()
    while True:
        finished = run.read_manifest(path)["finished"]  # before the list: what appears in between is seen next time
        passed |= {row["step"] for row in journal.read_rows(scores)}
        new = [step for step in _steps(path) if step not in passed | gone]
        for step in new:
            try:
                row = _checkpoint(path, step, wanted, root, machine, limit)
            except FileNotFoundError:  # the trainer keeps only the newest
                terminal.console().print(f"step {step:,}: gone before it could be read", markup=False)
                gone.add(step)
                continue
            journal.append(scores, row)
            yield row
        if finished and not new:
            break
        if not new:
            time.sleep(poll_seconds)
    last = run.read(path)
    step = int(last.numbers["updates"])
    if step not in passed:
        row = _scored(Found(step, path / "model", f"{last.fingerprint}@{step}"), path, wanted, root, machine, limit)
        journal.append(scores, row)
        yield row


def _steps(path: Path) -> list[int]:
    names = (found.name.removeprefix("step-") for found in (path / "checkpoints").glob("step-*"))
    return sorted(int(name) for name in names if name.isdigit())


def _checkpoint(
    path: Path, step: int, wanted: Sequence[Task], root: Path | None, machine: Hardware, limit: int | None
) -> dict[str, Any]:
    """Make a model folder of a checkpoint, score it, and let it go."""
    from alignment.models import midway

    with tempfile.TemporaryDirectory() as place:
        midway.write(path, step, machine, Path(place) / "model")
        found = Found(step, Path(place) / "model", f"{run.read_manifest(path)['fingerprint']}@{step}")
        return _scored(found, path, wanted, root, machine, limit)


def _scored(
    found: Found, path: Path, wanted: Sequence[Task], root: Path | None, machine: Hardware, limit: int | None
) -> dict[str, Any]:
    from alignment.generate import engine

    judged = Judged(engine.load(found.folder, machine), found.identity, "completion")
    report = harness.evaluate(judged, wanted, root, path / "eval" / f"step-{found.step}", limit=limit)
    marks = {task.name: report["tasks"][task.name] for task in wanted}
    return {
        "step": found.step,
        "scores": {name: mark["score"] for name, mark in marks.items()},
        "intervals": {name: mark["interval"] for name, mark in marks.items()},
    }
