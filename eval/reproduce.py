"""The stage `reproduce`: a released model on our harness, beside the scores that were published for it.

A published score is a number without an interval, and its prompts are known in part only (paper, appendix A.6), so the
table says where it lies inside our interval, and nothing of who is right where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.hardware import Hardware
from alignment.recipe import Reproduce, Start
from alignment.run import Run, write_text
from eval import harness, journal, tasks
from eval.evaluate import identity
from eval.harness import Judged

HEAD = "| task | shots | n | published | ours, 95 % interval | difference | |\n|---|---|---|---|---|---|---|\n"


def run(recipe: Reproduce, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Ask the model, and write table.md; return our scores and the published ones, per cent."""
    from alignment.generate import engine

    wanted, source, out = tasks.named(list(recipe.published)), _source(recipe.start, here), here.path / "eval"
    items = sum(len(harness.spread(task.items(here.data_root), recipe.limit)) for task in wanted)  # bad data is said now
    judged = Judged(engine.load(source, hardware), identity(source), recipe.form)
    with journal.held(out), here.progress(f"asking {source}", items) as bar:
        report = harness.evaluate(
            judged, wanted, here.data_root, out, limit=recipe.limit, seed=recipe.seed, advance=bar.advance
        )
    found = report["tasks"]
    table = HEAD + "".join(_row(found[task], published) for task, published in recipe.published.items())
    write_text(here.path / "table.md", f"# {source} ({recipe.form})\n\n{table}")
    here.say(f"table: {here.path / 'table.md'}")
    ours = {task: 100 * found[task]["score"] for task in recipe.published}
    return ours | {f"{task}.published": score for task, score in recipe.published.items()}


def _source(start: Start, here: Run) -> str:
    """The model as the engine opens it."""
    if start.run:
        return str(here.inputs[start.run].path)
    return start.folder or f"{start.hub}@{start.revision}"


def _row(found: Mapping[str, Any], published: float) -> str:
    score, low, high = (100 * value for value in (found["score"], *found["interval"]))
    least, most = found["shots"]["least"], found["shots"]["most"]
    shots = str(most) if least == most else f"{least}-{most}"
    inside = "inside" if low <= published <= high else "outside"
    return (
        f"| {found['name']} | {shots} | {found['n']:,} | {published:.1f} | {score:.1f} ({low:.1f} to {high:.1f}) "
        f"| {score - published:+.1f} | {inside} |\n"
    )
