"""The stage `experiment`: one recipe with some fields varied, over several seeds; every cell is an ordinary run.

RUN/recipes holds the cells' recipes beside those of all runs that they read: a folder like any other, whose runs lie in
RUN. The cells are processes of their own, several at once, and what they cost in CPU time is bounded; what is finished
is not run again. The table and the picture are made from the finished cells alone.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignment import experiment, findings, recipe, run, schema
from alignment.errors import RecipeError, RunError
from alignment.experiment import Planned
from alignment.findings import Cell
from alignment.hardware import Hardware

RECIPES = Path("recipes")
POLL_SECONDS = 0.2
COSTS = "costs.jsonl"


@dataclass(frozen=True)
class Job:
    """A process to run: the cell or stage it is for, and its words."""

    name: str
    words: tuple[str, ...]


def measure(recipe: recipe.Experiment, here: run.Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Run all cells and write cells.jsonl, table.md and picture.svg; return the mean of every combination."""
    *before, last = chain(recipe)
    planned = grid(recipe, last)
    heads = {name: f"{cell.label}, seed {cell.seed}" for name, (cell, _) in planned.items()}
    said = {name: f"# cell of {here.path.name}: {heads[name]}\n" + yaml_text(words) for name, (_, words) in planned.items()}
    again = [_for_seeds(recipe, item, here.path.name) for item in before if item.name in recipe.seeded]
    once = [item for item in before if item.name not in recipe.seeded]
    workers = train(here, hardware, recipe.budget_cpu_hours, once, *again, said)
    measured = {**(_starts(recipe, last) if recipe.against_start else {}), **{n: cell for n, (cell, _) in planned.items()}}
    if tasks := ",".join(one.task for one in recipe.measures if one.task):
        asking = ("-m", "eval", "--tasks", tasks, "--on", hardware.name)
        workers.all([Job(name, (*asking, str(here.path / name))) for name in dict.fromkeys(_run(n) for n in measured)])
    numbers: dict[str, float | int | str] = {}
    for one in recipe.measures:
        several = len(recipe.measures) > 1
        folder = here.path / one.name if several else here.path
        folder.mkdir(exist_ok=True)
        found = [cell.scored(_score(one, here.path / _run(name))) for name, cell in measured.items()]
        means = findings.write(folder, one.name, list(recipe.over), found)
        numbers |= {f"{one.name} {name}" if several else name: mean for name, mean in means.items()}
    return numbers


def _starts(words: recipe.Experiment, of: Planned) -> dict[str, Cell]:
    """The runs that cells start from as cells themselves: one a seed, or the same one for all."""
    start = getattr(of.recipe, "start", None)
    if start is None or start.run is None:
        raise RecipeError(f"against_start: {of.file} starts from no run.")
    field = next(iter(words.over))
    seeded = start.run in words.seeded
    names = {seed: f"{start.run}-seed{seed}" if seeded else f"{start.run}@{seed}" for seed in words.seeds}
    return {name: Cell({field: start.run}, seed) for seed, name in names.items()}


def _run(name: str) -> str:
    return name.partition("@")[0]  # a run that all seeds share


def _for_seeds(words: recipe.Experiment, item: Planned, where: str) -> dict[str, str]:
    """A recipe that is made anew for every seed, by the name of its run; it reads what is made anew as well."""
    raw = schema.parse(item.file.read_text(encoding="utf-8"), str(item.file))
    said = {}
    for seed in words.seeds:
        changed = _renamed(raw, words.seeded, seed) | {"seed": seed}
        said[f"{item.name}-seed{seed}"] = f"# {item.name} of {where}, seed {seed}\n" + yaml_text(changed)
    return said


def _renamed(value: Any, names: Sequence[str], seed: int) -> Any:
    """A recipe's words with runs that are made anew for every seed called as this seed's are."""
    if isinstance(value, Mapping):
        return {key: inner if key == "stage" else _renamed(inner, names, seed) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(inner, names, seed) for inner in value]
    return f"{value}-seed{seed}" if isinstance(value, str) and value in names else value


