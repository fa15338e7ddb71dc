"""The stage `experiment`: every cell an ordinary run, several at once, within a budget of CPU time, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment import cells, experiment, manifest, recipe, run
from alignment.cells import Job, Workers
from alignment.errors import RecipeError, RunError
from alignment.hardware import Hardware

ROOT = Path(__file__).parents[2]
CPU = Hardware("cpu", "cpu", "float32", "test", "sdpa", 512, False, 1, threads=2)
FILES = {
    "text": "stage: corpus\ndata: [{installed: stdlib, limit_bytes: 120000}]\nshares: {code: 1}\n"
    "bytes: 100000\nheld_out: 0.2\n",
    "other": "stage: corpus\ndata: [{installed: stdlib, limit_bytes: 10}]\nshares: {code: 1}\nbytes: 10\n",
    "words": "stage: tokenizer\ndata: text\nvocab_size: 320\nsample_bytes: 50000\n",
}
WORDS: dict[str, Any] = {
    "stage": "experiment",
    "of": "toy/words",
    "over": {"digits": ["split", "merged"], "vocab_size": [320, 352]},
    "seeds": [0, 1],
    "measure": {"metric": "bytes_per_token"},
    "budget_cpu_hours": 1.0,
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes below the only recipes that the stage knows."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cells, "RECIPES", tmp_path / "recipes")
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def here(tmp_path: Path) -> run.Run:
    path = tmp_path / "runs" / "claims" / "toy"
    (path / "recipes").mkdir(parents=True)
    return run.Run(path, {}, {}, True, False, {})


def words(**changed: Any) -> recipe.Experiment:
    found = recipe.validate(WORDS | changed, "test")
    assert isinstance(found, recipe.Experiment)
    return found


def python(name: str, code: str) -> Job:
    return Job(name, ("-c", code))


@pytest.mark.usefixtures("toy")
def test_every_combination_gets_every_seed_and_the_recipe_is_edited_as_by_set() -> None:
    found = cells.grid(words(), cells.chain(words())[-1])
    assert len(found) == 8
    assert next(iter(found)) == "split-320-seed0"
    cell, said = found["merged-352-seed1"]
    assert said == yaml.safe_load(FILES["words"]) | {"digits": "merged", "vocab_size": 352, "seed": 1}
    assert cell.values == {"digits": "merged", "vocab_size": 352}


def test_the_chain_holds_what_the_recipe_and_its_variants_read_and_nothing_else(toy: Path) -> None:
    assert [item.name for item in cells.chain(words())] == ["text", "words"]
    (toy / "more.yaml").write_text(FILES["text"], encoding="utf-8")
    chosen = cells.chain(words(over={"data": ["text", "more"]}))
    assert [item.name for item in chosen] == ["more", "text", "words"]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("changed", "complaint"), [
    ({"of": "toy/none"}, r"of: toy/none: no .*none\.yaml"),
    ({"over": {"digits": ["split", "split"]}}, "two cells are called split-seed0"),
    ({"over": {"digit": ["split"]}}, "Did you mean 'digits'"),
    ({"over": {"data": ["nowhere"]}}, r"reads run 'nowhere', and no nowhere\.yaml"),
])  # fmt: skip
def test_a_grid_that_cannot_be_meant_is_refused_before_anything_runs(changed: Any, complaint: str) -> None:
    chosen = words(**changed)
    with pytest.raises(RecipeError, match=complaint):
        cells.grid(chosen, cells.chain(chosen)[-1])


@pytest.mark.parametrize(("changed", "complaint"), [
    ({"seeds": [1, 1]}, "every seed once"),
    ({"over": {"seed": [1, 2]}}, "say `seeds:`"),
    ({"measure": {"metric": "a", "task": "b"}}, "exactly one of metric and task"),
    ({"measure": {}}, "exactly one of metric and task"),
    ({"over": {}}, "over"),
])  # fmt: skip
def test_an_experiment_that_says_too_much_or_too_little_is_refused(changed: Any, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        words(**changed)


CHAIN = {
    "mix": "stage: mixture\nstart: {run: base}\ndata: [{run: rows}]\nmax_length: 64\n",
    "one": "stage: sft\nstart: {run: base}\ndata: [{run: mix}]\nmax_length: 64\n"
    "optim: {learning_rate: 1e-3, batch_size: 8}\n",
    "two": "stage: sft\nstart: {run: one}\ndata: [{run: mix}]\nmax_length: 64\n"
    "optim: {learning_rate: 1e-3, batch_size: 8}\n",
    "base": "stage: pretrain\ndata: rows\nmodel: {preset: quickstart}\noptim: {learning_rate: 1e-3}\ntokens: 512\n"
    "batch_size: 2\nsequence_length: 64\n",
    "rows": "stage: curriculum\ndocuments: 8\ninstructions: 8\nproblems: 8\nheldout_problems: 1\nheldout_items: 1\n"
    "shares: {math: 1}\n",
}
STAGED: dict[str, Any] = {
    "of": "toy/two", "over": {"optim.epochs": [1.0, 2.0]}, "seeded": ["one"], "against_start": True,
    "measure": [{"metric": "loss"}, {"metric": "stop_rate"}],
}  # fmt: skip


def test_a_recipe_that_cells_read_can_be_made_anew_for_every_seed_and_measured_too(
    toy: Path, here: run.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in CHAIN.items():
        (toy / f"{name}.yaml").write_text(text, encoding="utf-8")
    started: list[list[str]] = []
    monkeypatch.setattr(Workers, "all", lambda _, jobs: started.append([job.name for job in jobs]))
    worth = {"one-seed0": 1.0, "one-seed1": 2.0, "1-seed0": 3.0, "1-seed1": 4.0, "2-seed0": 5.0, "2-seed1": 6.0}
    monkeypatch.setattr(cells, "_score", lambda measure, cell: worth[cell.name] + (measure.name == "stop_rate"))
    numbers = cells.measure(words(**STAGED), here, CPU)
    assert started[-2:] == [["one-seed0", "one-seed1"], ["1-seed0", "2-seed0", "1-seed1", "2-seed1"]]
    assert ["one"] not in started
    said = yaml.safe_load((here.path / "recipes" / "2-seed1.yaml").read_text())
    assert (said["start"], said["seed"], said["stage"]) == ({"run": "one-seed1"}, 1, "sft")
    assert yaml.safe_load((here.path / "recipes" / "one-seed1.yaml").read_text())["seed"] == 1
    assert numbers == {
        "loss one": 1.5, "loss 1.0": 3.5, "loss 2.0": 5.5, "stop_rate one": 2.5, "stop_rate 1.0": 4.5, "stop_rate 2.0": 6.5,
    }  # fmt: skip
    assert "difference from one" in (here.path / "stop_rate" / "table.md").read_text()


@pytest.mark.parametrize(("changed", "complaint"), [
    ({"seeded": ["on"]}, "seeded: on is not read"),
    ({"seeded": ["base"]}, "reads base, so it is made anew as well"),
    ({"over": {"optim.epochs": [1], "seed_of": [1]}}, "vary exactly one field"),
    ({"over": {"start.run": ["one"]}}, "and not start"),
])  # fmt: skip
def test_what_is_made_anew_must_be_whole(toy: Path, changed: Any, complaint: str) -> None:
    for name, text in CHAIN.items():
        (toy / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=complaint):
        cells.grid(chosen := words(**STAGED | changed), cells.chain(chosen)[-1])


def test_the_budget_stops_new_runs_clearly_and_a_larger_one_goes_on(here: run.Run) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    jobs = [python(name, burn) for name in "abcdef"]
    tight = Workers(here, 0.3 / 3600, CPU)
    with pytest.raises(RunError, match=r"CPU hours are spent of .* (\d) of 6 runs were not started.*--resume"):
        tight.all(jobs)
    ran = [json.loads(line)["run"] for line in (here.path / cells.COSTS).read_text().splitlines()]
    assert ran == ["a", "b"] or ran == ["b", "a"]
    again = Workers(here, 0.3 / 3600, CPU)
    assert again.spent == pytest.approx(tight.spent, abs=0.02)  # what was spent before counts
    with pytest.raises(RunError, match="6 of 6 runs were not started"):
        again.all(jobs)
    Workers(here, 1.0, CPU).all(jobs[2:])


def test_runs_go_side_by_side_with_one_thread_each(here: run.Run) -> None:
    meet = "import os, pathlib, sys, time\nassert os.environ['OMP_NUM_THREADS'] == '1'\n"
    meet += f"place = pathlib.Path({str(here.path)!r})\nname, other = '{{}}', '{{}}'\n(place / name).touch()\n"
    meet += "end = time.monotonic() + 60\nwhile not (place / other).exists():\n"
    meet += "    time.sleep(0.01)\n    assert time.monotonic() < end, 'alone'\n"
    Workers(here, 1.0, CPU).all([python("a", meet.format("a", "b")), python("b", meet.format("b", "a"))])


def test_a_run_that_fails_is_named_with_what_it_said_and_the_others_are_ended(here: run.Run) -> None:
    started = here.path / "started"
    slow = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(600)"
    fails = (
        f"import pathlib, sys, time\nwhile not pathlib.Path({str(started)!r}).exists(): time.sleep(0.01)\nsys.exit('ouch')"
    )
    with pytest.raises(RunError, match=r"bad: stopped with code 1: ouch"):
        Workers(here, 1.0, CPU).all([python("slow", slow), python("bad", fails)])
    booked = [json.loads(line)["run"] for line in (here.path / cells.COSTS).read_text().splitlines()]
    assert sorted(booked) == ["bad", "slow"]  # what an interrupted run cost counts too


def test_the_budget_is_no_part_of_the_fingerprint_but_the_varied_recipe_is(toy: Path) -> None:
    one, other = (words(budget_cpu_hours=hours).model_dump(mode="json") for hours in (1.0, 2.0))
    assert manifest.fingerprint(one, {}, {}) == manifest.fingerprint(other, {}, {})
    before = experiment._of(words())
    (toy / "text.yaml").write_text(FILES["text"].replace("100000", "90000"), encoding="utf-8")
    assert experiment._of(words()) != before


def test_cells_lie_outside_the_seal_of_their_experiment(tmp_path: Path) -> None:
    for name in ("claim", "claim/cell"):
        live = run.begin(
            tmp_path / name,
            manifest.compose(words={"stage": "x", "seed": 0}, inputs={}, cards={}, hardware={}),
            inputs={}, cards={}, main=True, resume=False, recipe_text="",
        )  # fmt: skip
        (live.path / "out.txt").write_text("1")
    inner, outer = tmp_path / "claim/cell", tmp_path / "claim"
    run.finish(run.Run(inner, {}, {}, True, False, run.read_manifest(inner)), {})
    sealed = run.finish(run.Run(outer, {}, {}, True, False, run.read_manifest(outer)), {})
    assert set(sealed.manifest["outputs"]) == {"out.txt", "recipe.yaml"}
    (inner / "eval").mkdir()
    (inner / "eval" / "report.json").write_text("{}")
    assert run.read(outer).fingerprint == sealed.fingerprint


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_an_experiment_runs_its_cells_and_says_what_they_show(tmp_path: Path) -> None:
    chosen = words(over={"digits": ["split", "merged"]})
    numbers = {}
    for resume in (False, True):  # the second time nothing is left to run
        (done,) = experiment.execute(
            {"experiment": cells.measure},
            [experiment.Planned("claim", _file(tmp_path), chosen, tmp_path / "runs/claim")],
            profile="cpu", data_root=None, resume=resume,
        )  # fmt: skip
        numbers = done.numbers
    assert numbers["merged"] > 0
    assert numbers["split"] > 0
    cell = run.read(tmp_path / "runs/claim/merged-seed1", "tokenizer")
    assert cell.manifest["recipe"]["digits"] == "merged"
    assert cell.manifest["inputs"]["text"] == run.read(tmp_path / "runs/claim/text").fingerprint
    costs = [json.loads(line)["run"] for line in (done.path / cells.COSTS).read_text().splitlines()]
    assert sorted(costs) == ["merged-seed0", "merged-seed1", "split-seed0", "split-seed1", "text"]
    rows = [json.loads(line) for line in (done.path / "cells.jsonl").read_text().splitlines()]
    assert {(row["digits"], row["seed"]) for row in rows} == {(way, seed) for way in ("split", "merged") for seed in (0, 1)}


def _file(folder: Path) -> Path:
    path = folder / "claim.yaml"
    path.write_text(yaml.safe_dump(WORDS), encoding="utf-8")
    return path


@pytest.mark.usefixtures("toy")
def test_the_cells_look_for_data_where_the_experiment_does(here: run.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Job] = []
    monkeypatch.setattr(Workers, "all", lambda _, jobs: started.extend(jobs))
    monkeypatch.setattr(cells, "_score", lambda *_: 1.0)
    monkeypatch.setattr(cells.findings, "write", lambda *_: {})
    cells.measure(words(), here, CPU)
    assert started
    assert not [job for job in started if "--data-root" in job.words]
    here.data_root = Path("texts")
    started.clear()
    cells.measure(words(), here, CPU)
    assert all(job.words[job.words.index("--data-root") + 1] == "texts" for job in started)
