"""The stage `evaluate`: each model of the recipe on the same items, then the report.

A model's own results lie in its run (RUN/eval), outside the seal; a model that was evaluated before in the same way is
not loaded again. Preference pairs are scored for chat models only, and measured against the reference's scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import RecipeError
from alignment.hardware import Hardware
from alignment.recipe import Evaluate
from alignment.run import Finished, Run, is_run, read, sha256, write_text
from eval import harness, tasks
from eval.harness import Judged, Row
from eval.report import collect, markdown, page
from eval.task import Form, Task, rows
from eval.tasks import preference

HELDOUT_PAIRS = "heldout_pairs.jsonl"
PREFERENCE = "samples/preference.jsonl"


def run(recipe: Evaluate, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Evaluate the recipe's models and write report.json, report.md and report.html; return the scores."""
    wanted = tasks.named(list(recipe.tasks))
    if recipe.reference and recipe.reference not in [model.run for model in recipe.models]:
        raise RecipeError(f"reference: {recipe.reference} is not one of the models, so its scores are never taken.")
    data = here.inputs[recipe.data].path
    asked_of = [here.inputs[name].fingerprint for name in (recipe.data, recipe.pairs) if name]
    request = harness.digest([recipe.model_dump(mode="json"), asked_of])
    pairs = _pairs(here.inputs[recipe.pairs].path) if recipe.pairs else []
    reports: dict[str, dict[str, Any]] = {}
    for model in recipe.models:
        finished = here.inputs[model.run]
        reports[model.run] = _evaluated(finished, model.form, request) or _evaluate(
            finished, model.form, wanted, data, pairs, request, recipe, here, hardware
        )
    _prefer(reports, here, recipe.reference)
    found = collect.collect(here, reports)
    write_text(here.path / "report.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_text(here.path / "report.md", markdown.render(found))
    write_text(here.path / "report.html", page.render(found))
    here.say(f"report: {here.path / 'report.html'}")
    return {f"{name}/{task}": found["score"] for name, r in reports.items() for task, found in r["tasks"].items()}


def identity(argument: str | Path) -> str:
    """Name a model by its content, so that results of two models never mix. A hub name carries its revision."""
    path = Path(argument)
    if is_run(path):
        sealed = read(path).manifest["outputs"]
        return harness.digest({name: seal["sha256"] for name, seal in sealed.items() if name.startswith("model/")})
    if path.is_dir():
        kept = (file for file in sorted(path.iterdir()) if file.suffix in {".safetensors", ".json", ".jinja"})
        return harness.digest({file.name: sha256(file) for file in kept})
    return str(argument)


def _evaluated(finished: Finished, form: Form, request: str) -> dict[str, Any] | None:
    old = harness.read_report(finished.path / "eval")
    return old if old and old["form"] == form and old.get("request") == request else None


def _evaluate(
    finished: Finished,
    form: Form,
    wanted: Sequence[Task],
    data: Path,
    pairs: Sequence[Mapping[str, Any]],
    request: str,
    recipe: Evaluate,
    here: Run,
    hardware: Hardware,
) -> dict[str, Any]:
    from alignment.generate import engine

    judged = Judged(engine.load(finished.path, hardware), identity(finished.path), form)
    out, name = finished.path / "eval", finished.path.name
    suites: list[tuple[Path, Sequence[Task]]] = [(data / "heldout", wanted)]
    if form == "chat" and recipe.pairs:
        suites.append((data, [preference.Sampled()]))
    items = sum(len(harness.spread(task.items(root), recipe.limit)) for root, group in suites for task in group)
    with here.progress(f"asking {name}", items) as bar:
        for root, group in suites:
            report = harness.evaluate(judged, group, root, out, limit=recipe.limit, seed=recipe.seed, advance=bar.advance)
    if len(suites) > 1:
        harness.save(out / PREFERENCE, preference.score(judged.engine, pairs))
    report["request"] = request
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    here.say(f"{name}: " + ", ".join(_line(found) for found in report["tasks"].values()))
    return report


def _pairs(path: Path) -> list[Row]:
    """One held-out pair a problem: two of the same problem would make the intervals too narrow."""
    found = {row["prompt"]: row for row in reversed(rows(path, HELDOUT_PAIRS, preference.FIELDS))}
    return list(reversed(found.values()))


def _prefer(reports: Mapping[str, dict[str, Any]], here: Run, reference: str | None) -> None:
    """Add the preference accuracies to the reports that have scored pairs."""
    scored = {name: harness.read_rows(here.inputs[name].path / "eval" / PREFERENCE) for name in reports}
    for name, found in scored.items():
        if found:
            against = scored[reference] if reference and name != reference else None
            reports[name]["preference"] = preference.summary(found, against)


def _line(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['name']} {found['score']:.1%} [{low:.1%}, {high:.1%}]"