def train(
    here: run.Run, hardware: Hardware, budget_cpu_hours: float, before: Sequence[Planned], *said: Mapping[str, str]
) -> Workers:
    """Run what the cells read, then the cells, as ordinary runs below this one.

    `said` holds recipes by name, the cells' last; those of one mapping may run side by side.
    """
    folder = here.path / "recipes"
    folder.mkdir(exist_ok=True)
    for item in before:
        run.write_text(folder / item.file.name, item.file.read_text(encoding="utf-8"))
    for name, text in (item for part in said for item in part.items()):
        run.write_text(folder / f"{name}.yaml", text)
    words = ("-m", "alignment", "run", "--runs", str(here.path), "--on", hardware.name, "--resume")
    words += ("--data-root", str(here.data_root)) if here.data_root else ()
    workers = Workers(here, budget_cpu_hours, hardware)
    for item in before:  # each may read the one before
        workers.all([Job(item.name, (*words, str(folder / item.file.name)))])
    for part in said:
        workers.all([Job(name, (*words, str(folder / f"{name}.yaml"))) for name in part])
    return workers


def yaml_text(words: Mapping[str, Any]) -> str:
    """A recipe's words as they stand in its file."""
    return yaml.safe_dump(dict(words), sort_keys=False, allow_unicode=True)


def chain(words: recipe.Experiment | recipe.Sweep) -> list[Planned]:
    """The recipe that is varied, last, after all that it or a variant of it reads, in the order in which they run."""
    file = RECIPES / f"{words.of}.yaml"
    if not file.exists():
        raise RecipeError(f"of: {words.of}: no {file}. Name a recipe below {RECIPES}/, without .yaml.")
    planned = {item.name: item for item in experiment.plan(file.parent)}
    last = planned.pop(file.stem)
    raw = schema.parse(file.read_text(encoding="utf-8"), str(file))
    wanted: set[str] = set()
    reached = set().union(*(found.runs() for found in _variants(words, raw, str(file))))
    while reached - wanted:
        if missing := sorted(reached - planned.keys()):
            raise RecipeError(f"{file}: reads run {missing[0]!r}, and no {missing[0]}.yaml lies beside it.")
        wanted |= reached
        reached = set().union(*(planned[name].recipe.runs() for name in wanted))
    return [item for item in planned.values() if item.name in wanted] + [last]


def _variants(words: recipe.Experiment | recipe.Sweep, raw: Mapping[str, Any], where: str) -> Iterator[recipe.Recipe]:
    for values in itertools.product(*words.over.values()):
        yield recipe.validate(_edited(raw, dict(zip(words.over, values, strict=True)), where), where)


def grid(words: recipe.Experiment, of: Planned) -> dict[str, tuple[Cell, dict[str, Any]]]:
    """Every cell by name, with its recipe's words: all combinations of values, each with every seed."""
    raw = schema.parse(of.file.read_text(encoding="utf-8"), str(of.file))
    read = {item.name: item.recipe.runs() for item in chain(words)[:-1]}
    if unknown := sorted(set(words.seeded) - set(read)):
        raise RecipeError(f"seeded: {unknown[0]} is not read by {words.of}. It reads {', '.join(read)}.")
    for name, runs in read.items():
        if name not in words.seeded and runs & set(words.seeded):
            raise RecipeError(f"seeded: {name} reads {min(runs & set(words.seeded))}, so it is made anew as well. Add it.")
    if words.against_start:
        _starts(words, of)
    taken = {f"{one}-seed{seed}" for one in words.seeded for seed in words.seeds}
    cells: dict[str, tuple[Cell, dict[str, Any]]] = {}
    for seed, *values in itertools.product(words.seeds, *words.over.values()):  # all of a seed before the next
        cell = Cell(dict(zip(words.over, values, strict=True)), seed)
        name = "-".join([*(_slug(value) for value in values), f"seed{seed}"])
        if name in cells:
            raise RecipeError(f"over: two cells are called {name}. Give every value once.")
        if name in taken:
            raise RecipeError(f"over: a cell would be called {name}, as a run of `seeded` is. Vary a second field.")
        changed = _renamed(_edited(raw, {**cell.values, "seed": seed}, str(of.file)), words.seeded, seed)
        recipe.validate(changed, f"{of.file}, cell {name}")
        cells[name] = (cell, changed)
    return cells


