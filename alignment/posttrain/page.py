"""doctor.html: what training will see, in one file without scripts or links; every token coloured by what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment import templates
from alignment.posttrain import diagnosis
from alignment.posttrain.diagnosis import Diagnosis, Shown

WINDOW = 240  # tokens at each end of a long row, or on each side of where it would be cut
HALF = 8  # tokens, at most, that spell one character together


def render(found: Diagnosis) -> str:
    """Write a diagnosis as HTML. All text of models and data is escaped."""
    environment = templates.environment(Path(__file__).parent, html=True)
    environment.filters["said"] = diagnosis.said
    text: str = environment.get_template("doctor.html.jinja").render(found=found)
    return text


def colour(name: str, why: str, ids: Sequence[int], labels: Sequence[int], tokenizer: Any, limit: int | None) -> Shown:
    """Spell a row token by token, each with what it is; the middle of a long row is left out.

    `limit`: tokens from there on would be cut off.
    """
    special = set(tokenizer.all_special_ids)
    ids = [max(i, 0) for i in ids]  # a negative one is no token, and cannot be spelled
    pieces: list[tuple[str, str]] = []
    at = 0
    for start, stop in _parts(len(ids), limit):
        if start > at:
            pieces.append((f"{start - at:,} tokens", "gap"))
        for text, first, after in _spelled(tokenizer, ids, start, stop):
            kind = "learnt" if first < len(labels) and labels[first] != -100 else "asked"
            kind += " mark" if ids[first] in special else ""
            kind += " cut" if limit is not None and first >= limit else ""
            pieces.append((text, kind))
            at = after
    if at < len(ids):
        pieces.append((f"{len(ids) - at:,} tokens", "gap"))
    return Shown(name, why, pieces)


def _parts(size: int, limit: int | None) -> list[tuple[int, int]]:
    """The parts of a row that are shown."""
    middle = [(limit - WINDOW, limit + WINDOW)] if limit is not None else []
    wanted = [(0, WINDOW // 4), *middle] if middle else [(0, WINDOW), (size - WINDOW, size)]
    found: list[tuple[int, int]] = []
    for start, stop in wanted:
        start, stop = max(start, found[-1][1] if found else 0), min(stop, size)
        if start < stop:
            found.append((start, stop))
    return found


def _spelled(tokenizer: Any, ids: Sequence[int], start: int, stop: int) -> Iterator[tuple[str, int, int]]:
    """Pieces of text with their first token and the one after their last: tokens that are half a character go together."""
    at = start
    while at < stop:
        end = at + 1
        text = tokenizer.decode(list(ids[at:end]), clean_up_tokenization_spaces=False)
        while "\ufffd" in text and end < min(stop, at + HALF):
            longer = tokenizer.decode(list(ids[at : end + 1]), clean_up_tokenization_spaces=False)
            end += 1
            if "\ufffd" not in longer:
                text = longer
        if "\ufffd" in text:  # no character at all: the token stands alone
            end = at + 1
        yield text.replace("\n", "\u21b5\n"), at, end
        at = end
