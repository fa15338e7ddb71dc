"""Pairs from the model itself (paper 4): sample several answers per question, find the better ones, pair them with worse.

How the paper chooses the winner is not stated; here a rule does it where it can (numbers, letters, tests, declining), else
a judge or a reward model (`winner.py`). Answers that are nearly alike or of very unequal length can be kept apart.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, product
from random import Random
from typing import Any

from alignment import chat
from alignment.errors import DataError
from alignment.generate import engine
from alignment.hardware import Hardware
from alignment.posttrain import mixture, start, winner
from alignment.posttrain.pairs import is_heldout
from alignment.recipe import Preferences, Source
from alignment.run import Run, write_text
from alignment.verify import answers as verified
from alignment.verify import judge, problem

Row = dict[str, Any]
Paired = tuple[list[Row], str]  # the pairs of a question, and in a word what its answers gave
ENOUGH = 200  # held-out pairs: an accuracy of 0.75 is then known to 6 points


def collect(recipe: Preferences, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write pairs.jsonl, heldout_pairs.jsonl, samples.jsonl (every answer), ledger.json, and verdicts.jsonl of a judge."""
    rows, dropped = questions(recipe, here)
    if dropped:
        here.say(f"not asked: {mixture.said(dropped)}")
    samples = sample(recipe, here, hardware, rows)
    mixture.save(here.path / "samples.jsonl", samples)
    pairs: dict[str, list[Row]] = {"train": [], "heldout": []}
    outcomes: Counter[str] = Counter()
    answers = [samples[at : at + recipe.samples] for at in range(0, len(samples), recipe.samples)]
    for row, (made, word) in zip(rows, WINNERS[recipe.winner](recipe, here, hardware, rows, answers), strict=True):
        outcomes[f"{row['kind']}: {word}"] += 1
        pairs[row["split"]] += made
    if recipe.winner == "reward":
        mixture.save(here.path / "samples.jsonl", samples)  # with their scores
    if not pairs["train"]:
        raise DataError(
            f"{here.path}: no question got both a better and a worse answer ({mixture.said(outcomes)}). "
            "All wrong: train the start model more. All right: raise temperature or samples, or ask harder questions."
        )
    held = len({pair["prompt"] for pair in pairs["heldout"]})
    if not held:
        raise DataError(f"{here.path}: no held-out question got a pair ({mixture.said(outcomes)}). Keep more of them.")
    if held < ENOUGH:
        here.say(f"only {held} held-out problems have a pair: with fewer than {ENOUGH} an accuracy says little")
    mixture.save(here.path / "pairs.jsonl", pairs["train"])
    mixture.save(here.path / "heldout_pairs.jsonl", pairs["heldout"])
    longer = sum(len(one["chosen"]) > len(one["rejected"]) for one in pairs["train"]) / len(pairs["train"])
    checked = [one["correct"] for one in samples if one["correct"] is not None]
    numbers = {
        "problems": len(rows),
        "pairs": len(pairs["train"]),
        "heldout_pairs": len(pairs["heldout"]),
        **({"right_share": sum(checked) / len(checked)} if checked else {}),
        "cut_share": sum(one["cut"] for one in samples) / len(samples),
        "chosen_longer_share": longer,  # a length bias that DPO would learn
    }
    ledger = {**numbers, "winner": recipe.winner, "dropped": dict(dropped), "outcomes": dict(sorted(outcomes.items()))}
    write_text(here.path / "ledger.json", json.dumps(ledger, indent=1))
    here.say(f"outcomes by kind: {mixture.said(ledger['outcomes'])}")
    return numbers


def questions(recipe: Preferences, here: Run) -> tuple[list[Row], Counter[str]]:
    """What is asked (problems of a run, or the first questions of instruction rows); by reason, how many are not."""
    dropped: Counter[str] = Counter()
    if recipe.data is None:
        seen: set[str] = set()
        rows = [row for source in recipe.prompts for row in _first_questions(source, recipe, here, seen, dropped)]
        where, keep = f"{here.path}: prompts", "Raise heldout, or add prompts"
    else:
        path = here.inputs[recipe.data].path / "problems.jsonl"
        if not path.exists():
            raise DataError(f"{path}: no such file. Name a run that writes problems.")
        found = list(mixture.load(path))
        rows = [row for row in found if row["kind"] in recipe.kinds]
        dropped.update(f"kind {row['kind']}" for row in found if row["kind"] not in recipe.kinds)
        where, keep = str(path), "Keep some (`split: heldout`)"
    if not any(row["split"] == "heldout" for row in rows):
        raise DataError(f"{where}: no held-out problems, so DPO could not be measured. {keep}.")
    return rows, dropped


