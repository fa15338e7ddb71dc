"""Quality rules that look at one document: each names the reason why it goes.

The thresholds come from the recipe; the paper names the criteria (linguistic and semantic quality) but no values.
Shares are of characters that are not white space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from alignment.corpus.documents import Document

Filter = Callable[[Document], str | None]  # None keeps it; text is the reason it goes

LETTERS = re.compile(r"[^\W\d_]+")
SYMBOLS = re.compile(r"(?:[^\w\s]|_)+")


def shorter_than(characters: int) -> Filter:
    """Refuse documents with fewer characters."""
    reason = f"shorter than {characters} characters"
    return lambda document: reason if len(document.text) < characters else None


def longer_than(characters: int) -> Filter:
    """Refuse documents with more characters, where a single one would outweigh its domain."""
    reason = f"longer than {characters} characters"
    return lambda document: reason if len(document.text) > characters else None


def letters_below(share: float) -> Filter:
    """Refuse tables of numbers and drawings: too few letters of any script."""
    reason = f"letters below {share:.0%}"
    return lambda document: reason if _share(LETTERS, document.text) < share else None


def symbols_above(share: float) -> Filter:
    """Refuse markup and encoded data: too many marks."""
    reason = f"symbols above {share:.0%}"
    return lambda document: reason if _share(SYMBOLS, document.text) > share else None


def repeated_lines_above(share: float) -> Filter:
    """Refuse boilerplate: too many characters in lines that the document has had before."""
    reason = f"repeated lines above {share:.0%}"

    def check(document: Document) -> str | None:
        lines = [stripped for line in document.text.splitlines() if (stripped := line.strip())]
        repeated = sum(map(len, lines)) - sum(map(len, set(lines)))
        return reason if repeated > share * max(sum(map(len, lines)), 1) else None

    return check


def keep(documents: Iterable[Document], filters: Sequence[Filter]) -> tuple[list[Document], dict[str, list[Document]]]:
    """Pass documents through all filters; return the survivors, and the dropped by the first reason that took them."""
    kept: list[Document] = []
    dropped: dict[str, list[Document]] = {}
    for document in documents:
        reason = next((text for check in filters if (text := check(document))), None)
        if reason is None:
            kept.append(document)
        else:
            dropped.setdefault(reason, []).append(document)
    return kept, dropped


def _share(characters: re.Pattern[str], text: str) -> float:
    visible = sum(map(len, text.split()))
    return sum(map(len, characters.findall(text))) / max(visible, 1)
