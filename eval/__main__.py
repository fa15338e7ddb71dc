"""Score a model: `python -m eval MODEL_OR_RUN --tasks a,b`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from alignment import hardware, run, terminal
from alignment.errors import DataError
from eval import harness, tasks
from eval.evaluate import identity
from eval.task import Form, Task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="A run directory, a model folder, or ORG/NAME@REVISION.")],
    task_names: Annotated[str, typer.Option("--tasks", help=f"Comma-separated: {', '.join(tasks.TASKS)}.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Items a task, at even distances.")] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="The folder that holds gsm8k/, humaneval/, ...; mini-* of a run: its own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go; RUN/eval, or reports/NAME.")] = None,
    on: Annotated[str, typer.Option(help="Hardware profile.")] = "cpu",
    asked: Annotated[
        Literal["auto", "completion", "chat"],
        typer.Option("--form", help="Few-shot completion or 0-shot chat; auto: a base model completes."),
    ] = "auto",
) -> None:
    """Score a model on benchmarks, with 95 % intervals, and save every answer."""
    wanted = tasks.named([name.strip() for name in task_names.split(",") if name.strip()])
    data_root = data_root or heldout(model, wanted)
    items = sum(len(harness.spread(task.items(data_root), limit)) for task in wanted)  # bad data is said before weights load
    machine = hardware.prepare(on)
    from alignment.generate import engine

    loaded = engine.load(model, machine)
    judged = harness.Judged(loaded, identity(model), form(model, loaded.has_template) if asked == "auto" else asked)
    place = out or default_out(model)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=terminal.console(), transient=True) as bar:
        asking = bar.add_task("asking", total=items)
        report = harness.evaluate(judged, wanted, data_root, place, limit=limit, advance=lambda n: bar.advance(asking, n))
    terminal.console().print(table([report["tasks"][task.name] for task in wanted], model, judged.form))
    terminal.console().print(f"{place / 'report.json'}", markup=False)


def form(model: str, has_template: bool) -> Form:
    """A base model continues examples, a chat model is asked. Ours all carry a template; a pretrain run is a base."""
    path = Path(model)
    base = run.is_run(path) and run.read_manifest(path)["stage"] == "pretrain"
    return "chat" if has_template and not base else "completion"


def heldout(model: str, wanted: list[Task]) -> Path:
    """The held-out sets of the curriculum that a run of ours was made from. Raises DataError where there are none."""
    found = _curriculum(Path(model)) if run.is_run(Path(model)) else None
    if found is None or not all(task.name.startswith("mini-") for task in wanted):
        folders = ", ".join(f"{task.name}/" for task in wanted)
        raise DataError(f"--data-root: missing. Name the folder that holds {folders}.")
    return found / "heldout"


def _curriculum(path: Path) -> Path | None:
    manifest = run.read_manifest(path)
    if manifest["stage"] == "curriculum":
        return path
    before = [path.parent / name for name in manifest["inputs"]]
    return next((found for place in before if run.is_run(place) and (found := _curriculum(place))), None)


def default_out(model: str) -> Path:
    """RUN/eval for a run, reports/NAME for any other model."""
    path = Path(model)
    return path / "eval" if run.is_run(path) else Path("reports") / Path(model.partition("@")[0]).name


def table(found: list[dict[str, Any]], model: str, asked: Form) -> Table:
    """The scores for a terminal."""
    shown = Table(title=f"{model} ({asked})", title_justify="left")
    for column in ("task", "n", "score", "95 %", "shots", "unread", "ended"):
        shown.add_column(column, justify="left" if column == "task" else "right")
    for task in found:
        low, high = (f"{end:.1%}" for end in task["interval"])
        least, most = task["shots"]["least"], task["shots"]["most"]
        shots = str(most) if least == most else f"{least}-{most}"
        ended = "" if task["stop_rate"] is None else f"{task['stop_rate']:.0%}"
        row = (task["name"], task["n"], f"{task['score']:.1%}", f"{low} - {high}", shots, task["unread"], ended)
        shown.add_row(*map(str, row))
    return shown


if __name__ == "__main__":
    sys.exit(terminal.guarded(lambda: app(prog_name="python -m eval", standalone_mode=False), resumes=False))
