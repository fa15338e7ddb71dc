"""Write what benchmarks ask: `python -m eval items --tasks a,b --out items.jsonl`, a line an item.

A line has id, task, the question without its worked examples, and the target. Recipes hold names, not paths: an --out
that is a folder becomes a finished run that holds the file as a held-out set, and a corpus or mixture recipe beside it
says `against: NAME`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment import manifest, run, terminal
from eval import tasks
from eval.task import Task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    task_names: Annotated[str, typer.Option("--tasks", help="Comma-separated.")],
    out: Annotated[Path, typer.Option(help="The .jsonl file to write, or runs/FOLDER/NAME for recipes to name.")],
    data_root: Annotated[Path | None, typer.Option(help="The folder that holds gsm8k/, ...; else the hub.")] = None,
) -> None:
    """Write the questions and targets of benchmarks, to keep them out of training data."""
    wanted = tasks.named([name.strip() for name in task_names.split(",") if name.strip()])
    found = [row for task in wanted for row in rows(task, data_root)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    if out.suffix == ".jsonl":
        out.parent.mkdir(parents=True, exist_ok=True)
        run.write_text(out, text)
    else:
        seal(out, text, [task.name for task in wanted])
    terminal.console().print(f"{out}: {len(found):,} items of {', '.join(task.name for task in wanted)}", markup=False)


def rows(task: Task, root: Path | None) -> list[dict[str, Any]]:
    """Read a task's items; a function's target is what its tests demand, so the tests stand for it."""
    return [
        {
            "id": item.id,
            "task": task.name,
            "question": item.problem.prompt,
            "target": item.problem.target or item.problem.tests,
            "group": item.group,
            "language": item.language,
        }
        for item in task.items(root)
    ]


def seal(out: Path, text: str, names: list[str]) -> None:
    """Write a finished run that holds the items in heldout/, where decontamination looks for them."""
    words = {"stage": "items", "seed": 0, "tasks": names, "digest": hashlib.sha256(text.encode()).hexdigest()}
    plan = manifest.compose(words=words, inputs={}, cards={}, hardware={})
    plan["command"][2] = "eval"
    asked = f"stage: items  # written by `python -m eval items`, not by a recipe\ntasks: [{', '.join(names)}]\n"
    live = run.begin(out, plan, inputs={}, cards={}, main=True, resume=False, recipe_text=asked)
    (out / "heldout").mkdir()
    run.write_text(out / "heldout/items.jsonl", text)
    run.finish(live, {"items": text.count("\n")})
