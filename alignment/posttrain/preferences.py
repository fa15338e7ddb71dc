"""Pairs from the model itself (paper 4): sample several answers per problem, verify them, pair right with wrong.

How the paper chooses the winner is not stated; here a rule does it (numbers, letters, tests, declining).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from random import Random
from typing import Any

from alignment import chat
from alignment.errors import DataError
from alignment.generate import engine
from alignment.hardware import Hardware
from alignment.posttrain import mixture, start
from alignment.recipe import Preferences
from alignment.run import Run, write_text
from alignment.verify import judge, problem

Row = dict[str, Any]
ENOUGH = 200  # held-out pairs: an accuracy of 0.75 is then known to 6 points


def collect(recipe: Preferences, here: Run, hardware: Hardware) -> dict[str, float | int | str]:
    """Write pairs.jsonl, heldout_pairs.jsonl, samples.jsonl (every answer and its verdict) and ledger.json."""
    path = here.inputs[recipe.data].path / "problems.jsonl"
    if not path.exists():
        raise DataError(f"{path}: no such file. Name a run that writes problems.")
    rows = [row for row in mixture.load(path) if row["kind"] in recipe.kinds]
    if not any(row["split"] == "heldout" for row in rows):
        raise DataError(f"{path}: no held-out problems, so DPO could not be measured. Keep some (`split: heldout`).")
    samples = sample(recipe, here, hardware, rows)
    mixture.save(here.path / "samples.jsonl", samples)
    by_problem: dict[str, list[Row]] = {}
    for one in samples:
        by_problem.setdefault(one["problem"], []).append(one)
    random = Random(f"{recipe.seed} pairs")
    pairs: dict[str, list[Row]] = {"train": [], "heldout": []}
    outcomes: Counter[str] = Counter()
    for row in rows:
        answers = by_problem[row["id"]]
        made = list(pair(row, answers, recipe.pairs_per_problem, random))
        outcomes[f"{row['kind']}: {outcome(answers, made)}"] += 1
        pairs[row["split"]] += made
    if not pairs["train"]:
        raise DataError(
            f"{here.path}: no problem got both a right and a wrong answer ({mixture.said(outcomes)}). "
            "All wrong: train the start model more. All right: raise temperature or samples, or ask harder problems."
        )
    held = len({pair["prompt"] for pair in pairs["heldout"]})
    if not held:
        raise DataError(f"{here.path}: no held-out problem got a pair ({mixture.said(outcomes)}). Keep more of them.")
    if held < ENOUGH:
        here.say(f"only {held} held-out problems have a pair: with fewer than {ENOUGH} an accuracy says little")
    mixture.save(here.path / "pairs.jsonl", pairs["train"])
    mixture.save(here.path / "heldout_pairs.jsonl", pairs["heldout"])
    longer = sum(len(one["chosen"]) > len(one["rejected"]) for one in pairs["train"]) / len(pairs["train"])
    numbers = {
        "problems": len(rows),
        "pairs": len(pairs["train"]),
        "heldout_pairs": len(pairs["heldout"]),
        "right_share": sum(one["correct"] for one in samples) / len(samples),
        "cut_share": sum(one["cut"] for one in samples) / len(samples),
        "chosen_longer_share": longer,  # a length bias that DPO would learn
    }
    ledger = {**numbers, "outcomes": dict(sorted(outcomes.items()))}
    write_text(here.path / "ledger.json", json.dumps(ledger, indent=1))
    here.say(f"outcomes by kind: {mixture.said(ledger['outcomes'])}")
    return numbers


def sample(recipe: Preferences, here: Run, hardware: Hardware, rows: Sequence[Row]) -> list[Row]:
    """Draw and judge `samples` answers for every problem."""
    model = engine.load(start.locate(recipe.start, here), hardware)
    chat.check_template(model.tokenizer, None, model.name)
    start.note_template(model.tokenizer, here)
    asked = [problem.from_row(row, row["id"]) for row in rows]
    prompts: list[engine.Prompt] = [
        chat.encode(model.tokenizer, [{"role": "user", "content": one.prompt}], answer=False).input_ids for one in asked
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
    said = [(one, answer, answer.text.strip()) for one, answers in zip(asked, drawn, strict=True) for answer in answers]
    verdicts = judge.verify_many([(one, text) for one, _, text in said])
    return [
        {
            "problem": one.id,
            "answer": text,
            "correct": verdict.correct,
            "read": verdict.read,
            "why": verdict.why,
            "cut": answer.finish == "length",
        }
        for (one, answer, text), verdict in zip(said, verdicts, strict=True)
    ]


def pair(row: Mapping[str, Any], answers: Sequence[Row], most: int, random: Random) -> Iterator[Row]:
    """Pair right with wrong answers of one problem, at most `most` times, each answer as seldom as can be.

    An answer that was cut by the token limit is no candidate: the model never said that it ends there.
    """
    whole = {one["answer"]: one for one in answers if one["answer"] and not one["cut"]}
    right = [one for one in whole.values() if one["correct"]]
    wrong = [one for one in whole.values() if not one["correct"]]
    random.shuffle(right)
    random.shuffle(wrong)
    spread = sorted(product(range(len(right)), range(len(wrong))), key=lambda ij: (abs(ij[0] - ij[1]), ij))
    for number, (i, j) in enumerate(spread[:most]):
        yield {
            "id": f"{row['id']}-{number}",
            "prompt": row["prompt"],
            "chosen": right[i]["answer"],
            "rejected": wrong[j]["answer"],
            "reason": f"{row['kind']}: {wrong[j]['why'] or 'wrong'}",
            "language": row["language"],
            "domain": row["domain"],
        }


def outcome(answers: Sequence[Row], pairs: Sequence[Row]) -> str:
    """Say in a word what a problem's samples gave."""
    if pairs:
        return "paired"
    right = sum(one["correct"] for one in answers)
    return "all right" if right == len(answers) else "all wrong" if not right else "no whole pair"
