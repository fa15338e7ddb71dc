"""A prediction is made once, before its run; a score once, after it. `fit` leaves what both read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing

from alignment import run
from alignment.__main__ import app
from alignment.errors import DataError, RecipeError, RunError
from alignment.models import presets
from alignment.scaling import fit, isoflop, parametric, predict, shapes
from alignment.scaling.request import Request

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(parametric, "REPLICATES", 10)  # how wide intervals are is tested beside it
    monkeypatch.setattr(isoflop, "REPLICATES", 400)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `fit` makes of `rows.jsonl` beside it."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr(parametric, "REPLICATES", 10)
        said = fit.fit([written(folder / "rows.jsonl")], folder / "fits")
    assert "Excluded, diverged: wild." in said["prose"]
    return folder / "fits"


def written(path: Path) -> Path:
    """A sweep as another program could have written it: real shapes, a loss that depends on M and D alone."""
    random = np.random.default_rng(0)
    lines = []
    for budget in (1e15, 4e15, 16e15, 64e15):
        for x in (0.25, 0.5, 1, 2, 4):
            shape = shapes.nearest(0.3 * budget**0.5 * x, 512, 4096)
            scale = presets.flops_per_token(shape, 512)
            loss = 0.5 + 40 / scale**0.3 + 60 / (budget / scale) ** 0.3
            matrices = presets.matrices(shape)
            lines.append({
                "run": f"{budget:g}-{x}", "data": "prose", "C": budget, "M": scale, "D": budget / scale,
                "scale_6n1": 6 * matrices, "scale_6n2": 6 * (matrices + 4096 * shape.width), "sequence": 512, "vocab": 4096,
                "bits_per_byte": loss * (1 + 0.001 * random.standard_normal()),
            })  # fmt: skip
    lines.append(lines[0] | {"run": "wild", "bits_per_byte": 9.0, "diverged": True})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def finished(folder: Path, started: str, tokens: int, measured: float, data: str = "prose") -> Path:
    """A sealed pre-training run, made by hand."""
    words = {
        "stage": "pretrain", "data": data, "model": {"layers": 6, "width": 192, "heads": 6},
        "optim": {"learning_rate": 1e-3}, "tokens": tokens, "batch_size": 8, "sequence_length": 512,
    }  # fmt: skip
    path = folder / "done"
    path.mkdir()
    live = run.Run(path, {}, {}, True, False, {
        "format": "plumbline-run-1", "stage": "pretrain", "fingerprint": "f", "recipe": words, "started": started,
    })  # fmt: skip
    run.finish(live, {"tokens": tokens, "bits_per_byte": measured})
    return path


def test_fit_writes_laws_that_predict_and_plan_read(fits: Path) -> None:
    folder = fits / "prose"
    assert {path.name for path in folder.iterdir()} == {"rows.jsonl", "fit.json", "table.md", "basins.md", "isoflop.svg"}
    found = json.loads((folder / "fit.json").read_text())
    value, low, high = found["isoflop"]["scale"]["interval"]
    assert value == pytest.approx(0.5, abs=0.03)
    assert low < value < high
    asked = Request(1e18, None, None, None, "cpu-1", None, str(folder), None, 512, Path("recipes/claims/scaling"))
    plan = asked.plan()
    assert plan.scale_law == pytest.approx(
        found["isoflop"]["scale"]["factor"] * 1e18 ** found["isoflop"]["scale"]["exponent"]
    )
    assert any("15.6 times above the fitted 1e+15 to 6.4e+16" in text for text in plan.warnings)
    loss = asked.loss(1e18)
    assert loss is not None
    assert loss.low < loss.value < loss.high
    with pytest.raises(RecipeError, match="a fit has its own factor"):
        Request(1e18, None, None, None, "cpu-1", None, str(folder), "1e17:1e8", 512, Path("recipes/claims/scaling")).plan()


def test_a_prediction_is_stored_once_and_scored_once(fits: Path, tmp_path: Path) -> None:
    out = tmp_path / "target.json"
    said = predict.predict(fits / "prose", 2.6e17, out)
    stored = json.loads(out.read_text())
    assert stored["loss"] == list(said["loss"])
    assert set(stored["loss_by_measure"]) == {"scale_6n1", "scale_6n2"}
    with pytest.raises(RunError, match="it is kept as it was made"):
        predict.predict(fits / "prose", 2.6e17, out)
    scale = presets.flops_per_token(presets.Shape(6, 192, 6, 6, presets.ffn(192)), 512)
    done = finished(tmp_path, "2999-01-01T00:00:00Z", round(2.6e17 / scale), said["loss"].value)
    scored = predict.score(out, done)
    assert scored["ways"]["loss"] == {"predicted": said["loss"], "error_percent": pytest.approx(0, abs=1e-6), "inside": True}
    assert json.loads((tmp_path / "target.score.json").read_text())["measured"] == said["loss"].value
    with pytest.raises(RunError, match="was scored; the record is kept"):
        predict.score(out, done)


@pytest.mark.parametrize(("changed", "complaint"), [
    ({"started": "2001-01-01T00:00:00Z"}, "no prediction of this run"),
    ({"tokens": 1000}, "predicted were 2.6e"),
    ({"data": "code"}, "learnt from code; predicted was prose"),
])  # fmt: skip
def test_a_prediction_is_not_scored_by_another_run(
    fits: Path, tmp_path: Path, changed: dict[str, Any], complaint: str
) -> None:
    out = tmp_path / "target.json"
    predict.predict(fits / "prose", 2.6e17, out)
    scale = presets.flops_per_token(presets.Shape(6, 192, 6, 6, presets.ffn(192)), 512)
    words = {"started": "2999-01-01T00:00:00Z", "tokens": round(2.6e17 / scale), "measured": 1.0} | changed
    with pytest.raises(RunError, match=complaint):
        predict.score(out, finished(tmp_path, **words))


def test_a_folder_without_a_fit_is_refused_and_names_those_below(fits: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no fit here\. Name one of the corpora in it: prose"):
        predict.predict(fits, 1e18, tmp_path / "x.json")
    with pytest.raises(DataError, match=r"no fit here\. Make one: python -m alignment fit"):
        predict.predict(tmp_path, 1e18, tmp_path / "x.json")
    (tmp_path / "other.json").write_text("[1]")
    for name in ("none", "other"):
        with pytest.raises(DataError, match=f"{name}.json: .*no prediction"):
            predict.score(tmp_path / f"{name}.json", tmp_path)


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused_and_nothing_is_written(fits: Path, tmp_path: Path, amount: float) -> None:
    with pytest.raises(RecipeError, match=r"--budget .*: give FLOPs above 0"):
        predict.predict(fits / "prose", amount, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_the_commands_say_what_they_found(fits: Path, tmp_path: Path) -> None:
    ask = typer.testing.CliRunner()
    done = ask.invoke(app, ["fit", str(fits.parent / "rows.jsonl"), "--out", str(tmp_path)])
    assert "| M of C |" in done.output
    words = ["predict", str(fits / "prose"), "--budget", "2.6e17", "--out", str(tmp_path / "p.json")]
    assert "4.06 times above" in ask.invoke(app, words).output
