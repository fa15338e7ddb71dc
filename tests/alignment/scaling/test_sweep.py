"""The stage `sweep`: which cells a grid has, what each row says, and the way from recipes to rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment import cells, experiment, recipe
from alignment.errors import RecipeError
from alignment.models import presets
from alignment.run import Finished
from alignment.scaling import fit, laws, sweep, table

ROOT = Path(__file__).parents[3]
WORDS: dict[str, Any] = {
    "stage": "sweep",
    "of": "claims/scaling/pretrain",
    "data": ["shards-clean", "shards-raw"],
    "budgets": [{"flops": 1e10, "scales": [1.23e5, 4.8e5], "seeds": [0, 1]}, {"flops": 1e9, "scales": [1.23e5]}],
    "learning_rate": {"factor": 0.19, "exponent": -0.125},
    "batch_tokens": {"factor": 0.258, "exponent": 0.3271},
    "budget_cpu_hours": 1.0,
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def words(**changed: Any) -> recipe.Sweep:
    found = recipe.validate(WORDS | changed, "test")
    assert isinstance(found, recipe.Sweep)
    return found


def test_every_budget_has_every_scale_corpus_and_seed_the_cheapest_first() -> None:
    found = sweep.grid(words())
    assert len(found) == 2 + 8
    assert next(iter(found)).startswith("shards-clean-1e09-1x32")
    for cell, said in found.values():
        assert said["tokens"] * cell.scale == pytest.approx(cell.flops, rel=0.1)
        assert said["tokens"] % (said["batch_size"] * 128) == 0
        assert said["optim"]["warmup_steps"] == laws.warmup(cell.updates)
        assert cell.scale == presets.flops_per_token(cell.shape, 128)


def test_rates_and_batches_follow_the_law_or_are_all_tried() -> None:
    _, said = next(iter(sweep.grid(words()).values()))
    assert said["optim"]["learning_rate"] == pytest.approx(0.19 * 1e9**-0.125, rel=5e-3)
    assert said["batch_size"] == max(1, round(0.258 * 1e9**0.3271 / 128))
    tried = sweep.grid(words(learning_rate={"values": [1e-3, 2e-3]}, batch_tokens={"values": [256, 512]}))
    places = {(s["optim"]["learning_rate"], s["batch_size"]) for c, s in tried.values() if c.flops == 1e9}
    assert places == {(1e-3, 2), (1e-3, 4), (2e-3, 2), (2e-3, 4)}


def test_first_stages_are_shared_where_budgets_alone_differ() -> None:
    budgets = [{"flops": c, "scales": [1.23e5]} for c in (4e10, 1e10, 2e10)]
    fixed: dict[str, Any] = {"learning_rate": {"values": [1e-3, 2e-3]}, "batch_tokens": {"values": [256]}}
    found = sweep.grid(words(budgets=budgets, share_first_stages=True, **fixed))
    after = {name: said.get("after") for name, (_, said) in found.items()}
    assert len(after) == 12
    for name, (cell, said) in found.items():
        shorter = found[after[name]][0] if after[name] else None
        assert (shorter is None) == (cell.flops == 1e10)
        if shorter:
            assert (shorter.flops, shorter.learning_rate, shorter.data) == (cell.flops / 2, cell.learning_rate, cell.data)
        assert said.get("keep_turn", False) == (cell.flops < 4e10)
        assert said["optim"]["warmup_steps"] == laws.warmup(round(1e10 / cell.scale / 256))
    waves = list(sweep.waves(after))
    assert [{found[name][0].flops for name in wave} for wave in waves] == [{1e10}, {2e10}, {4e10}]
    assert sum(map(len, waves)) == 12


@pytest.mark.parametrize(("changed", "complaint"), [
    ({"share_first_stages": True}, "no two cells differ in their budget alone"),
    ({"of": "quickstart/shards", "data": ["corpus"]}, "a shards recipe; a sweep varies a pretrain recipe"),
    ({"of": "claims/scaling/nothing"}, "no recipes/claims/scaling/nothing.yaml"),
    ({"data": ["shards-none"]}, "reads run 'shards-none'"),
    ({"budgets": [{"flops": 1e10, "scales": [1.23e5, 1.24e5]}]}, "Scales must lie apart"),
    ({"budgets": [{"flops": 1e10, "scales": [1.0]}]}, "no shape between"),
    ({"learning_rate": {"factor": 1.0}}, "give values, or factor and exponent"),
    ({"learning_rate": {"values": [1e-3], "factor": 1.0, "exponent": 0.0}}, "give values, or factor and exponent"),
])  # fmt: skip
def test_a_grid_that_cannot_be_meant_is_refused(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        sweep.grid(words(**changed))


def test_a_row_says_what_was_learnt_from_and_whether_it_diverged() -> None:
    cell, _ = next(iter(sweep.grid(words()).values()))
    parameters = presets.parameters(cell.shape) - cell.shape.width * (cell.shape.vocab - 512)

    def row(loss: float, skipped: int) -> dict[str, Any]:
        numbers = {
            "tokens": 1280, "parameters": parameters, "skipped": skipped,
            "bits_per_byte": loss, "bits_per_byte_unigram": 4.8,
        }  # fmt: skip
        return cell.row(Finished(Path("x"), {"numbers": numbers, "outputs": {"model/tokenizer.json": {"sha256": "a" * 64}}}))

    good = row(2.0, 0)
    assert (good["flops"], good["vocab"], good["sequence"]) == (cell.scale * 1280, 512, 128)
    assert good["scale_6n1"] < good["scale"] == cell.scale
    assert good["scale_6n2"] - good["scale_6n1"] == 6 * 512 * cell.shape.width
    assert [row(2.0, 0)["diverged"], row(2.0, 1)["diverged"], row(5.0, 0)["diverged"]] == [False, True, True]


@pytest.mark.slow
def test_a_sweep_runs_its_cells_and_leaves_rows_that_can_be_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "RECIPES", tmp_path / "recipes")
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    for name, text in {
        "corpus": "stage: corpus\ndata: [{installed: stdlib, limit_bytes: 300000}]\nshares: {code: 1}\n"
        "bytes: 200000\nheld_out: 0.1\n",
        "tokenizer": "stage: tokenizer\ndata: corpus\nvocab_size: 320\nsample_bytes: 50000\n",
        "shards": "stage: shards\ndata: corpus\ntokenizer: tokenizer\n",
        "pretrain": "stage: pretrain\ndata: shards\nmodel: {layers: 1, width: 32, heads: 1, tie: true}\n"
        "optim: {learning_rate: 1e-3}\ntokens: 1000\nbatch_size: 2\nsequence_length: 64\n",
    }.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    chosen = words(
        of="toy/pretrain", data=["shards"], budgets=[{"flops": c, "scales": [1e5]} for c in (2e9, 4e9)],
        learning_rate={"values": [4e-3, 1e8]}, batch_tokens={"values": [256]}, share_first_stages=True,
    )  # fmt: skip
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(WORDS), encoding="utf-8")
    item = experiment.Planned("sweep", file, chosen, tmp_path / "runs/sweep")
    (done,) = experiment.execute({"sweep": sweep.run_grid}, [item], profile="cpu", data_root=None, resume=False)
    assert done.numbers["runs"] == 4
    good, wild, longer, _ = table.read([done.path])
    assert not good.diverged
    assert wild.diverged
    assert longer.loss < good.loss
    assert "resumed from" in (done.path / "recipes" / f"{longer.run}.out").read_text(encoding="utf-8")
    kept, excluded = table.learnt([good, wild])
    assert excluded == [wild.run]
    assert fit.parted(kept) == (kept, [])
