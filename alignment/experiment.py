"""A recipe, or a folder of recipes, becomes a chain of runs.

`recipes/quickstart/dpo.yaml` writes `runs/quickstart/dpo/`; `start: {run: sft}` is its neighbour. Stages that are
finished with the same fingerprint are skipped; a finished run that would come out differently is never overwritten.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment import data_card, hardware, recipe, run
from alignment.errors import HardwareError, RecipeError, RunError

Stage = Callable[[Any, run.Run, hardware.Hardware], Mapping[str, Any]]


@dataclass(frozen=True)
class Planned:
    """One recipe of an experiment and where its run lies."""

    name: str
    file: Path
    recipe: recipe.Recipe
    path: Path


def plan(path: Path, edits: Iterable[str] = (), runs: Path = Path("runs")) -> list[Planned]:
    """Read a recipe or a folder of recipes, apply the edits, and order the stages by what they read."""
    edits = list(edits)
    if not path.is_dir():
        return [Planned(path.stem, path, recipe.load(path, edits), place(path, runs))]
    files = {file.stem: file for file in sorted(path.glob("*.yaml"))}
    if not files:
        raise RecipeError(f"{path}: no .yaml recipe in this folder.")
    per_file: dict[str, list[str]] = {name: [] for name in files}
    for change in edits:
        name, colon, rest = change.partition(":")
        if not colon or name not in files:
            raise RecipeError(
                f"--set {change}: for a folder, say whose field it is: --set NAME:field=value. Names: {', '.join(files)}."
            )
        per_file[name].append(rest)
    found = {name: Planned(name, f, recipe.load(f, per_file[name]), place(f, runs)) for name, f in files.items()}
    return _ordered(found)


def place(file: Path, runs: Path) -> Path:
    """Where the run of a recipe file lies: its path below recipes/, below `runs`."""
    whole = file.resolve().with_suffix("")
    parts = whole.parts
    if "recipes" in parts[:-1]:
        below = parts[len(parts) - parts[::-1].index("recipes") :]
        return runs.joinpath(*below)
    return runs / whole.parent.name / whole.name


def execute(
    stages: Mapping[str, Stage],
    planned: Iterable[Planned],
    *,
    profile: str | None,
    data_root: Path | None,
    resume: bool,
) -> list[run.Finished]:
    """Run the stages in order and return the finished runs."""
    planned = list(planned)
    machine = hardware.prepare(profile or planned[0].recipe.fits[0])
    if machine.processes > 1 and (len(planned) != 1 or planned[0].recipe.stage not in recipe.TRAINING):
        raise HardwareError(
            f"profile {machine.name} starts {machine.processes} processes: give exactly one recipe of a training stage "
            f"({', '.join(recipe.TRAINING)}), and run the others with a profile of one process."
        )
    return [_execute(stages[item.recipe.stage], item, machine, data_root, resume) for item in planned]


def _execute(
    stage: Stage, item: Planned, machine: hardware.Hardware, data_root: Path | None, resume: bool
) -> run.Finished:
    inputs = {name: run.read(item.path.parent / name) for name in sorted(item.recipe.runs())}
    cards = {name: data_card.open_card(name, data_root, training=True) for name in sorted(item.recipe.cards())}
    words = item.recipe.model_dump(mode="json")
    start = words.get("start") or {}
    known = {name: found.fingerprint for name, found in inputs.items()}
    if start.get("hub"):
        known["start"] = f"{start['hub']}@{start['revision']}"
    if start.get("folder"):
        known["start"] = folder_digest(Path(start["folder"]))
        words["start"] = {"folder": Path(start["folder"]).name}  # the content counts, not where it lies
    plan = run.manifest(
        words=words, inputs=known, cards={name: card.digest for name, card in cards.items()}, hardware=asdict(machine)
    )
    done = _finished(item.path, plan)
    title = f"[bold]{item.name}[/bold] ({item.recipe.stage})"
    if done:
        if machine.main:
            run.console().print(f"{title}: finished before, skipped. {_line(done.numbers)}")
        return done
    if machine.main:
        run.console().print(f"{title} on {machine.name}: {machine.dtype} ({machine.dtype_reason}) -> {item.path}")
    live = run.begin(
        item.path,
        plan,
        inputs=inputs,
        cards=cards,
        data_root=data_root,
        main=machine.main,
        resume=resume,
        recipe_text=item.file.read_text(encoding="utf-8"),
    )
    began = time.monotonic()
    sealed = run.finish(live, stage(item.recipe, live, machine))
    if machine.main:
        run.console().print(f"  done in {time.monotonic() - began:.0f} s. {_line(sealed.manifest.get('numbers', {}))}")
    return sealed


def _finished(path: Path, plan: dict[str, Any]) -> run.Finished | None:
    """The finished run that lies there already, if it is the same one."""
    if not run.is_run(path):
        return None
    old = run.read_manifest(path)
    if not old.get("finished"):
        return None
    if old["fingerprint"] != plan["fingerprint"]:
        raise RunError(
            f"{path}: finished with another recipe or other inputs ({run.first_difference(old, plan)}). "
            "Nothing is overwritten: choose another --runs, or remove that run yourself."
        )
    return run.read(path)


def folder_digest(folder: Path) -> str:
    """Hash a model folder by content: names and sha256 of its weights, config and tokenizer files."""
    files = [file for file in sorted(folder.glob("*")) if file.suffix in {".safetensors", ".json", ".jinja"}]
    if not files:
        raise RunError(f"{folder}: no model here (no .safetensors or .json files). Name a model folder.")
    lines = "".join(f"{file.name} {run.sha256(file)}\n" for file in files)
    return "folder:" + hashlib.sha256(lines.encode()).hexdigest()


def _ordered(found: Mapping[str, Planned]) -> list[Planned]:
    """Order topologically; among equals, by name."""
    order: list[Planned] = []
    waiting = dict(found)
    while waiting:
        ready = [name for name, item in waiting.items() if not item.recipe.runs() & waiting.keys()]
        if not ready:
            raise RecipeError(f"{next(iter(waiting.values())).file.parent}: {', '.join(waiting)} wait for each other.")
        order.extend(waiting.pop(name) for name in sorted(ready))
    for item in order:
        for name in sorted(item.recipe.runs() - found.keys()):
            if not run.is_run(item.path.parent / name):
                raise RecipeError(f"{item.file}: reads run {name!r}, and no {name}.yaml lies beside it.")
    return order


def _line(numbers: Mapping[str, Any]) -> str:
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items() if not isinstance(v, dict))
    return ", ".join(shown)
