"""Every recipe loads, fits its profiles and holds names, never paths; every profile stands on its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from alignment import experiment, hardware, recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted(p for p in (ROOT / "recipes").rglob("*.yaml") if "hardware" not in p.parts)
PROFILES = sorted(p.parent.name for p in (ROOT / "recipes" / "hardware").glob("*/profile.yaml"))


def test_there_are_recipes_and_profiles() -> None:
    assert len(RECIPES) >= 10
    assert len(PROFILES) >= 6


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_recipe_loads_and_fits_its_profiles(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = recipe.load(file)
    assert found.fits
    for name in found.fits:
        hardware.check_fit(found, name, file)
    assert getattr(getattr(found, "start", None), "folder", None) is None, "recipes hold names, never paths"


@pytest.mark.parametrize("folder", sorted({p.parent for p in RECIPES}), ids=lambda p: p.name)
def test_a_folder_of_recipes_has_an_order(folder: Path) -> None:
    planned = experiment.plan(folder)
    seen: set[str] = set()
    for item in planned:
        assert item.recipe.runs() <= seen, f"{item.name} reads a run that comes later"
        seen.add(item.name)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_agrees_with_its_accelerate_config(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    profile = hardware.read(name)
    config = yaml.safe_load((hardware.PROFILES / name / "accelerate.yaml").read_text())
    assert config["num_processes"] == profile.processes
    assert config.get("use_cpu", False) == (profile.device == "cpu")
    assert config["distributed_type"] != "MULTI_CPU", "starts one process silently"
    if config["distributed_type"] == "FSDP":
        assert config["fsdp_config"]["fsdp_version"] == 2


def test_the_slurm_script_is_shell_and_starts_the_profile_beside_it() -> None:
    scripts = list((ROOT / "recipes" / "hardware").glob("*/job.slurm"))
    assert scripts
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        name = script.parent.name
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
        assert f"--config_file recipes/hardware/{name}/accelerate.yaml" in text
        assert f"--on {name} " in text
        config = yaml.safe_load((script.parent / "accelerate.yaml").read_text())
        each = config["num_processes"] // config["num_machines"]
        assert f"#SBATCH --nodes={config['num_machines']}\n" in text
        assert f"#SBATCH --gpus-per-node={each}\n" in text
