"""The pages tell the truth about what is there: commands parse, paths exist, lists name everything that they list."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from alignment import data_card, experiment, hardware, recipe, schema
from alignment.__main__ import app as alignment_app
from eval import tasks
from eval.__main__ import command as eval_command

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "runs", "reports", ".cache", "models"} & set(p.parts))
START = r"(?:accelerate launch (?P<launch>[^`\n]*?) -m|python -m)"
COMMAND = re.compile(rf"^\s*(?:\$ )?{START} (?P<program>alignment|eval)(?P<words> .*?)?(?:\s+#.*)?$", re.M)
SPOKEN = re.compile(rf"`{START} (?P<program>alignment|eval)(?P<words> [^`]*)?`")
STANDS_FOR = {
    "RECIPE": "recipes/quickstart/sft.yaml",
    "FOLDER": "recipes/quickstart",
    "NAME": "belle-0.5m",
    "COMMIT": "c" * 40,
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)[^)]*\)")
OURS = re.compile(r"`((?:alignment|benchmarks|data_cards|docs|eval|recipes|tests)/[\w./-]*)")
YAML = re.compile(r"```yaml\n(.*?)```", re.S)


def commands() -> list[tuple[Path, str, str, str]]:
    """Every command in a block, a table or a sentence: page, launcher's words, program, its words."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"```(?:\w*)\n(.*?)```", text, re.S)
        rest = re.sub(r"```.*?```", "", text, flags=re.S)
        matches = [m for block in blocks for m in COMMAND.finditer(block)] + list(SPOKEN.finditer(rest))
        found += [(page, m["launch"] or "", m["program"], m["words"] or "") for m in matches]
    return found


def test_the_readmes_name_commands() -> None:
    assert len(commands()) >= 15
    assert any(launch for _, launch, _, _ in commands())


@pytest.mark.parametrize(("page", "launch", "program", "words"), commands(), ids=lambda v: str(v)[-60:])
def test_a_readme_command_parses(page: Path, launch: str, program: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    given = [re.sub(r"[A-Z]{4,}", lambda m: STANDS_FOR.get(m[0], m[0]), word) for word in shlex.split(words)]
    app, given = (alignment_app, given) if program == "alignment" else eval_command(given)
    command, name = typer.main.get_command(app), program
    if hasattr(command, "commands"):
        assert given, f"{page}: no command is named"
        assert given[0] in command.commands, f"{page}: no command {given[0]}"
        command, name, given = command.commands[given[0]], given[0], given[1:]
    asked = command.make_context("x", list(given)).params  # raises on an unknown option
    for word in [*given, *shlex.split(launch)]:
        if word.startswith(("recipes/", "data_cards/")):
            assert (ROOT / word).exists(), f"{page}: {word} does not exist"
    if "--on" in given:
        assert (ROOT / "recipes/hardware" / given[given.index("--on") + 1]).is_dir(), f"{page}: no such profile"
    if asked.get("task_names"):
        tasks.named(asked["task_names"].split(","), asked.get("protocol", "paper"))
    if asked.get("edits"):
        experiment.plan(Path(asked["path"]), asked["edits"])
    if name == "pin":
        assert re.search(r"hub: (?!none)", Path(asked["file"]).read_text(encoding="utf-8")), f"{page}: not on a hub"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_at_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [place for place in LINK.findall(text) if not (page.parent / place).exists()]
    missing += [place for place in OURS.findall(text) if not (ROOT / place).exists()]
    assert not missing, f"{page}: {missing}"


def test_a_recipe_or_profile_in_a_page_is_one() -> None:
    found = [(page, block) for page in PAGES for block in YAML.findall(page.read_text(encoding="utf-8"))]
    assert len(found) >= 3
    for page, block in found:
        words = schema.parse(block, str(page))
        section = recipe.STAGES[words["stage"]] if "stage" in words else hardware.Profile
        schema.validate(section, words, str(page))


@pytest.mark.parametrize(
    ("page", "listed"),
    [
        ("README.md", [p.name for p in ROOT.glob("alignment/*.py") if p.name != "__init__.py"]),
        ("README.md", [f"{p.name}/" for p in ROOT.glob("alignment/*") if (p / "__init__.py").exists()]),
        (
            "README.md",
            [f"{name}/" for name in ("alignment", "eval", "recipes", "data_cards", "docs", "benchmarks", "tests")],
        ),
        ("benchmarks/README.md", [p.name for p in ROOT.glob("benchmarks/*.py")]),
        ("recipes/README.md", [p.parent.name for p in ROOT.glob("recipes/*/*.yaml")]),
        ("recipes/hardware/README.md", [f"`{p.parent.name}`" for p in ROOT.glob("recipes/hardware/*/profile.yaml")]),
        ("recipes/claims/README.md", [f"{p.parent.name}/README.md" for p in ROOT.glob("recipes/claims/*/README.md")]),
        ("data_cards/README.md", [f"`{reader}`" for reader in data_card.READERS]),
        ("eval/README.md", [f"`{task}`" for task in tasks.TASKS]),
    ],
)
def test_a_list_is_whole(page: str, listed: list[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert listed, f"{page}: nothing to list"
    assert not [name for name in listed if name not in text]
