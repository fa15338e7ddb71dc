"""Rows of trainings become laws: one folder a corpus, with the rows, fit.json, table.md and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment import run
from alignment.errors import DataError
from alignment.scaling import isoflop, parametric, rates, table
from alignment.scaling.isoflop import Basin, Fit
from alignment.scaling.laws import Interval
from alignment.scaling.rates import Near
from alignment.scaling.table import Row


def fit(paths: Sequence[Path], out: Path) -> dict[str, str]:
    """Fit every corpus in the rows; return what to say of each. Replaces an earlier fit: it can be made again."""
    corpora: dict[str, list[Row]] = {}
    for row in table.read(paths):
        corpora.setdefault(row.data, []).append(row)
    said = {}
    for data, rows in corpora.items():
        folder = out / data
        folder.mkdir(parents=True, exist_ok=True)
        table.write(folder / table.ROWS, rows)
        said[data] = _fit(rows, folder)
    return said


def rows(folder: Path) -> list[Row]:
    """The IsoFLOP runs of a fitted corpus, without those that diverged."""
    if not (folder / table.ROWS).exists():
        inside = ", ".join(sorted(path.parent.name for path in folder.glob(f"*/{table.ROWS}")))
        hint = f"Name one of the corpora in it: {inside}." if inside else "Make one: python -m alignment fit."
        raise DataError(f"{folder}: no fit here. {hint}")
    kept, _ = table.learnt(table.read([folder]))
    return parted(kept)[0]


def parted(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Part the runs of IsoFLOP curves from those of grids: learning rates x batches of one model at one budget."""
    tried: dict[tuple[float, float], set[tuple[float | None, float | None]]] = {}
    for row in rows:
        tried.setdefault((row.budget, row.scale), set()).add((row.learning_rate, row.batch_tokens))
    grids = [row for row in rows if len(tried[row.budget, row.scale]) > 1]
    return [row for row in rows if len(tried[row.budget, row.scale]) == 1], grids


def _fit(given: Sequence[Row], folder: Path) -> str:
    from alignment.scaling import pictures

    kept, excluded = table.learnt(given)
    curves, grids = parted(kept)
    found: dict[str, Any] = {"data": given[0].data, "unit": given[0].unit, "runs": len(kept), "excluded": excluded}
    text = [f"# {given[0].data}: {len(kept)} runs, {given[0].unit}", ""]
    text += [f"Excluded, diverged: {', '.join(excluded)}.", ""] if excluded else []
    if grids:
        near = rates.grid(grids)
        found["rates"] = _rates(near, text)
        run.write_text(folder / "rates.svg", pictures.grid(grids, near))
    if curves:
        basins, refused = isoflop.basins(curves)
        run.write_text(folder / "basins.md", "\n".join(_basins(basins, refused)) + "\n")
        laws = Fit.of(basins, refused)
        found["isoflop"] = _isoflop(laws, refused, curves, text)
        run.write_text(folder / "isoflop.svg", pictures.curves(laws))
    run.write_text(folder / "fit.json", json.dumps(found, indent=1) + "\n")
    run.write_text(folder / "table.md", "\n".join(text) + "\n")
    return "\n".join(text)


def _rates(near: Sequence[Near], text: list[str]) -> dict[str, Any]:
    text += ["| budget | best rate | best batch, tokens | loss | within 0.25 % |", "|---|---|---|---|---|"]
    for each in near:
        places = ", ".join(f"{rate:g} x {batch:,.0f}" for rate, batch in each.near)
        text.append(f"| {each.budget:.3g} | {each.best[0]:g} | {each.best[1]:,.0f} | {each.loss:.4f} | {places} |")
    text.append("")
    found = rates.laws(near)
    for name, law in found.items():
        exponent = f"; exponent {law.exponent}" if law.exponent else "; one budget, so no exponent"
        text.append(f"{name}: {{factor: {law.power.factor:.4g}, exponent: {law.power.exponent:.4g}}}{exponent}")
    text += [*(edge for each in near for edge in each.edges), ""]
    return {name: {**vars(law.power), "interval": law.exponent} for name, law in found.items()}


def _basins(found: Sequence[Basin], refused: Sequence[str]) -> list[str]:
    lines = ["| budget | best M | best D | loss | runs within 0.25 %, M |", "|---|---|---|---|---|"]
    for basin in found:
        near = ", ".join(f"{scale:.3g}" for scale in basin.near)
        tokens = basin.budget / basin.scale
        lines.append(f"| {basin.budget:.3g} | {basin.scale:.3g} | {tokens:.3g} | {basin.loss:.4f} | {near} |")
    return [*lines, "", *(f"Not fitted: {reason}" for reason in refused)]


def _isoflop(laws: Fit, refused: Sequence[str], curves: Sequence[Row], text: list[str]) -> dict[str, Any]:
    scale, tokens, loss = laws.exponents()
    surface = parametric.fit(curves)
    text += [
        *_basins(laws.basins, refused),
        "",
        "| law | factor | exponent, 95 % |",
        "|---|---|---|",
        f"| M of C | {laws.law().factor:.4g} | {scale} |",
        f"| D of C | {1 / laws.law().factor:.4g} | {tokens} |",
        f"| loss of C | {laws.loss_law().factor:.4g} | {loss} |",
        f"| M of C, by the parametric loss | | {surface.exponent} |",
    ]
    budgets = [basin.budget for basin in laws.basins]
    return {
        "range": [min(budgets), max(budgets)],
        "scale": {**vars(laws.law()), "interval": scale},
        "tokens": {"factor": 1 / laws.law().factor, "exponent": tokens.value, "interval": tokens},
        "loss": {**vars(laws.loss_law()), "interval": loss},
        "noise": float(laws.curves.noise[0]),
        "parametric": dict(zip(("alpha", "beta", "E", "A", "B"), map(float, surface.numbers), strict=True))
        | {"exponent": surface.exponent},
        "refused": list(refused),
    }


def measures(rows: Sequence[Row]) -> list[str]:
    """The measures of scale that all rows have besides M."""
    names = [name for name in table.MEASURES if name != "scale"]
    return [name for name in names if all(getattr(row, name) is not None for row in rows)]


def loss_by_measure(rows: Sequence[Row], measure: str, flops: float) -> Interval:
    """Predict the loss at a budget, with another measure of scale in place of M (paper A.2).

    `flops` and the budgets of the curves are then measure x tokens, at the vertex read off between the splits.
    """
    basins, refused = isoflop.basins(isoflop.by_measure(rows, measure))
    own = isoflop.measured_budgets(basins)
    moved = [replace(basin, budget=own[basin.budget]) for basin in basins]
    return Fit.of(moved, refused).loss_at(flops)
