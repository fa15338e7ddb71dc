"""Every command in the READMEs parses: options exist, recipes and profiles are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from alignment.__main__ import app as alignment_app
from eval.__main__ import command as eval_command

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "runs", "reports", ".cache", "models"} & set(p.parts))
START = r"(?:accelerate launch (?P<launch>[^`\n]*?) -m|python -m)"
COMMAND = re.compile(rf"^\s*(?:\$ )?{START} (?P<program>alignment|eval)(?P<words> .*?)?(?:\s+#.*)?$", re.M)
SPOKEN = re.compile(rf"`{START} (?P<program>alignment|eval)(?P<words> [^`]*)?`")
STANDS_FOR = {"RECIPE": "recipes/quickstart/sft.yaml", "FOLDER": "recipes/quickstart", "NAME": "alpaca-en"}


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
def test_a_readme_command_parses(page: Path, launch: str, program: str, words: str) -> None:
    given = [re.sub(r"[A-Z]{4,}", lambda m: STANDS_FOR.get(m[0], m[0]), word) for word in shlex.split(words)]
    app, given = (alignment_app, given) if program == "alignment" else eval_command(given)
    command = typer.main.get_command(app)
    if hasattr(command, "commands"):
        assert given, f"{page}: no command is named"
        assert given[0] in command.commands, f"{page}: no command {given[0]}"
        command, given = command.commands[given[0]], given[1:]
    command.make_context("x", list(given))  # raises on an unknown option
    for word in [*given, *shlex.split(launch)]:
        if word.startswith(("recipes/", "data_cards/")):
            assert (ROOT / word).exists(), f"{page}: {word} does not exist"
    if "--on" in given:
        assert (ROOT / "recipes/hardware" / given[given.index("--on") + 1]).is_dir(), f"{page}: no such profile"
