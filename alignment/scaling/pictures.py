"""Pictures of a fit as SVG: IsoFLOP parabolas with their basins, power laws, residuals; grids of rate and batch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from alignment.scaling.isoflop import Fit
from alignment.scaling.rates import Near
from alignment.scaling.table import Row


def curves(fit: Fit) -> str:
    """Draw the parabolas (filled: within 0.25 %), the laws of scale and loss, and what the parabolas leave."""
    with matplotlib.rc_context({"svg.hashsalt": "isoflop", "font.size": 9}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        (parabolas, scales), (losses, residuals) = figure.subplots(2, 2)
        for number, basin in enumerate(fit.basins):
            colour = f"C{number}"
            x = np.array([split.scale for split in basin.splits])
            y = np.array([split.loss for split in basin.splits])
            near = np.isin(x, basin.near)
            parabolas.plot(x, y, "o", color=colour, fillstyle="none", markersize=4)
            parabolas.plot(x[near], y[near], "o", color=colour, markersize=4)
            fine = np.geomspace(x[0], x[-1], 60)
            parabolas.plot(fine, [basin.at(m) for m in fine], color=colour, linewidth=1, label=f"{basin.budget:.2g} FLOPs")
            parabolas.plot(basin.scale, basin.loss, "+", color="black")
            residuals.plot(x, [100 * (v / basin.at(m) - 1) for m, v in zip(x, y, strict=True)], "o-", color=colour)
        budgets = np.array([basin.budget for basin in fit.basins])
        along = np.geomspace(budgets[0] / 2, budgets[-1] * 8, 30)
        for axes, points, law, band, title in (
            (scales, [b.scale for b in fit.basins], fit.law(), fit.scale_at, "best scale M, FLOPs a token"),
            (losses, [b.loss for b in fit.basins], fit.loss_law(), fit.loss_at, "best loss; band: of a new run, 95 %"),
        ):
            found = [band(c) for c in along]
            axes.plot(budgets, points, "+", color="black")
            axes.plot(along, [law(c) for c in along], linewidth=1)
            axes.fill_between(along, [f.low for f in found], [f.high for f in found], alpha=0.2)
            axes.set(xscale="log", yscale="log", xlabel="C, FLOPs")
            axes.set_title(title, loc="left")
        parabolas.set(xscale="log", xlabel="M, FLOPs a token")
        parabolas.set_title("loss at equal C", loc="left")
        parabolas.legend(frameon=False)
        residuals.axhline(0, color="black", linewidth=0.8)
        residuals.set(xscale="log", xlabel="M, FLOPs a token")
        residuals.set_title("off the parabola, per cent", loc="left")
        return _svg(figure)


def grid(rows: Sequence[Row], found: Sequence[Near]) -> str:
    """Draw the loss above the best, in per cent, over learning rate and batch at each budget; boxed: within 0.25 %."""
    with matplotlib.rc_context({"svg.hashsalt": "grid", "font.size": 9}):
        figure = Figure(figsize=(4 * len(found), 3), layout="constrained")
        for axes, near in zip(np.atleast_1d(figure.subplots(1, len(found))), found, strict=True):
            places: dict[tuple[Any, Any], list[float]] = {}
            for row in rows:
                if row.budget == near.budget:
                    places.setdefault((row.learning_rate, row.batch_tokens), []).append(row.loss)
            for (rate, batch), losses in places.items():
                box = {"boxstyle": "round", "facecolor": "none"} if (rate, batch) in near.near else None
                shown = f"{100 * (np.mean(losses) / near.loss - 1):.2f}"
                axes.text(rate, batch, shown, ha="center", va="center", bbox=box)
            tried = [sorted({place[axis] for place in places}) for axis in (0, 1)]
            axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="batch, tokens")
            axes.set(xlim=(tried[0][0] / 1.5, tried[0][-1] * 1.5), ylim=(tried[1][0] / 1.5, tried[1][-1] * 1.5))
            axes.set_title(f"{near.budget:.2g} FLOPs: per cent above {near.loss:.4f}", loc="left")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return text.getvalue()
