"""Imports point upwards: a module imports only from the layers above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# The first prefix that fits gives a module's layer (house rules; 1 is the top).
LAYERS = [
    ("alignment.errors", 1),
    ("alignment.terminal", 2),
    ("alignment.templates", 2),
    ("alignment.schema", 2),
    ("alignment.corpus.documents", 2),
    ("alignment.objectives", 2),
    ("alignment.section", 2),
    ("alignment.sieve", 2),
    ("alignment.recipe", 2),
    ("alignment.manifest", 2),
    ("alignment.run", 2),
    ("alignment.chat", 2),
    ("alignment.lineage", 3),
    ("alignment.hardware", 3),
    ("alignment.layouts", 3),
    ("alignment.rows", 3),
    ("alignment.data_card", 3),
    ("alignment.models.presets", 3),
    ("alignment.models.memory", 3),
    ("alignment.scaling.laws", 3),
    ("alignment.scaling.shapes", 3),
    ("alignment.scaling.plan", 3),
    ("alignment.scaling.costs", 3),
    ("alignment.scaling.launch", 3),
    ("alignment.scaling.table", 3),
    ("alignment.scaling.isoflop", 3),
    ("alignment.scaling.request", 5),
    ("alignment.scaling.sweep", 7),
    ("alignment.corpus", 3),
    ("alignment.tokenizer", 3),
    ("alignment.verify", 3),
    ("eval.statistics", 3),
    ("alignment.meter", 4),
    ("alignment.models", 4),
    ("alignment.generate", 4),
    ("alignment.unpack", 4),
    ("alignment.pretrain", 5),
    ("alignment.posttrain", 5),
    ("alignment.scaling", 5),
    ("alignment.hub", 6),
    ("alignment.cards", 6),
    ("alignment.model_card", 6),
    ("alignment.scores", 6),
    ("alignment.findings", 3),
    ("alignment.cells", 7),
    ("alignment.experiment", 7),
    ("alignment.preflight", 7),
    ("alignment.talk", 7),
    ("alignment.__main__", 7),
]
EVAL_MAY_IMPORT = {
    "alignment.errors", "alignment.terminal", "alignment.templates", "alignment.recipe",
    "alignment.run", "alignment.chat", "alignment.data_card",
    "alignment.hardware", "alignment.corpus", "alignment.verify", "alignment.models", "alignment.generate",
    "alignment.manifest", "alignment.tokenizer",
}  # fmt: skip
HEAVY = {"torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes"}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("alignment", "eval"):
        for file in (ROOT / package).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def imports(file: Path) -> list[tuple[str, bool]]:
    """Imported module names, and whether the import stands at the top of the module."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = set(ast.walk(ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)], [])))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{file}, line {node.lineno}: a relative import"
            assert not node.level, f"{file}, line {node.lineno}: a relative import"
            found += [(f"{node.module}.{alias.name}", node in top) for alias in node.names]
    return found


def layer(name: str) -> int | None:
    return next((number for prefix, number in LAYERS if name == prefix or name.startswith(prefix + ".")), None)


def test_imports_point_upwards() -> None:
    looked = 0
    for name, file in modules().items():
        if not name.startswith("alignment."):
            continue
        mine = layer(name)
        assert mine is not None, f"{name} has no layer: add it to LAYERS"
        for imported, _ in imports(file):
            theirs = layer(imported)
            if theirs is not None:
                looked += 1
                assert theirs <= mine, f"{name} (layer {mine}) imports {imported} (layer {theirs})"
            assert imported.split(".")[0] != "eval" or name == "alignment.__main__", f"{name} imports {imported}"
    assert looked > 50


def test_eval_never_imports_a_stage() -> None:
    looked = 0
    for name, file in modules().items():
        if name.startswith("eval"):
            for imported, _ in imports(file):
                if imported.startswith("alignment"):
                    looked += 1
                    assert any(imported.startswith(ok) for ok in EVAL_MAY_IMPORT), f"{name} imports {imported}"
    assert looked > 10


def test_light_modules_load_nothing_heavy() -> None:
    looked = 0
    for name, file in modules().items():
        for imported, at_top in imports(file):
            root = imported.split(".")[0]
            if root in HEAVY and at_top:
                number = layer(name) or 4
                looked += 1
                assert number >= 4, f"{name} (layer {number}) imports {root} at its top"
                assert root != "trl" or name.startswith("alignment.posttrain"), f"{name} imports trl"
    assert looked > 3


def test_the_recipe_module_loads_no_torch() -> None:
    code = "import sys, alignment.recipe, alignment.experiment, alignment.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_python_in_recipes_or_cards() -> None:
    assert list((ROOT / "recipes").rglob("*.yaml"))
    assert not [*(ROOT / "recipes").rglob("*.py"), *(ROOT / "data_cards").rglob("*.py")]
