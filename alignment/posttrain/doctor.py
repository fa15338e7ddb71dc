"""The gate before fine-tuning: render the whole set as training will see it, and refuse if it would teach something else.

    rows or pairs, tokenised -> `rows()` or `pairs()` -> Diagnosis -> `gate()`: a page in the run, and go or no go

Violations stop a training. Notes do not: they count what may be meant.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.errors import DataError
from alignment.posttrain import diagnosis, page
from alignment.posttrain.diagnosis import Bias, Cut, Diagnosis, Fault, Shown
from alignment.posttrain.examination import Case, Examination, digest
from alignment.run import Run, write_text

PAGE = "doctor.html"
SHOWN = 3  # rows of a kind on the page
LENGTHS = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}

LEAKED = "a held-out question is trained on"
IDENTICAL = "chosen and rejected are the same tokens"


# -- instruction rows -------------------------------------------------------------------------------------------------


def rows(
    found: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    cut: Cut,
    dropped: Mapping[str, int],
    tokenizer: Any,
    where: str,
    *,
    overlong: float,
) -> Diagnosis:
    """Examine instruction rows; `overlong` is the share that may be longer than the limit."""
    exam = Examination(tokenizer, cut.limit)
    cases = [_case(row, number) for number, row in enumerate(found, 1)]
    for case in cases:
        exam.see(case)
        exam.unique(case)
    for number, row in enumerate(validation, 1):
        case = _case(row, number, "validation ")
        exam.see(case, held_out=True)
        if digest(case.question) in exam.asked:
            exam.note(LEAKED, case.name)
    exam.compare()
    return _conclude(exam, cases, "rows", len(cases), cut, dropped, where, overlong)


def _case(row: Mapping[str, Any], number: int, kind: str = "") -> Case:
    return Case(f"{kind}{row.get('id') or f'row {number}'}", row["input_ids"], row["labels"], row.get("messages"))


# -- preference pairs -------------------------------------------------------------------------------------------------


def pairs(
    found: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    cut: Cut,
    dropped: Mapping[str, int],
    tokenizer: Any,
    where: str,
    *,
    overlong: float,
) -> Diagnosis:
    """Examine preference pairs: each side as a row, and the two sides against each other."""
    exam = Examination(tokenizer, cut.limit)
    cases = []
    for kind, part in (("", found), ("held-out ", validation)):
        for number, pair in enumerate(part, 1):
            name = f"{kind}{pair.get('id') or f'pair {number}'}"
            both = [_side(pair, side, name) for side in ("chosen", "rejected")]
            for case in both:
                exam.see(case, held_out=bool(kind))
            if pair["chosen_ids"] == pair["rejected_ids"]:
                exam.blame(IDENTICAL, both[1].name)
            if kind and digest(pair["prompt_ids"]) in exam.asked:
                exam.note(LEAKED, name)
            if not kind:
                exam.unique(Case(name, pair["prompt_ids"] + pair["chosen_ids"] + pair["rejected_ids"], both[0].labels))
                cases += both
    exam.compare()
    concluded = _conclude(exam, cases, "pairs", len(found), cut, dropped, where, overlong)
    concluded.bias = bias([(len(pair["chosen_ids"]), len(pair["rejected_ids"])) for pair in found])
    return concluded


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
    cases: Sequence[Case],
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
    lengths = {"tokens": [len(case.ids) for case in cases], "learnt tokens": [_learnt(case) for case in cases]}
    return Diagnosis(
        where=where,
        kind=kind,
        counts={kind: count, "tokens": sum(lengths["tokens"]), "learnt_tokens": sum(lengths["learnt tokens"])},
        compared=exam.compared,
        violations=violations,
        notes=sorted(exam.notes.values(), key=lambda fault: -fault.count),
        roles={role: (tokens, learnt) for role, (tokens, learnt) in sorted(exam.roles.items(), reverse=True)},
        lengths={name: _quantiles(values) for name, values in lengths.items() if values},
        cut=cut,
        dropped=dict(dropped),
        shown=list(_shown(exam, cases, violations, cut)),
    )


def _shown(exam: Examination, cases: Sequence[Case], violations: Sequence[Fault], cut: Cut) -> Iterator[Shown]:
    named = {fault.first: fault.text for fault in reversed(violations)}
    drawn = np.random.default_rng(0).permutation(len(cases))[:SHOWN].tolist()
    kinds = {
        "longest": heapq.nlargest(SHOWN, cases, key=lambda case: len(case.ids)),
        "strangest (its learnt tokens are the rarest of the set)": _strangest(cases),
        "shortest answer": heapq.nsmallest(SHOWN, cases, key=_learnt),
        "drawn at random": [cases[i] for i in drawn],
    }
    broken = [(named[case.name], case) for case in cases if case.name in named]
    for why, case in [*broken, *((why, case) for why, kept in kinds.items() for case in kept)]:
        yield page.colour(case.name, why, case.ids, case.labels, exam.tokenizer, limit=None)
    for _, name, ids, labels in cut.longest:
        why = f"too long, left out; what max_length {cut.limit} would cut off is struck"
        yield page.colour(name, why, ids, labels, exam.tokenizer, limit=cut.limit)


def _strangest(cases: Sequence[Case]) -> list[Case]:
    """The cases whose learnt tokens are the most surprising on average, if every token came as often as in the set."""
    counts = Counter(label for case in cases for label in case.labels if label != -100)
    rarity = {token: -math.log(count) for token, count in counts.items()}

    def surprise(case: Case) -> float:
        return sum(rarity[label] for label in case.labels if label != -100) / max(1, _learnt(case))

    return heapq.nlargest(SHOWN, cases, key=surprise)


def _learnt(case: Case) -> int:
    return len(case.labels) - case.labels.count(-100)


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    return {name: int(np.quantile(values, at, method="higher")) for name, at in LENGTHS.items()}
