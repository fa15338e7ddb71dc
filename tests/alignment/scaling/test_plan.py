"""`plan`: a budget, said in any way, becomes a run that can be launched; at once and without torch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment import experiment, hardware, preflight
from alignment.errors import HardwareError, PlumblineError, RecipeError
from alignment.hardware import Profile
from alignment.models import presets
from alignment.scaling import costs, launch, laws, plan, request, shapes
from alignment.scaling.plan import Machine
from alignment.scaling.request import Request

ROOT = Path(__file__).parents[3]
LIKE = Path("recipes/deepseek-llm-7b")
NO_AMOUNT = (0.0, -1.0, float("nan"), float("inf"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def asked(**words: Any) -> Request:
    usual: dict[str, Any] = {
        "budget": None, "gpus": None, "hours": None, "dollars": None, "on": "8x80gb", "mfu": None,
        "data_quality": "current", "pivot": None, "sequence": 4096, "like": LIKE,
    }  # fmt: skip
    return Request(**(usual | words))


def test_it_answers_without_torch() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); from alignment.__main__ import app\n"
        "app(['plan', '--budget', '1e20'], standalone_mode=False)\n"
        "print(round(time.perf_counter() - began, 2), 'seconds'); sys.exit('torch' in sys.modules)"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "M = 5.251e+09" in done.stdout
    print(f"plan took {done.stdout.splitlines()[-1]}, the process {time.perf_counter() - began:.2f}")  # noqa: T201


def test_a_plan_holds_the_laws_and_a_shape_that_can_be_built() -> None:
    found = asked(budget=1e20).plan()
    assert found.learning_rate == 9.86e-4
    assert found.batch_size == 256
    assert found.warmup == laws.warmup(found.updates)
    assert found.scale == presets.flops_per_token(found.shape, 4096)
    assert found.scale == pytest.approx(found.scale_law, rel=0.02)
    assert found.tokens * found.scale == pytest.approx(1e20, rel=1e-3)
    assert found.tokens == found.updates * 256 * 4096


@given(st.floats(1e16, 1e25), st.sampled_from(["8x80gb", "nodes-32x8x80gb", "cpu-2", "gpu-24gb"]))
def test_every_batch_divides_over_the_devices(flops: float, name: str) -> None:
    profile = hardware.read(name)
    wanted = laws.BATCH_TOKENS(flops)
    size = plan.batch_size(wanted, 4096, profile)
    hardware.split(profile, size, 4096)
    assert abs(size * 4096 - wanted) <= max(0.05 * wanted, 4096 * profile.processes)


@pytest.mark.parametrize(("scale", "layers", "width", "kv_heads"), [(4.327e11, 95, 8192, 8), (2.3e9, 20, 960, 15)])
def test_depth_comes_before_width_and_keys_are_shared_at_the_top(
    scale: float, layers: int, width: int, kv_heads: int
) -> None:
    found = shapes.nearest(scale, 4096, 102_400)
    assert (found.layers, found.width, found.kv_heads) == (layers, width, kv_heads)


@given(st.floats(1.2e8, 2e12))
def test_the_shape_comes_near_its_scale_and_hardware_likes_it(scale: float) -> None:
    found = shapes.nearest(scale, 4096, 102_400)
    assert presets.flops_per_token(found, 4096) == pytest.approx(scale, rel=0.12 if scale < 1e9 else 0.02)
    assert found.width % (128 if found.width >= 1024 else 64 if found.width >= 256 else 16) == 0
    assert found.ffn == presets.ffn(found.width)
    assert found.layers <= shapes.DEEPEST


def test_a_scale_below_any_model_is_refused() -> None:
    with pytest.raises(RecipeError, match="no shape between"):
        shapes.nearest(100, 4096, 512)


def test_hours_and_money_pay_for_the_output_layer_too() -> None:
    by_hours = asked(gpus="8xH100", hours=24.0, mfu=0.4).plan()
    operations = 8 * 989.4e12 * 0.4 * 24 * 3600
    assert by_hours.operations == pytest.approx(operations, rel=2e-3)
    assert by_hours.flops < 0.95 * operations
    profile = Profile(device="cuda", micro_tokens=4096, processes=8, peak_flops=1e15, mfu=0.5, price_per_hour=2.0)
    machine = Machine.of(profile, None, None)
    assert machine.hours_for(384.0) == 24
    assert machine.speed() == 4e15
    assert Machine.of(profile, None, 0.25).speed() == 2e15


@pytest.mark.parametrize(("words", "complaint"), [
    ({}, "give one of --budget"),
    ({"budget": 1e20, "dollars": 5.0}, "give one of --budget"),
    ({"budget": 1e20, "hours": 5.0}, "give one of --budget"),
    *(({"budget": amount}, "--budget .*: give FLOPs above 0") for amount in NO_AMOUNT),
    *(({"hours": amount, "gpus": "8xH100", "mfu": 0.4}, "--hours .*: give hours above 0") for amount in NO_AMOUNT),
    *(({"dollars": amount}, "--dollars .*: give money above 0") for amount in NO_AMOUNT),
    *(({"budget": 1e20, "mfu": amount}, "--mfu .*: give a share of the peak above 0") for amount in NO_AMOUNT),
    ({"hours": 1e300, "gpus": "8xH100", "mfu": 0.4}, "inf FLOPs a token has no shape"),
    ({"budget": 1e20, "pivot": "nan:1"}, "write FLOPS:SCALE"),
    ({"budget": 1e20, "pivot": "1e17:inf"}, "write FLOPS:SCALE"),
    ({"budget": 1e10}, "not one update|no shape between"),
    ({"gpus": "8xH100"}, "give one of --budget"),
    ({"gpus": "8xH100", "hours": 5.0}, "say --mfu"),
    ({"gpus": "8 H100", "hours": 5.0, "mfu": 0.4}, "as in 8xH100"),
    ({"gpus": "8xH1", "hours": 5.0, "mfu": 0.4}, "H1 is not known"),
    ({"hours": 5.0, "mfu": 0.4}, "the peak is not known"),
    ({"dollars": 500.0}, "price_per_hour"),
    ({"budget": 1e20, "data_quality": "early"}, "--pivot"),
    ({"budget": 1e20, "data_quality": "early", "pivot": "1e17"}, "write FLOPS:SCALE"),
    ({"budget": 1e20, "on": "nowhere"}, "Profiles: 8x80gb"),
    ({"budget": 1e20, "like": Path("recipes/claims/multi-step/none")}, "none: no such folder"),
    ({"budget": 1e20, "like": Path("recipes/smollm2-135m")}, "one tokenizer recipe and one shards recipe"),
])  # fmt: skip
def test_what_cannot_be_planned_is_refused_with_the_way_out(words: Any, complaint: str) -> None:
    with pytest.raises(PlumblineError, match=complaint):
        asked(**words).plan()


def test_what_leaves_the_fitted_range_is_said() -> None:
    assert asked(budget=1e19).plan().warnings == ()
    assert [text.split(":")[0] for text in asked(budget=1e22).plan().warnings] == [
        "model and tokens",
        "learning rate and batch",
    ]
    wide = asked(budget=1e17, on="nodes-32x8x80gb").plan().warnings
    assert any(text.startswith("the batch:") for text in wide)


def test_memory_is_said_by_part_for_every_profile_and_recompute_saves() -> None:
    found = asked(budget=1e20).plan()
    text = "\n".join(costs.lines(found, "8x80gb", asked().machine, None))
    assert all(name in text for name in hardware.names())
    assert all(f"{part} " in text for part in ("weights", "gradients", "optimizer", "activations", "logits", "shards"))
    profile = hardware.read("8x80gb")
    less, more = (costs.held(found, "8x80gb", profile, recompute) for recompute in (True, False))
    assert less is not None
    assert more is not None
    assert less.total < more.total
    assert less.optimizer == more.optimizer == 8 * -(-presets.parameters(found.shape) // 8)


def test_the_written_folder_is_ready_and_nothing_is_overwritten(tmp_path: Path) -> None:
    found = asked(budget=1e20).plan()
    out = tmp_path / "recipes" / "mine"
    launch.write(out, found, "8x80gb", LIKE)
    planned = experiment.plan(out)
    assert [item.recipe.stage for item in planned] == ["corpus", "tokenizer", "shards", "pretrain"]
    for item in planned:
        preflight.check(item)
    said = preflight.forecast(planned[-1], "8x80gb")
    assert f"{presets.parameters(found.shape):,} parameters" in said
    assert f"{found.updates:,} updates" in said
    with pytest.raises(RecipeError, match="nothing is overwritten"):
        launch.write(out, found, "8x80gb", LIKE)


def test_a_probe_on_another_machine_is_refused() -> None:
    with pytest.raises(HardwareError, match="leave --gpus out"):
        list(request.answer(asked(budget=1e15, gpus="8xH100", on="cpu-1", sequence=128), probe=True))


@pytest.mark.slow
def test_a_probe_measures_speed_and_memory_here() -> None:
    words = ["--budget", "1e13", "--sequence", "128", "--on", "cpu-1", "--like", "recipes/claims/scaling", "--probe"]
    command = [sys.executable, "-m", "alignment", "plan", *words]  # alone: a process trains in one precision
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].startswith("probe        20 steps here")
    assert any("that were measured here" in line for line in lines)


def test_a_probe_that_does_not_fit_is_refused_before_anything_is_built() -> None:
    with pytest.raises(HardwareError, match=r"GiB a process are needed, .* are free"):
        list(request.answer(asked(budget=1e23, on="cpu-1"), probe=True))
