"""Can the scores be believed? Tables of the checks that a recipe may ask for; empty where it does not."""

from __future__ import annotations

from collections.abc import Iterator

from eval.report.cells import Cell, Found, Table, Value

NO_SCORE = ""  # no item of that kind


def contamination(found: Found) -> Table:
    """Items that stand in the training text, and the score without them."""
    rows: list[tuple[Cell, ...]] = []
    for model, task, checked in _of(found, "contamination"):
        counts = (f"{checked[key]:,}" for key in ("n", "marked", "too_short"))
        scores = (_score(checked[part]) for part in ("all", "clean", "contaminated"))
        change = checked["difference"]
        difference = Value(change["score"], change["low"], change["high"], signed=True) if change else NO_SCORE
        rows.append((model, task, *counts, *scores, difference))
    return Table(
        "Contamination",
        "Found: items that share 8 words or 13 Chinese characters in a row with the training text of the runs that the "
        "recipe names; what they share stands in each run's eval/contamination/, for a phrase that everybody uses is no "
        "leak. Too short: too few words to tell. Scores are over items, the difference is all minus clean.",
        ("model", "task", "n", "found", "too short", "all", "clean", "found items", "difference"),
        rows,
    )


def invariance(found: Found) -> Table:
    """Answers that depend on what else was in the batch."""
    rows: list[tuple[Cell, ...]] = []
    for model, task, checked in _of(found, "invariance"):
        flips = ", ".join(flip["id"] for flip in checked["flips"]) or "none"
        gap = f"log-probabilities by {checked['largest_gap']:.1e}" if "largest_gap" in checked else ""
        rows.append((model, task, str(checked["asked_again"]), flips, gap or f"{checked['texts_differ']} texts"))
    return Table(
        "The same answer alone",
        "Some items, asked again one by one. Flipped: another reading or another verdict. A text may differ where two "
        "tokens were a near tie.",
        ("model", "task", "asked again", "flipped", "differs"),
        rows,
    )


def _of(found: Found, check: str) -> Iterator[tuple[str, str, Found]]:
    for model in found["models"]:
        for name, task in model["tasks"].items():
            if check in task:
                yield model["name"], name, task[check]


def _score(part: Found | None) -> Cell:
    return Value(part["score"], *part["interval"]) if part else NO_SCORE