def _edited(raw: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    return schema.edit(dict(raw), [f"{field}={json.dumps(value)}" for field, value in values.items()], where)


def _slug(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.") or "none"


class Workers:
    """Processes at once: on a CPU as many as the profile has threads, with one thread each; on a GPU one."""

    def __init__(self, here: run.Run, budget_cpu_hours: float, hardware: Hardware) -> None:
        self.here, self.budget = here, 3600 * budget_cpu_hours
        cpu = hardware.device == "cpu"
        self.at_once = hardware.threads if cpu else 1
        self.environment = os.environ | ({"OMP_NUM_THREADS": "1"} if cpu else {})
        self.spent = sum(row["cpu_seconds"] for row in _rows(here.path / COSTS))  # also before an interruption

    def all(self, jobs: Sequence[Job]) -> None:
        """Run the jobs. Raises RunError where one fails, or where no more may be started within the budget."""
        waiting, running = list(jobs), dict[str, subprocess.Popen[bytes]]()
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no cell outlives its experiment
        with self.here.progress("runs", len(jobs)) as bar:
            try:
                while running or (waiting and self.spent < self.budget):
                    while waiting and len(running) < self.at_once and self.spent < self.budget:
                        job = waiting.pop(0)
                        running[job.name] = self._start(job)
                    time.sleep(POLL_SECONDS)
                    for name in [name for name, process in running.items() if self._ended(name, process)]:
                        del running[name]
                        bar.advance(cpu_hours=self.spent / 3600)
            finally:
                for name, process in running.items():
                    if process.returncode is None:
                        process.terminate()
                        self._reaped(name, process, 0)
                signal.signal(signal.SIGTERM, before)
        if waiting:
            raise RunError(
                f"{self.here.path}: {self.spent / 3600:.3f} CPU hours are spent of {self.budget / 3600:g}, and "
                f"{len(waiting)} of {len(jobs)} runs were not started ({waiting[0].name}, ...). Raise budget_cpu_hours "
                "and run the same command with --resume: what is finished stays."
            )

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        with (self.here.path / "recipes" / f"{job.name}.out").open("ab") as out:
            return subprocess.Popen([sys.executable, *job.words], stdout=out, stderr=out, env=self.environment)

    def _reaped(self, name: str, process: subprocess.Popen[bytes], flags: int) -> bool:
        """Whether a process is over; books what it cost, also where it was interrupted."""
        pid, status, usage = os.wait4(process.pid, flags)
        if not pid:
            return False
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = usage.ru_utime + usage.ru_stime
        self.spent += seconds
        with (self.here.path / COSTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": name, "cpu_seconds": round(seconds, 2)}) + "\n")
        return True

    def _ended(self, name: str, process: subprocess.Popen[bytes]) -> bool:
        if not self._reaped(name, process, os.WNOHANG):
            return False
        if process.returncode:
            said = (self.here.path / "recipes" / f"{name}.out").read_text(encoding="utf-8", errors="replace")
            raise RunError(f"{self.here.path / name}: stopped with code {process.returncode}: {said.strip()[-600:]}")
        return True


def _score(measure: recipe.Measure, cell: Path) -> float:
    if measure.task:
        report = json.loads((cell / "eval" / "report.json").read_text(encoding="utf-8"))
        return float(report["tasks"][measure.task]["score"])
    numbers = run.read(cell).numbers
    if measure.metric not in numbers:
        raise RecipeError(f"measure.metric: {cell} has no number {measure.metric!r}. It has {', '.join(numbers)}.")
    return float(numbers[str(measure.metric)])


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
