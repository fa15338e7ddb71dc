"""The stage `sweep`: small trainings over budgets and model scales, or learning rates and batches, as ordinary runs.

Each cell is a pre-training run below this one, several at once, within a budget of CPU time, resumed (`cells`). What they
gave goes into rows.jsonl, which `python -m alignment fit` reads. A cell that diverges is a result: the guard leaves out
what cannot be learnt from, and the row says so.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignment import cells, recipe, run, schema
from alignment.errors import RecipeError
from alignment.hardware import Hardware
from alignment.models import presets
from alignment.models.presets import Shape
from alignment.scaling import laws, shapes, table

Numbers = dict[str, float | int | str]


@dataclass(frozen=True)
class Cell:
    """One training of a sweep."""

    name: str
    data: str
    flops: float  # the budget
    shape: Shape
    scale: int  # M of the shape
    sequence: int
    batch_size: int
    learning_rate: float
    seed: int

    @property
    def updates(self) -> int:
        """Whole updates of the budget."""
        return max(1, round(self.flops / self.scale / (self.batch_size * self.sequence)))

    def words(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe that is varied, with this cell's words."""
        optim = {**raw["optim"], "learning_rate": self.learning_rate, "warmup_steps": laws.warmup(self.updates)}
        return {
            **raw,
            "data": self.data,
            "model": {name: getattr(self.shape, name) for name in ("layers", "width", "heads", "kv_heads", "tie")},
            "optim": optim,
            "tokens": self.updates * self.batch_size * self.sequence,
            "batch_size": self.batch_size,
            "guard": {"most": self.updates},
            "seed": self.seed,
        }

    def row(self, done: run.Finished) -> dict[str, Any]:
        """What the finished run gave. Operations are of the shape and the tokens that it really saw."""
        numbers, tokens = done.numbers, int(done.numbers["tokens"])
        matrices = presets.matrices(self.shape)
        embedding = int(numbers["parameters"]) - presets.parameters(replace(self.shape, vocab=0))
        embedding //= 1 if self.shape.tie else 2
        return {
            "run": self.name,
            "data": self.data,
            "budget": self.flops,
            "flops": self.scale * tokens,
            "scale": self.scale,
            "scale_6n1": 6 * matrices,
            "scale_6n2": 6 * (matrices + embedding),
            "tokens": tokens,
            "layers": self.shape.layers,
            "width": self.shape.width,
            "sequence": self.sequence,
            "vocab": embedding // self.shape.width,
            "learning_rate": self.learning_rate,
            "batch_tokens": self.batch_size * self.sequence,
            "seed": self.seed,
            "bits_per_byte": numbers["bits_per_byte"],
            # a model that is worse than the frequencies of bytes has learnt nothing, whatever its last loss was
            "diverged": bool(numbers["skipped"]) or numbers["bits_per_byte"] > numbers["bits_per_byte_unigram"],
            "tokenizer": done.manifest["outputs"]["model/tokenizer.json"]["sha256"][:16],
        }


def run_grid(recipe: recipe.Sweep, here: run.Run, hardware: Hardware) -> Numbers:
    """Run all cells and write rows.jsonl; return how many there are and how many diverged."""
    *before, _ = cells.chain(recipe)
    planned = grid(recipe)
    said = {name: f"# cell of {here.path.name}\n" + cells.yaml_text(words) for name, (_, words) in planned.items()}
    after = {name: words.get("after") for name, (_, words) in planned.items()}
    parts = [{name: said[name] for name in wave} for wave in waves(after)]
    workers = cells.train(here, hardware, recipe.budget_cpu_hours, before, *parts)
    rows = [cell.row(run.read(here.path / name)) for name, (cell, _) in planned.items()]
    run.write_text(here.path / table.ROWS, "".join(json.dumps(row) + "\n" for row in rows))
    return {"runs": len(rows), "diverged": sum(row["diverged"] for row in rows), "cpu_hours": workers.spent / 3600}


def grid(words: recipe.Sweep) -> dict[str, tuple[Cell, dict[str, Any]]]:
    """Every cell by name, with its recipe's words. Raises RecipeError where two scales give the same shape."""
    of = cells.chain(words)[-1]
    raw = schema.parse(of.file.read_text(encoding="utf-8"), str(of.file))
    if not isinstance(of.recipe, recipe.Pretrain):
        raise RecipeError(f"of: {words.of}: a {of.recipe.stage} recipe; a sweep varies a pretrain recipe.")
    found: dict[str, tuple[Cell, dict[str, Any]]] = {}
    for cell in _cells(words, of.recipe.sequence_length, of.recipe.model.tie is not False):
        if cell.name in found:
            raise RecipeError(f"budgets: two cells are called {cell.name}. Scales must lie apart, values stand once.")
        found[cell.name] = (cell, cell.words(raw))
    if words.share_first_stages:
        _share(found)
    for name, (_, changed) in found.items():
        recipe.validate(changed, f"{of.file}, cell {name}")
    return found


def _share(found: Mapping[str, tuple[Cell, dict[str, Any]]]) -> None:
    """Let cells that differ in budget alone go on from one another: the smallest's warm-up, the largest's guard."""
    alike: dict[Cell, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for cell, changed in found.values():  # the cheapest first
        alike[replace(cell, name="", flops=0.0)].append((cell.name, changed))
    if all(len(same) == 1 for same in alike.values()):
        raise RecipeError(
            "share_first_stages: no two cells differ in their budget alone. Give learning_rate and batch_tokens as values "
            "(a law gives each budget its own), and a scale in several budgets."
        )
    for same in alike.values():
        warmup, guard = same[0][1]["optim"]["warmup_steps"], same[-1][1]["guard"]
        for _, changed in same:
            changed["optim"]["warmup_steps"], changed["guard"] = warmup, guard
        for (name, shorter), (_, longer) in itertools.pairwise(same):
            shorter["keep_turn"], longer["after"] = True, name


def waves(after: Mapping[str, str | None]) -> Iterator[list[str]]:
    """Cells that can run side by side, in the order in which they can; `after` names the one that a cell goes on from."""
    ready = [name for name, shorter in after.items() if shorter not in after]
    while ready:
        yield ready
        ready = [name for name, shorter in after.items() if shorter in ready]


def _cells(words: recipe.Sweep, sequence: int, tie: bool) -> Iterator[Cell]:
    """All cells, the cheapest budgets first, and all of a seed before the next."""
    for budget in sorted(words.budgets, key=lambda budget: budget.flops):
        rates, batches = (chosen.at(budget.flops) for chosen in (words.learning_rate, words.batch_tokens))
        for seed, data, scale in itertools.product(budget.seeds, words.data, budget.scales):
            shape = shapes.nearest(scale, sequence, vocab=1, tie=tie)
            for rate, batch in itertools.product(rates, batches):
                size = max(1, round(batch / sequence))
                rate = float(f"{rate:.3g}")
                name = f"{data}-{budget.flops:.3g}-{shape.layers}x{shape.width}-b{size}-lr{rate:g}-seed{seed}"
                real = presets.flops_per_token(shape, sequence)
                yield Cell(name.replace("+", ""), data, budget.flops, shape, real, sequence, size, rate, seed)