def _first_questions(source: Source, recipe: Preferences, here: Run, seen: set[str], dropped: Counter[str]) -> Iterator[Row]:
    for row in mixture.read(source, here, dropped):
        turn = row["messages"][0]
        asked = turn["content"]
        if reason := _unasked(turn, seen):
            dropped[reason] += 1
            continue
        seen.add(asked)
        split = "heldout" if is_heldout(asked, recipe.heldout, recipe.seed) else "train"
        about = {"id": f"{source.run or source.card}/{row['id']}", "language": row["language"], "domain": row["domain"]}
        yield {**about, "prompt": asked, "split": split, **(_target(row) if recipe.winner == "rule" else {"kind": "open"})}


def _unasked(turn: Mapping[str, str], seen: Collection[str]) -> str | None:
    """Why a conversation's first turn is not asked."""
    if turn["role"] != "user":
        return f"begins with a {turn['role']} turn"  # that of the system steers the answer, and pairs have none
    if not turn["content"].strip():
        return "empty prompt"
    return "asked before" if turn["content"] in seen else None


def _target(row: Row) -> Row:
    """What a rule holds answers against: the number at the end of the row's own, as GSM8K writes it."""
    target = verified.gsm8k(row["messages"][1]["content"])
    if target is None:
        raise DataError(
            f"{row['id']}: its answer does not end in `#### 42`, so no rule knows what is right. "
            "Use winner: judge or reward, or name a card with such answers."
        )
    return {"kind": "number", "target": target}


def sample(recipe: Preferences, here: Run, hardware: Hardware, rows: Sequence[Row]) -> list[Row]:
    """Draw and judge `samples` answers for every problem."""
    model = engine.load(start.locate(recipe.start, here), hardware)
    chat.check_template(model.tokenizer, None, model.name)
    start.note_template(model.tokenizer, here)
    prompts: list[engine.Prompt] = [
        chat.encode(model.tokenizer, [{"role": "user", "content": row["prompt"]}], answer=False).input_ids for row in rows
    ]
    settings = engine.Settings(
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        samples=recipe.samples,
        seed=recipe.seed,
    )
    with here.progress("problems", len(prompts)) as bar:
        drawn = model.generate(prompts, settings, lambda *_: bar.advance())
    # stripped first: what is judged is what is trained
    said = [(row, answer, answer.text.strip()) for row, answers in zip(rows, drawn, strict=True) for answer in answers]
    unjudged = judge.Judgement(None, False)
    verdicts = (
        judge.verify_many([(problem.from_row(row, row["id"]), text) for row, _, text in said])
        if recipe.winner == "rule"
        else [unjudged] * len(said)
    )
    return [
        {
            "problem": row["id"],
            "answer": text,
            "correct": verdict.correct if recipe.winner == "rule" else None,
            "read": verdict.read,
            "why": verdict.why,
            "cut": answer.finish == "length",
        }
        for (row, answer, text), verdict in zip(said, verdicts, strict=True)
    ]


# -- who wins ---------------------------------------------------------------------------------------------------------


def by_rule(
    recipe: Preferences, _here: Run, _hardware: Hardware, rows: Sequence[Row], answers: Sequence[Sequence[Row]]
) -> Iterator[Paired]:
    """Pair what a rule finds right with what it finds wrong."""
    random = Random(f"{recipe.seed} pairs")
    for row, found in zip(rows, answers, strict=True):
        made = list(pair(row, found, recipe.pairs_per_problem, random, (recipe.alike, recipe.longer)))
        unfit = not made and any(True for _ in pair(row, found, 1, Random(0)))
        yield made, "right and wrong are alike, or of very unequal length" if unfit else outcome(found, made)


