"""Every command in the READMEs parses: options exist, recipes and profiles are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from alignment.__main__ import app as alignment_app
from eval.__main__ import app as eval_app

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in ROOT.rglob("*.md") if not {".venv", "runs", "reports", ".cache", "models"} & set(p.parts))
START = r"(?:accelerate launch .*? -m|python -m)"
COMMAND = re.compile(rf"^\s*(?:\$ )?{START} (alignment|eval)((?: .*?)?)(?:\s+#.*)?$", re.M)


def commands() -> list[tuple[Path, str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```(?:\w*)\n(.*?)```", text, re.S):
            found += [(page, m[1], m[2]) for m in COMMAND.finditer(block)]
        found += [(page, m[1], m[2]) for m in re.finditer(r"`python -m (alignment|eval)( [^`]*)`", text)]
    return found


def test_the_readmes_name_commands() -> None:
    assert len(commands()) >= 5


@pytest.mark.parametrize(("page", "program", "words"), commands(), ids=lambda v: str(v)[-60:])
def test_a_readme_command_parses(page: Path, program: str, words: str) -> None:
    given = shlex.split(words)
    if "..." in given or "{" in words.split("=")[0]:
        pytest.skip("an abbreviated form, not a command")
    command = typer.main.get_command(alignment_app if program == "alignment" else eval_app)
    if hasattr(command, "commands"):
        assert given[0] in command.commands, f"{page}: no command {given[0]}"
        command, given = command.commands[given[0]], given[1:]
    command.make_context("x", list(given))  # raises on an unknown option
    for word in given:
        if word.startswith("recipes/") and word not in ("recipes/mine",):
            assert (ROOT / word).exists(), f"{page}: {word} does not exist"
