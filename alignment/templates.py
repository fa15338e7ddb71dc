"""Pages and cards are filled from Jinja templates that lie beside the code that fills them; one way of reading them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(folder: Path, *, html: bool) -> Environment:
    """Read the templates of a folder. A name that is not given is an error; in HTML all values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,  # a card is a file of lines
    )
