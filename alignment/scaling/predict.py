"""A prediction is written before the run, with the time, and never again; its score is written after, beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment import recipe, run
from alignment.errors import DataError, RunError
from alignment.models import presets
from alignment.scaling import fit as fits
from alignment.scaling import isoflop, laws, parametric, shapes, table
from alignment.scaling.laws import Interval
from alignment.scaling.table import Row

SAME = 0.1  # a run scores a prediction whose budget it meets as nearly as this
NOW = "%Y-%m-%dT%H:%M:%SZ"


def predict(folder: Path, flops: float, out: Path) -> dict[str, Any]:
    """Predict a budget's loss from a fit, and write it. Raises RunError where a prediction lies there already."""
    laws.check_amount(flops, "--budget", "FLOPs")
    if out.exists():
        raise RunError(f"{out}: holds a prediction; it is kept as it was made. Name another file.")
    rows = fits.rows(folder)
    found = isoflop.Fit.of(*isoflop.basins(rows))
    budgets = [basin.budget for basin in found.basins]
    scale = found.scale_at(flops)
    said = {
        "predicted": f"{datetime.now(UTC):{NOW}}",
        "data": rows[0].data,
        "flops": flops,
        "beyond": laws.beyond(flops, (min(budgets), max(budgets)), "the fit") or "inside the fitted range",
        "unit": rows[0].unit,
        "scale": scale,
        "tokens": Interval(flops / scale.value, flops / scale.high, flops / scale.low),
        "loss": found.loss_at(flops),
        "loss_parametric": parametric.fit(rows).loss_at(flops),
        "loss_by_measure": _by_measure(rows, flops, scale.value),
        "rows": hashlib.sha256((folder / table.ROWS).read_bytes()).hexdigest(),
    }
    run.write_text(out, json.dumps(said, indent=1) + "\n")
    return said


def _by_measure(rows: Sequence[Row], flops: float, scale: float) -> dict[str, Interval]:
    """Predictions with 6 N1 and 6 N2 in place of M, for the shape that would be built: its budget is another in each."""
    lengths, vocabularies = {row.sequence for row in rows}, {row.vocab for row in rows}
    if None in lengths | vocabularies or len(lengths) > 1 or len(vocabularies) > 1:
        return {}
    shape = shapes.nearest(scale, int(rows[0].sequence or 0), int(rows[0].vocab or 0))
    tokens = flops / presets.flops_per_token(shape, shape.max_positions)
    sizes = {"scale_6n1": presets.matrices(shape), "scale_6n2": presets.matrices(shape) + shape.vocab * shape.width}
    return {name: fits.loss_by_measure(rows, name, 6 * sizes[name] * tokens) for name in fits.measures(rows)}


def score(file: Path, path: Path) -> dict[str, Any]:
    """Compare a prediction with the finished pre-training run it was made for, and write that beside it, once."""
    out = file.with_suffix(".score.json")
    if out.exists():
        raise RunError(f"{out}: this prediction was scored; the record is kept. Predict anew for another run.")
    said = _read(file)
    done = run.read(path, "pretrain")
    words = recipe.validate(done.manifest["recipe"], str(path))
    assert isinstance(words, recipe.Pretrain), "read as such"
    flops = _flops(words, int(done.numbers["tokens"]))
    if done.manifest["started"] <= said["predicted"]:
        raise RunError(
            f"{path}: begun {done.manifest['started']}, predicted {said['predicted']}: no prediction of this run."
        )
    if abs(flops / said["flops"] - 1) > SAME:
        raise RunError(f"{path}: {flops:.4g} FLOPs; predicted were {said['flops']:.4g}. Score the run it was made for.")
    if said["data"] not in ("all", words.data):
        raise RunError(f"{path}: learnt from {words.data}; predicted was {said['data']}. Score the run it was made for.")
    if said["unit"] != "bits_per_byte":
        raise DataError(f"{file}: predicts {said['unit']}; runs are measured in bits per byte. Fit a table that has them.")
    measured = float(done.numbers["bits_per_byte"])
    ways = {"loss": said["loss"], "loss_parametric": said["loss_parametric"], **said["loss_by_measure"]}
    found = {
        "scored": f"{datetime.now(UTC):{NOW}}",
        "run": done.fingerprint,
        "flops": flops,
        "measured": measured,
        "ways": {name: _compared(Interval(*interval), measured) for name, interval in ways.items()},
    }
    run.write_text(out, json.dumps(found, indent=1) + "\n")
    return found


def _read(file: Path) -> dict[str, Any]:
    again = "Write one: python -m alignment predict FIT --budget ..."
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: no prediction ({error}). {again}") from None
    if not isinstance(said, dict) or "loss_by_measure" not in said:
        raise DataError(f"{file}: JSON, and no prediction. {again}")
    return said


def _flops(words: recipe.Pretrain, tokens: int) -> float:
    shape = presets.resolve(words.model, vocab=1, max_positions=words.sequence_length)
    return float(presets.flops_per_token(shape, words.sequence_length) * tokens)


def _compared(interval: Interval, measured: float) -> dict[str, Any]:
    return {
        "predicted": interval,
        "error_percent": 100 * (interval.value / measured - 1),
        "inside": interval.low <= measured <= interval.high,
    }
