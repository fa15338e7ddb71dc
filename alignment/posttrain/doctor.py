"""The gate before fine-tuning: render the whole set as training will see it, and refuse if it would teach something else.

    rows or pairs, tokenised -> `rows()` or `pairs()` -> Diagnosis -> `gate()`: a page in the run, and go or no go

Violations stop a training. Notes do not: they count what may be meant.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.posttrain import diagnosis, page
from alignment.posttrain.diagnosis import Bias, Cut, Diagnosis, Fault, Shown
from alignment.posttrain.examination import Case, Examination, digest
from alignment.run import Run, write_text

PAGE = "doctor.html"
SHOWN = 3  # rows of a kind on the page
SIDES = ("chosen", "rejected")
LENGTHS = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}

LEAKED = "a held-out question is trained on"
IDENTICAL = "chosen and rejected are the same tokens"


# -- instruction rows -------------------------------------------------------------------------------------------------


def rows(
    found: Collection[Mapping[str, Any]],
    validation: Collection[Mapping[str, Any]],
    cut: Cut,
    dropped: Mapping[str, int],
    tokenizer: Any,
    where: str,
    *,
    overlong: float,
) -> Diagnosis:
    """Examine instruction rows; `overlong` is the share that may be longer than the limit.

    Rows are gone through twice and not held, so they may lie on a disk.
    """
    exam = Examination(tokenizer, cut.limit)

    def cases() -> Iterator[Case]:
        return (_case(row, number) for number, row in enumerate(found, 1))

    for case in cases():
        exam.see(case)
        exam.unique(case)
    for number, row in enumerate(validation, 1):
        case = _case(row, number, "validation ")
        exam.see(case, held_out=True)
        if digest(case.question) in exam.asked:
            exam.note(LEAKED, case.name)
    exam.compare()
    return _conclude(exam, cases, "rows", len(found), cut, dropped, where, overlong)


def _case(row: Mapping[str, Any], number: int, kind: str = "") -> Case:
    return Case(f"{kind}{row.get('id') or f'row {number}'}", row["input_ids"], row["labels"], row.get("messages"))


# -- preference pairs -------------------------------------------------------------------------------------------------


def pairs(
    found: Collection[Mapping[str, Any]],
    validation: Collection[Mapping[str, Any]],
    cut: Cut,
    dropped: Mapping[str, int],
    tokenizer: Any,
    where: str,
    *,
    overlong: float,
) -> Diagnosis:
    """Examine preference pairs: each side as a row, and the two sides against each other."""
    exam = Examination(tokenizer, cut.limit)

    def cases() -> Iterator[Case]:
        return (case for number, pair in enumerate(found, 1) for case in _sides(pair, number))

    for kind, part in (("", found), ("held-out ", validation)):
        for number, pair in enumerate(part, 1):
            both = _sides(pair, number, kind)
            name = both[0].name.removesuffix(f", {SIDES[0]}")
            for case in both:
                exam.see(case, held_out=bool(kind))
            if pair["chosen_ids"] == pair["rejected_ids"]:
                exam.blame(IDENTICAL, both[1])
            if kind and digest(pair["prompt_ids"]) in exam.asked:
                exam.note(LEAKED, name)
            if not kind:
                exam.unique(Case(name, pair["prompt_ids"] + pair["chosen_ids"] + pair["rejected_ids"], both[0].labels))
    exam.compare()
    concluded = _conclude(exam, cases, "pairs", len(found), cut, dropped, where, overlong)
    concluded.bias = bias([(len(pair["chosen_ids"]), len(pair["rejected_ids"])) for pair in found])
    return concluded


def _sides(pair: Mapping[str, Any], number: int, kind: str = "") -> list[Case]:
    name = f"{kind}{pair.get('id') or f'pair {number}'}"
    return [_side(pair, side, name) for side in SIDES]


def _side(pair: Mapping[str, Any], side: str, name: str) -> Case:
    ids = [*pair["prompt_ids"], *pair[f"{side}_ids"]]
    messages = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair[side]}]
    return Case(f"{name}, {side}", ids, [-100] * len(pair["prompt_ids"]) + list(pair[f"{side}_ids"]), messages)


def bias(lengths: Sequence[tuple[int, int]]) -> Bias | None:
    """How often the chosen answer is the longer one; Wilson's 95 % interval. None where all are equally long."""
    from scipy import stats

    longer = sum(chosen > rejected for chosen, rejected in lengths)
    unequal = sum(chosen != rejected for chosen, rejected in lengths)
    if not unequal:
        return None
    low, high = stats.binomtest(longer, unequal).proportion_ci(method="wilson")
    means = np.mean(lengths, axis=0)
    return Bias(longer, unequal, float(low), float(high), float(means[0]), float(means[1]))


