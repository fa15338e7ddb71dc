"""Quality rules that look at one document: each has a name, a threshold from the recipe and a reason why it takes.

The paper names the criteria (2.1: linguistic and semantic quality) but no values. `measures` counts, `judges` asks
models, lists and the row itself; all ask one `Reading`. What is not one of the first five rules of the recipe passes
over code, in domains named so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignment.corpus import judges, measures
from alignment.corpus.documents import Document
from alignment.corpus.reading import CODE, Reading
from alignment.sieve import Filters

ANYWHERE = {"characters", "letter_share", "symbol_share", "repeated_line_share"}
SAID = {"min_characters": "shorter than {} characters", "max_characters": "longer than {} characters"}


@dataclass(frozen=True)
class Rule:
    """One rule of the recipe: its field, its threshold, and the reason it gives for what it takes."""

    name: str
    threshold: Any
    reason: str
    breaks: Callable[[Reading], bool]


def rules(words: Filters, models: Path | None = None) -> list[Rule]:
    """Make the rules of a recipe, in the order of its fields; `models` is the folder that `learnt.learn` filled."""
    found: list[Rule] = []
    for name, value in words:
        if name[4:] in measures.MEASURES and value is not None:
            measure = measures.MEASURES[name[4:]]
            if name == "min_sentences":
                measure = partial(measures.sentences, enough=value)
            found.append(limit(name, value, measure))
    for length, share in sorted(words.max_top_grams.items()):
        found.append(limit(f"max_top_grams.{length}", share, partial(measures.top_run, words=length)))
    for length, share in sorted(words.max_duplicate_grams.items()):
        repeated = partial(measures.repeated_runs, words=length, enough=share)
        found.append(limit(f"max_duplicate_grams.{length}", share, repeated))
    for name, value, measure in judges.scores(words, models):
        found.append(limit(name, value, measure))
    for phrase in words.forbidden:
        found.append(Rule("forbidden", phrase, f"holds {phrase!r}", partial(_holds, phrase=phrase.lower())))
    if words.licences:
        allowed = {licence.casefold() for licence in words.licences}
        found.append(Rule("licences", words.licences, "licence not listed", partial(judges.unlicensed, allowed=allowed)))
    if words.robots:
        found.append(Rule("robots", True, "closed to robots", judges.closed))
    return found


def limit(name: str, value: float, measure: measures.Measure) -> Rule:
    """A rule that takes what measures below `min_`, or above `max_`; what has no measure stays."""
    lowest, what = name.startswith("min_"), name[4:].replace("_", " ")
    said = SAID.get(name, f"{what} {'below' if lowest else 'above'} {{}}")
    anywhere = name[4:] in ANYWHERE

    def breaks(reading: Reading) -> bool:
        if not anywhere and CODE in reading.document.domain:
            return False
        found = measure(reading)
        return found is not None and (found < value if lowest else found > value)

    return Rule(name, value, said.format(value), breaks)


def _holds(reading: Reading, phrase: str) -> bool:
    return CODE not in reading.document.domain and phrase in reading.lower


def refused(document: Document, rules: Sequence[Rule]) -> str | None:
    """Give the reason of the first rule that a document breaks."""
    reading = Reading(document)
    return next((rule.reason for rule in rules if rule.breaks(reading)), None)


def keep(documents: Iterable[Document], rules: Sequence[Rule]) -> tuple[list[Document], dict[str, list[Document]]]:
    """Pass documents through all rules; return the survivors, and the dropped by the first reason that took them."""
    kept: list[Document] = []
    dropped: dict[str, list[Document]] = {}
    for document in documents:
        reason = refused(document, rules)
        if reason is None:
            kept.append(document)
        else:
            dropped.setdefault(reason, []).append(document)
    return kept, dropped