def by_judge(
    recipe: Preferences, here: Run, hardware: Hardware, rows: Sequence[Row], answers: Sequence[Sequence[Row]]
) -> Iterator[Paired]:
    """Let a judge compare as many couples of answers as pairs are wanted, each in both orders."""
    random = Random(f"{recipe.seed} pairs")
    couples, reasons = [], []
    for found in answers:
        whole = _whole(found)
        random.shuffle(whole)
        fit, reason = _fit([(a, b) for i, a in enumerate(whole) for b in whole[:i]], recipe)
        couples.append(fit)
        reasons.append(reason)
    asked = [(row["prompt"], a["answer"], b["answer"]) for row, fit in zip(rows, couples, strict=True) for a, b in fit]
    assert recipe.judge is not None, "no judge"
    record = winner.Record(here.path / "verdicts.jsonl")
    if record.said:
        here.say(f"{len(record.said):,} verdicts are kept from before")
    verdicts = iter(winner.judge(winner.open_judge(recipe.judge, here, hardware), asked, record))
    for row, fit, reason in zip(rows, couples, reasons, strict=True):
        made: list[Row] = []
        word = reason
        for first, second in fit:
            said = next(verdicts)
            word = said.why
            if said.first is not None:
                better, worse = (first, second) if said.first else (second, first)
                made.append(_pair(row, better, worse, len(made), "judge"))
        yield made, "paired" if made else word


def by_reward(
    recipe: Preferences, here: Run, hardware: Hardware, rows: Sequence[Row], answers: Sequence[Sequence[Row]]
) -> Iterator[Paired]:
    """Let a reward model score every answer; pair the best with the worst, the second with the last but one."""
    assert recipe.reward is not None, "no reward model"
    wholes = [_whole(found) for found in answers]
    asked = [(row["prompt"], one["answer"]) for row, whole in zip(rows, wholes, strict=True) for one in whole]
    given = iter(winner.scores(recipe.reward, here, hardware, asked))
    for row, whole in zip(rows, wholes, strict=True):
        for one in whole:
            one["reward"] = next(given)
        ranked = sorted(whole, key=lambda one: -one["reward"])
        couples = [(ranked[i], ranked[-1 - i]) for i in range(len(ranked) // 2)]
        fit, word = _fit([(a, b) for a, b in couples if a["reward"] > b["reward"]], recipe)
        made = [_pair(row, a, b, i, f"reward {a['reward']:+.2f} over {b['reward']:+.2f}") for i, (a, b) in enumerate(fit)]
        yield made, "paired" if made else word if whole else "no whole answer"


WINNERS = {"rule": by_rule, "judge": by_judge, "reward": by_reward}


def _whole(answers: Sequence[Row]) -> list[Row]:
    """Candidates: an answer that was cut by the token limit is none, the model never said that it ends there."""
    return list({one["answer"]: one for one in answers if one["answer"] and not one["cut"]}.values())


def _fit(couples: Sequence[tuple[Row, Row]], recipe: Preferences) -> tuple[list[tuple[Row, Row]], str]:
    """The first couples that may be a pair, as many as are wanted; and why there is none where there is none."""
    fit, word = [], "no two whole answers"
    for first, second in couples:
        reason = winner.unfit(first["answer"], second["answer"], recipe.alike, recipe.longer)
        if reason is None:
            fit.append((first, second))
        else:
            word = reason
        if len(fit) == recipe.pairs_per_problem:
            break
    return fit, word


def _pair(row: Mapping[str, Any], better: Row, worse: Row, number: int, reason: str) -> Row:
    return {
        "id": f"{row['id']}-{number}",
        "prompt": row["prompt"],
        "chosen": better["answer"],
        "rejected": worse["answer"],
        "reason": f"{row['kind']}: {reason}",
        "language": row["language"],
        "domain": row["domain"],
    }


def pair(
    row: Mapping[str, Any],
    answers: Sequence[Row],
    most: int,
    random: Random,
    limits: tuple[float | None, float | None] = (None, None),
) -> Iterator[Row]:
    """Pair right with wrong answers of one problem, at most `most` times, each answer as seldom as can be.

    `limits`: how alike and how unequal in length two answers may be (`winner.unfit`).
    """
    whole = _whole(answers)
    right = [one for one in whole if one["correct"]]
    wrong = [one for one in whole if not one["correct"]]
    random.shuffle(right)
    random.shuffle(wrong)
    spread = sorted(product(range(len(right)), range(len(wrong))), key=lambda ij: (abs(ij[0] - ij[1]), ij))
    fit = ((i, j) for i, j in spread if not winner.unfit(right[i]["answer"], wrong[j]["answer"], *limits))
    for number, (i, j) in enumerate(islice(fit, most)):
        yield _pair(row, right[i], wrong[j], number, wrong[j]["why"] or "wrong")


def outcome(answers: Sequence[Row], pairs: Sequence[Row]) -> str:
    """Say in a word what a problem's samples gave."""
    if pairs:
        return "paired"
    right = sum(one["correct"] for one in answers)
    return "all right" if right == len(answers) else "all wrong" if not right else "no whole pair"
