"""Score a model: `python -m eval MODEL_OR_RUN --tasks a,b`. A first word out of `COMMANDS` does something else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from alignment import hardware, run, terminal
from alignment.corpus.index import Index
from alignment.errors import DataError, ModelError
from alignment.verify import sandbox
from eval import contamination as marking
from eval import harness, invariance, journal, ranks, tasks
from eval.evaluate import identity
from eval.task import Form, Task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# A command is a module with an `app` of its own, imported when it is named; any other first word is a model to score.
COMMANDS = {"compare": "eval.compare", "items": "eval.items", "text": "eval.text"}

SEVERAL = "Answers an item; several, for pass@k and maj@n, are drawn at temperature {}, top-p {}.".format(*harness.SAMPLED)


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
    kind: Annotated[
        Literal["plumbline", "vllm"],
        typer.Option("--engine", help="What runs the model; vllm needs a GPU and vLLM installed."),
    ] = "plumbline",
    asked: Annotated[
        Literal["auto", "completion", "chat"],
        typer.Option("--form", help="Few-shot completion or 0-shot chat; auto: a base model completes."),
    ] = "auto",
    protocol: Annotated[
        Literal["paper", "lm-eval"],
        typer.Option(help=f"Whose prompts, stops and readings. lm-eval has {', '.join(tasks.PROTOCOLS['lm-eval'])}."),
    ] = "paper",
    subjects: Annotated[str, typer.Option(help="Comma-separated subjects of ceval, mmlu or cmmlu; default: all.")] = "",
    shots: Annotated[int | None, typer.Option(min=0, help="Worked examples; default: the protocol's.")] = None,
    samples: Annotated[int, typer.Option(min=1, help=SEVERAL)] = 1,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="Of answers that are drawn.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens of this mass.")
    ] = None,
    contamination: Annotated[
        Path | None, typer.Option(help="An index of training text; also scores the items that are not in it.")
    ] = None,
    verify_invariance: Annotated[bool, typer.Option(help="Ask 5 % of the items again, each alone, and name flips.")] = False,
    run_code_unprotected: Annotated[
        bool, typer.Option("--run-code-unprotected", help="Run model-written code even where the system grants no limits.")
    ] = False,
) -> None:
    """Score a model on benchmarks, with 95 % intervals, and save every answer.

    Besides, there are compare, items and text: `python -m eval compare --help`; and a run's checkpoints are scored as
    they appear: `python -m eval RUN --watch`.
    """
    if run_code_unprotected:
        sandbox.accept_unprotected()
    _is_there(model)
    wanted = tasks.named(_words(task_names), protocol, _words(subjects))
    root = data_root or heldout(model, wanted)
    items = sum(len(harness.spread(task.items(root), limit)) for task in wanted)  # bad data is said before weights load
    trained = Index(contamination) if contamination else None
    machine = hardware.prepare(on)
    place = out or default_out(model)
    with ranks.joined(machine) as here, journal.held(place, here):
        loaded = opened(model, ranks.placed(machine), kind)
        chosen = form(model, loaded.has_template, protocol) if asked == "auto" else asked
        _fits(chosen, protocol, shots)
        judged = harness.Judged(loaded, identity(model), chosen, shots, samples, temperature, top_p)
        with _asking(items, show=here.first) as advance:
            report = harness.evaluate(judged, wanted, root, place, limit=limit, advance=advance, ranks=here)
        if not here.first:
            return
        _show(report, wanted, model, place)
        scored = [report["tasks"][task.name] for task in wanted if task.name in report["tasks"]]
        if verify_invariance:
            invariance.verify(judged, wanted, root, place, report, limit=limit)
            _say(invariance.line(task["name"], task["invariance"]) for task in scored)
        if trained:
            marking.mark(report, wanted, root, place, trained)
            _say(marking.line(task["name"], task["contamination"]) for task in scored)
    terminal.console().print(f"{place / 'report.json'}", markup=False)


def _is_there(model: str) -> None:
    """Refuse a run or folder that there is not, before its items are looked for."""
    if not Path(model).exists() and "@" not in model:
        raise ModelError(f"{model}: no such run or folder. Name one, or a model of the hub as ORG/NAME@REVISION.")


def _show(report: Mapping[str, Any], wanted: Sequence[Task], model: str, place: Path) -> None:
    """Say scores and submissions on the terminal."""
    scored = [report["tasks"][task.name] for task in wanted if task.name in report["tasks"]]
    if scored:
        terminal.console().print(table(scored, model, report["form"]))
        _say(line for task in scored for line in beside(task))
    for task in wanted:
        if sent := report["submissions"].get(task.name):
            _say([f"{task.name}: {sent['n']} items without labels, {sent['unread']} unread; submit {place / sent['file']}"])


@contextmanager
def _asking(items: int, *, show: bool) -> Iterator[journal.Advance]:
    """Show how many items are answered."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=terminal.console(), transient=True, disable=not show) as bar:
        asking = bar.add_task("asking", total=items)
        yield lambda n: bar.advance(asking, n)


