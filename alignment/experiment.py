"""A recipe, or a folder of recipes, becomes a chain of runs.

`recipes/quickstart/dpo.yaml` writes `runs/quickstart/dpo/`; `start: {run: sft}` is its neighbour. Stages that are
finished with the same fingerprint are skipped; a finished run that would come out differently is never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment import hardware, manifest, recipe, run, terminal
from alignment.errors import HardwareError, HubError, PlumblineError, RecipeError, RunError

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
    for item in planned:
        _pinned(item)
    return [_execute(stages[item.recipe.stage], item, machine, data_root, resume) for item in planned]


def examine(look: Callable[[Any, run.Run], Any], item: Planned, data_root: Path | None) -> Any:
    """Let `look` see what a stage would be given, in a run directory that is gone afterwards."""
    _pinned(item)
    inputs = {name: run.read(item.path.parent / name) for name in sorted(item.recipe.runs())}
    with tempfile.TemporaryDirectory() as place:
        cards = _cards(item.recipe, data_root)
        return look(item.recipe, run.Run(Path(place), inputs, cards, True, False, {}, data_root=data_root))


def _execute(stage: Stage, item: Planned, machine: hardware.Hardware, data_root: Path | None, resume: bool) -> run.Finished:
    inputs = {name: run.read(item.path.parent / name) for name in sorted(item.recipe.runs())}
    cards = _cards(item.recipe, data_root)
    words, start = _starts(item.recipe)
    start |= _of(item.recipe) | _held_out(item.recipe, data_root)
    planned = manifest.compose(
        words=words,
        inputs={name: found.fingerprint for name, found in inputs.items()} | start,
        cards={name: card.about() for name, card in cards.items()} | _installed(item.recipe),
        hardware=asdict(machine) | {"cluster": machine.cluster and machine.cluster.model_dump()},
    )
    if done := _finished(item.path, planned):
        _say(machine, f"{item.name} ({item.recipe.stage}): finished before, skipped. {_line(done.numbers)}")
        return done
    reason = f"{machine.dtype} ({machine.dtype_reason})"
    _say(machine, f"{item.name} ({item.recipe.stage}) on {machine.name}: {reason} -> {item.path}")
    began = time.monotonic()
    with _space(item.path):
        live = run.begin(
            item.path,
            planned,
            inputs=inputs,
            cards=cards,
            main=machine.main,
            resume=resume,
            recipe_text=item.file.read_text(encoding="utf-8"),
            data_root=data_root,
        )
        numbers = stage(item.recipe, live, machine)
        live.manifest["cards"].update((name, card.about()) for name, card in cards.items())  # with the rows it gave
        sealed = run.finish(live, numbers)
    _say(machine, f"  done in {time.monotonic() - began:.0f} s. {_line(sealed.manifest.get('numbers', {}))}")
    return sealed


def _say(machine: hardware.Hardware, text: str) -> None:
    if machine.main:
        terminal.console().print(text, markup=False, soft_wrap=True)


def _pinned(item: Planned) -> None:
    for place, start in item.recipe.starts().items():
        if start.revision == recipe.UNPINNED:
            raise HubError(
                f"{item.file}: {place}: {start.hub} has no pinned revision, so tomorrow's model may be another. "
                f"Run `python -m alignment pin {item.file}` once."
            )


def _cards(words: recipe.Recipe, data_root: Path | None) -> dict[str, Any]:
    if not words.cards():
        return {}
    from alignment import data_card

    sources = words.data if isinstance(words, recipe.Corpus) else ()
    streamed = {source.card for source in sources if source.stream}
    return {
        name: data_card.open_card(name, data_root, training=True, stream=name in streamed) for name in sorted(words.cards())
    }


def _installed(words: recipe.Recipe) -> dict[str, dict[str, Any]]:
    """What stands for the card of installed text: a digest of everything that is installed."""
    if not isinstance(words, recipe.Corpus) or not any(source.installed for source in words.data):
        return {}
    from alignment.corpus import installed

    return {"installed:": {"revision": None, "rows": None, "digest": installed.digest()}}


def _starts(asked: recipe.Recipe) -> tuple[dict[str, Any], dict[str, str]]:
    """The recipe's words, and the models it reads that are no runs. A colon keeps their names from those of runs."""
    words, found = asked.model_dump(mode="json"), {}
    for place, start in asked.starts().items():
        if start.hub:
            found[f"{place}:"] = f"{start.hub}@{start.revision}"
        elif start.folder:
            found[f"{place}:"] = digest = folder_digest(Path(start.folder))
            *above, last = place.split(".")
            inner = words
            for name in above:
                inner = inner[name]
            inner[last] = {"folder": digest}  # the content counts, not name or place
    return words, found


def held_out_names(words: recipe.Recipe) -> tuple[str, ...]:
    return words.held_out if isinstance(words, recipe.Mixture) else ()


def _held_out(words: recipe.Recipe, data_root: Path | None) -> dict[str, str]:
    """What stands for the evaluation sets that no row may contain: digests of their cards' files."""
    from alignment import data_card

    names = held_out_names(words)
    return {f"held_out:{name}": data_card.open_card(name, data_root, training=False).digest for name in names}


def _of(words: recipe.Recipe) -> dict[str, str]:
    """What stands for the recipes that an experiment or a sweep varies: a digest of what they say."""
    if not isinstance(words, recipe.Experiment | recipe.Sweep):
        return {}
    from alignment import cells

    said = [item.recipe.model_dump(mode="json", exclude={"fits"}) for item in cells.chain(words)]
    return {"of:": "recipes:" + hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}


@contextmanager
def _space(path: Path) -> Iterator[None]:
    """Say it where the disk is full."""
    try:
        yield
    except PlumblineError:
        raise
    except Exception as error:
        if not terminal.disk_is_full(error, path if path.exists() else Path()):
            raise
        raise RunError(f"{path}: the disk is full. Free some space, then run the same command with --resume.") from error


def _finished(path: Path, planned: Mapping[str, Any]) -> run.Finished | None:
    """The finished run that lies there already, if it is the same one."""
    if not run.is_run(path):
        return None
    old = run.read_manifest(path)
    if not old.get("finished"):
        return None
    if old["fingerprint"] != planned["fingerprint"]:
        raise RunError(
            f"{path}: finished with another recipe or other inputs ({manifest.first_difference(old, planned)}). "
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