# -- the verdict ------------------------------------------------------------------------------------------------------


def gate(found: Diagnosis, here: Run) -> dict[str, int]:
    """Write the page into the run, say what stands out, and refuse a set with a violation. Returns the counts."""
    if here.main:
        write_text(here.path / PAGE, page.render(found))
    for fault in found.notes:
        here.say(f"note: {diagnosis.said(fault)}")
    if found.bias and found.bias.confounded:
        here.say(f"note: {found.bias.text}")
    if found.violations:
        raise DataError(diagnosis.complaint(found))
    return found.counts


def _conclude(
    exam: Examination,
    cases: Callable[[], Iterator[Case]],
    kind: str,
    count: int,
    cut: Cut,
    dropped: Mapping[str, int],
    where: str,
    overlong: float,
) -> Diagnosis:
    """Put together what was seen, and find the cases worth looking at."""
    violations = sorted(exam.violations.values(), key=lambda fault: -fault.count)
    whole = count + cut.count
    if not count:
        violations.append(Fault(f"none of the {kind} is left to learn from. See what was left out, or name other data"))
    if cut.count > overlong * whole:
        share = f"{cut.count:,} of {whole:,} {kind} are longer than max_length {cut.limit} and would be left out"
        violations.append(Fault(f"{share}, overlong allows {overlong:g}. Raise max_length, or overlong if that is meant"))
    lengths = {"tokens": np.asarray(exam.lengths), "learnt tokens": np.asarray(exam.learnt)}
    return Diagnosis(
        where=where,
        kind=kind,
        counts={kind: count, "tokens": int(lengths["tokens"].sum()), "learnt_tokens": int(lengths["learnt tokens"].sum())},
        compared=exam.compared,
        violations=violations,
        notes=sorted(exam.notes.values(), key=lambda fault: -fault.count),
        roles={role: (tokens, learnt) for role, (tokens, learnt) in sorted(exam.roles.items(), reverse=True)},
        lengths={name: _quantiles(values) for name, values in lengths.items() if len(values)},
        cut=cut,
        dropped=dict(dropped),
        shown=list(_shown(exam, cases, violations, cut)),
    )


def _shown(exam: Examination, cases: Callable[[], Iterator[Case]], violations: Sequence[Fault], cut: Cut) -> Iterator[Shown]:
    for fault in violations:
        if case := exam.broken.get(fault.first):
            yield page.colour(case.name, fault.text, case.ids, case.labels, exam.tokenizer, limit=None)
    lengths, learnt = np.asarray(exam.lengths), np.asarray(exam.learnt)
    places = {
        "longest": np.argsort(-lengths, kind="stable")[:SHOWN],
        "shortest answer": np.argsort(learnt, kind="stable")[:SHOWN],
        "drawn at random": np.random.default_rng(0).permutation(len(lengths))[:SHOWN],
    }
    strangest, found = _again(exam, cases, {int(place) for some in places.values() for place in some})
    kinds = {name: [found[place] for place in some.tolist()] for name, some in places.items()}
    kinds["strangest (its learnt tokens are the rarest of the set)"] = strangest
    for why, kept in kinds.items():
        for case in kept:
            yield page.colour(case.name, why, case.ids, case.labels, exam.tokenizer, limit=None)
    for _, name, ids, labels in cut.longest:
        why = f"too long, left out; what max_length {cut.limit} would cut off is struck"
        yield page.colour(name, why, ids, labels, exam.tokenizer, limit=cut.limit)


def _again(exam: Examination, cases: Callable[[], Iterator[Case]], places: set[int]) -> tuple[list[Case], dict[int, Case]]:
    """Go through the cases once more: the strangest, and those at some places.

    Strange: its learnt tokens are the most surprising on average, if every token came as often as in the set.
    """
    rarity = {token: -math.log(count) for token, count in exam.counts.items()}
    strangest: list[tuple[float, int, Case]] = []
    found: dict[int, Case] = {}
    for place, case in enumerate(cases()):
        if place in places:
            found[place] = case
        learnt = case.learnt
        mark = (sum(map(rarity.__getitem__, learnt)) / max(1, len(learnt)), -place)
        if len(strangest) < SHOWN:
            heapq.heappush(strangest, (*mark, case))
        elif mark > strangest[0][:2]:
            heapq.heapreplace(strangest, (*mark, case))
    return [case for *_, case in sorted(strangest, key=lambda one: one[:2], reverse=True)], found


def _quantiles(values: NDArray[np.int32]) -> dict[str, int]:
    return {name: int(np.quantile(values, at, method="higher")) for name, at in LENGTHS.items()}