def opened(model: str, machine: hardware.Hardware, kind: str) -> Any:
    """Load a model into one of the engines, which answer the same questions."""
    if kind == "vllm":
        if machine.processes > 1:
            raise DataError(
                f"--engine vllm: it fills a machine from one process, {machine.name} starts {machine.processes}."
            )
        from alignment.generate import vllm

        return vllm.load(model, machine)
    from alignment.generate import engine

    return engine.load(model, machine)


def form(model: str, has_template: bool, protocol: tasks.Protocol = "paper") -> Form:
    """A base model continues examples, a chat model is asked. Ours all carry a template; a pretrain run is a base.

    In lm-eval's protocol every model completes: it applies no template unless told to.
    """
    path = Path(model)
    base = run.is_run(path) and run.read_manifest(path)["stage"] == "pretrain"
    return "chat" if has_template and not base and protocol == "paper" else "completion"


def _fits(form: Form, protocol: tasks.Protocol, shots: int | None) -> None:
    """Refuse options that would be left unused."""
    if form == "chat" and protocol == "lm-eval":
        raise DataError("--form chat: lm-eval's protocol is a completion here. Leave --form or --protocol out.")
    if form == "chat" and shots:
        raise DataError(f"--shots {shots}: a chat model is asked 0-shot. Add --form completion for worked examples.")


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        terminal.console().print(line, markup=False, soft_wrap=True)


def _words(listed: str) -> list[str]:
    return [word.strip() for word in listed.split(",") if word.strip()]


def heldout(model: str, wanted: list[Task]) -> Path | None:
    """The held-out sets of the curriculum that a run of ours was made from; None: the tasks look on the hub.

    Raises DataError where some tasks are the run's own and others are not, or where several curricula have such sets.
    """
    mini = [task for task in wanted if task.name.startswith("mini-")]
    if not mini:
        return None
    found = _curricula(Path(model)) if run.is_run(Path(model)) else set()
    if not found or len(mini) < len(wanted):
        folders = ", ".join(f"{task.name}/" for task in wanted)
        raise DataError(f"--data-root: missing. Name the folder that holds {folders}.")
    roots = sorted(place / "heldout" for place in found)
    fit = [root for root in roots if all((root / task.name).is_dir() for task in mini)] or roots
    if len(fit) > 1:
        raise DataError(
            f"--data-root: missing. {model} was made from several curricula: {', '.join(map(str, fit))}. Name one."
        )
    return fit[0]


def _curricula(path: Path) -> set[Path]:
    """The curricula in a run's lineage; a run that is not there any more is passed over."""
    here = run.Finished(path, run.read_manifest(path))
    if here.manifest["stage"] == "curriculum":
        return {path}
    found = set()
    for name, fingerprint in here.parents.items():
        place = path.parent / name
        if not run.is_run(place):
            continue
        if run.read_manifest(place)["fingerprint"] != fingerprint:
            raise DataError(f"--data-root: missing. {place} was run again after {path} was made from it. Name the folder.")
        found |= _curricula(place)
    return found


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
        unread = f"{task['unread']} of {task['n'] * task['samples']}" if "samples" in task else task["unread"]
        row = (task["name"], task["n"], f"{task['score']:.1%}", f"{low} - {high}", shots, unread, ended)
        shown.add_row(*map(str, row))
    return shown


def command(words: Sequence[str]) -> tuple[typer.Typer, list[str]]:
    """Say which command line a list of words is for, and what is left for it."""
    if words and words[0] in COMMANDS:
        chosen: typer.Typer = import_module(COMMANDS[words[0]]).app
        return chosen, list(words[1:])
    if "--watch" in words:
        following: typer.Typer = import_module("eval.watch").app
        return following, list(words)
    return app, list(words)


def run_command(words: Sequence[str]) -> None:
    """Parse and run a command line."""
    chosen, rest = command(words)
    name = f"python -m eval {words[0]}" if words and words[0] in COMMANDS else "python -m eval"
    chosen(args=rest, prog_name=name, standalone_mode=False)


def beside(task: Mapping[str, Any]) -> Iterator[str]:
    """What stands beside a task's score: missing items, the stricter reading, several answers, subjects and categories."""
    if (rows := task.get("rows")) and rows["found"] != rows["card"]:
        yield f"{task['name']}: warning: its files hold {rows['found']} items, the published set {rows['card']}"
    if strict := task.get("strict"):
        yield f"{task['name']}: {strict['score']:.1%} by strict extraction, {strict['unread']} unread"
    if tries := task.get("pass_at_k"):
        said = [f"pass@{k} {found['score']:.1%}" for k, found in tries.items()]
        if vote := task.get("majority"):
            said.append(f"maj@{task['samples']} {vote['score']:.1%}")
        yield f"{task['name']}: {', '.join(said)}"
    if averages := task.get("categories"):
        parts = {"mean of subjects": task["macro"], "mean of items": task["micro"], **averages}
        few = [name for name, found in parts.items() if found["average"].startswith("mean of items:")]
        said = [f"{name} {found['score']:.1%}" for name, found in parts.items() if name not in few]
        said += [f"too few items a subject for: {', '.join(few)}"] if few else []
        yield f"{task['name']}, {task['subjects']['scored']} of {task['subjects']['of']} subjects: {', '.join(said)}"


if __name__ == "__main__":
    sys.exit(terminal.guarded(lambda: run_command(sys.argv[1:]), resumes=False))
