"""The stage `evaluate`: each model of the recipe on the same items, then the report.

A model's own results lie in its run (RUN/eval), outside the seal; what it has answered before is not asked again, but
marked again. Preference pairs are scored for chat models only, and measured against the reference's scores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.corpus import index
from alignment.corpus.index import Index
from alignment.hardware import Hardware
from alignment.recipe import Evaluate
from alignment.recipe import Judged as Model
from alignment.run import Run, is_run, read, sha256, write_text
from eval import contamination, harness, invariance, journal, tasks
from eval.data import rows
from eval.harness import Judged
from eval.report import collect, markdown, page
from eval.samples import Row
from eval.task import Task
from eval.tasks import preference

HELDOUT_PAIRS = "heldout_pairs.jsonl"
PREFERENCE = "samples/preference.jsonl"


def run(recipe: Evaluate, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Evaluate the recipe's models and write report.json, report.md and report.html; return the scores."""
    wanted = tasks.named(list(recipe.tasks))
    pairs = _pairs(here.inputs[recipe.pairs].path) if recipe.pairs else []
    trained = _index([here.inputs[name].path for name in recipe.contamination], here.path / "index")
    reports: dict[str, dict[str, Any]] = {}
    scored: dict[str, list[Row]] = {}
    for model in recipe.models:
        reports[model.run], scored[model.run] = _evaluate(model, wanted, pairs, trained, recipe, here, hardware)
    for name, weighed in scored.items():
        if weighed:
            against = scored[recipe.reference] if recipe.reference and name != recipe.reference else None
            reports[name]["preference"] = preference.summary(weighed, against)
    found = collect.collect(here, reports)
    write_text(here.path / "report.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_text(here.path / "report.md", markdown.render(found))
    write_text(here.path / "report.html", page.render(found))
    here.say(f"report: {here.path / 'report.html'}")
    return {f"{name}/{task}": found["score"] for name, r in reports.items() for task, found in r["tasks"].items()}


def identity(argument: str | Path) -> str:
    """Name a model by its content, so that results of two models never mix: a hub name by the commit that was loaded."""
    path = Path(argument)
    if is_run(path):
        sealed = read(path).manifest["outputs"]
        return harness.digest({name: seal["sha256"] for name, seal in sealed.items() if name.startswith("model/")})
    if path.is_dir():
        kept = (file for file in sorted(path.iterdir()) if file.suffix in {".safetensors", ".json", ".jinja"})
        return harness.digest({file.name: sha256(file) for file in kept})
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = str(argument).partition("@")  # a tag or a branch may name another commit tomorrow
    loaded = try_to_load_from_cache(name, "config.json", revision=revision)
    return f"{name}@{Path(loaded).parent.name}" if isinstance(loaded, str) else str(argument)


def _evaluate(
    model: Model,
    wanted: Sequence[Task],
    pairs: Sequence[Mapping[str, Any]],
    trained: Index | None,
    recipe: Evaluate,
    here: Run,
    hardware: Hardware,
) -> tuple[dict[str, Any], list[Row]]:
    """Ask one model; return its report on this recipe's tasks, and its scores of the pairs."""
    from alignment.generate import engine

    finished, data = here.inputs[model.run], here.inputs[recipe.data].path
    judged = Judged(engine.load(finished.path, hardware), identity(finished.path), model.form)
    out, name = finished.path / "eval", finished.path.name
    suites: list[tuple[Path, Sequence[Task]]] = [(data / "heldout", wanted)]
    if pairs and model.form == "chat":
        suites.append((data, [preference.Sampled()]))
    items = sum(len(harness.spread(task.items(root), recipe.limit)) for root, group in suites for task in group)
    with journal.held(out), here.progress(f"asking {name}", items) as bar:
        for root, group in suites:
            report = harness.evaluate(judged, group, root, out, limit=recipe.limit, seed=recipe.seed, advance=bar.advance)
            if recipe.invariance:
                invariance.verify(judged, group, root, out, report, limit=recipe.limit, seed=recipe.seed)
            if trained:
                contamination.mark(report, group, root, out, trained)
    asked = [task.name for _, group in suites for task in group]
    report["tasks"] = {task: report["tasks"][task] for task in asked}  # not what --tasks may have asked besides
    here.say(f"{name}: " + ", ".join(_line(found) for found in report["tasks"].values()))
    scored = preference.score(judged.engine, pairs) if len(suites) > 1 else []
    if scored:
        journal.save(out / PREFERENCE, scored)
    return report, scored


def _index(runs: Sequence[Path], folder: Path) -> Index | None:
    """Index the training text of runs, once for all models; one that a crash left unfinished is written anew."""
    if not runs:
        return None
    if not (folder / "index.json").exists():  # it is written last
        shutil.rmtree(folder, ignore_errors=True)
        index.write(runs, folder)
    return Index(folder)


def _pairs(path: Path) -> list[Row]:
    """One held-out pair a problem: two of the same problem would make the intervals too narrow."""
    found = {row["prompt"]: row for row in reversed(rows(path, HELDOUT_PAIRS, preference.FIELDS))}
    return list(reversed(found.values()))


def _line(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['name']} {found['score']:.1%} [{low:.1%}, {high:.1%}]"
