"""Pin a hub name: ask the hub once which commit it means today, and write that commit into the file.

`revision: unpinned` in a data card or in a recipe's `start:` is refused wherever it would be loaded; this replaces it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from alignment import data_card, run, schema
from alignment.errors import HubError
from alignment.recipe import UNPINNED

COMMIT = re.compile(r"[0-9a-f]{40}")
LINE = re.compile(rf"(?m)^([^#\n]*\brevision:[ \t]*){UNPINNED}\b")


def pin(path: Path) -> tuple[str, str]:
    """Replace `revision: unpinned` in a data card or recipe by today's commit; return hub name and commit."""
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(f"{path}: cannot be read as UTF-8 text ({error}). Name a data card or a recipe.") from None
    card = path.suffix == ".md"
    head = data_card.front_matter(text, path) if card else text
    hub, revision = _named(schema.parse(head, str(path)), path, card)
    if revision != UNPINNED:
        raise HubError(f"{path}: {hub} is pinned to {revision} already. Write `revision: {UNPINNED}` to pin it anew.")
    places = LINE.findall(head)
    if len(places) != 1:
        raise HubError(f"{path}: `revision: {UNPINNED}` stands {len(places)} times on lines of its own kind; keep one.")
    found = commit(hub, "dataset" if card else "model")
    run.write_text(path, LINE.sub(rf"\g<1>{found}", text, count=1))
    return hub, found


def commit(hub: str, kind: str) -> str:
    """Ask the hub for the newest commit of a model or data set."""
    from huggingface_hub import HfApi

    with data_card.asking_hub(hub):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        found = api.repo_info(hub, repo_type=kind, timeout=30).sha
    if not COMMIT.fullmatch(found or ""):
        raise HubError(f"{hub}: the hub names no commit ({found!r}). Write the commit hash into the file by hand.")
    return str(found)


def _named(raw: object, path: Path, card: bool) -> tuple[str, str]:
    section = raw if card else raw.get("start") if isinstance(raw, dict) else None
    hub = section.get("hub") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(hub, str) or hub == "none":
        place = "hub:" if card else "start: {hub: ORG/NAME, revision: unpinned}"
        raise HubError(f"{path}: names nothing on the hub (no `{place}`). There is nothing to pin.")
    return hub, str(section.get("revision"))
