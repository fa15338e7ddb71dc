"""Score a model: `python -m eval MODEL_OR_RUN --tasks a,b`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from alignment import hardware, run
from alignment.errors import DataError, PlumblineError
from eval import harness, tasks
from eval.evaluate import identity
from eval.task import Form

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="A run directory, a model folder, or ORG/NAME@REVISION.")],
    task_names: Annotated[str, typer.Option("--tasks", help=f"Comma-separated: {', '.join(tasks.TASKS)}.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Items a task, at even distances.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="The folder that holds gsm8k/, humaneval/, ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go; RUN/eval, or reports/NAME.")] = None,
    on: Annotated[str, typer.Option(help="Hardware profile.")] = "cpu",
) -> None:
    """Score a model on benchmarks, with 95 % intervals, and save every answer."""
    try:
        _score(model, task_names, limit, data_root, out, on)
    except PlumblineError as error:
        run.console().print(str(error), style="red", markup=False)
        raise typer.Exit(2) from None


def _score(model: str, task_names: str, limit: int | None, data_root: Path | None, out: Path | None, on: str) -> None:
    wanted = tasks.named([name.strip() for name in task_names.split(",") if name.strip()])
    if data_root is None:
        folders = ", ".join(f"{task.name}/" for task in wanted)
        raise DataError(f"--data-root: missing. Name the folder that holds {folders}.")
    items = sum(len(harness.spread(task.items(data_root), limit)) for task in wanted)  # bad data is said before weights load
    machine = hardware.prepare(on)
    from alignment.generate import engine

    loaded = engine.load(model, machine)
    judged = harness.Judged(loaded, identity(model), form(model, loaded.has_template))
    place = out or default_out(model)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=run.console(), transient=True) as bar:
        asking = bar.add_task("asking", total=items)
        report = harness.evaluate(judged, wanted, data_root, place, limit=limit, advance=lambda n: bar.advance(asking, n))
    run.console().print(table([report["tasks"][task.name] for task in wanted], model, judged.form))
    run.console().print(f"{place / 'report.json'}", markup=False)


def form(model: str, has_template: bool) -> Form:
    """A base model continues examples, a chat model is asked. Ours all carry a template; a pretrain run is a base."""
    path = Path(model)
    base = run.is_run(path) and run.read_manifest(path)["stage"] == "pretrain"
    return "chat" if has_template and not base else "completion"


def default_out(model: str) -> Path:
    """RUN/eval for a run, reports/NAME for any other model."""
    path = Path(model)
    return path / "eval" if run.is_run(path) else Path("reports") / Path(model.partition("@")[0]).name


def table(found: list[dict[str, Any]], model: str, asked: Form) -> Table:
    """The scores for a terminal."""
    shown = Table(title=f"{model} ({asked})", title_justify="left")
    for column in ("task", "n", "score", "95 %", "shots", "unread", "stopped"):
        shown.add_column(column, justify="left" if column == "task" else "right")
    for task in found:
        low, high = (f"{end:.1%}" for end in task["interval"])
        least, most = task["shots"]["least"], task["shots"]["most"]
        shots = str(most) if least == most else f"{least}-{most}"
        stopped = "" if task["stop_rate"] is None else f"{task['stop_rate']:.0%}"
        row = (task["name"], task["n"], f"{task['score']:.1%}", f"{low} - {high}", shots, task["unread"], stopped)
        shown.add_row(*map(str, row))
    return shown


if __name__ == "__main__":
    app(prog_name="python -m eval")
