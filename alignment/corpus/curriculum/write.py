"""The stage `curriculum`: draw exercises from their pools and write documents, instructions, problems, held-out sets.

    train               -> documents.jsonl, instructions.jsonl
    preference-train    -> problems.jsonl, split "train"
    preference-heldout  -> problems.jsonl, split "heldout"
    evaluation          -> heldout/ with its few-shot examples; a quarter of the test items uses templates never trained

The same seed writes the same bytes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain, count, cycle, islice
from pathlib import Path
from random import Random
from typing import Any

from alignment.corpus import documents
from alignment.corpus.curriculum import arithmetic, choice, conversation, exercise, programming
from alignment.corpus.curriculum.exercise import LETTERS, Exercise, Kind, Language, Pool
from alignment.corpus.documents import Document
from alignment.errors import RecipeError
from alignment.hardware import Hardware
from alignment.recipe import Curriculum
from alignment.run import Run
from alignment.verify import problem as verify
from alignment.verify.problem import Problem

Row = dict[str, Any]
Draw = Callable[[Random, str, Language], Exercise]
Families = dict[Kind, tuple[str, ...]]

DRAW: dict[Kind, Draw] = {
    "math": arithmetic.word_problem,
    "code": programming.function,
    "choice": choice.choice,
    "talk": conversation.talk,
    "refusal": conversation.refusal,
    "sum": arithmetic.bare_sum,
}
SEEN: Families = {
    "math": tuple(arithmetic.SEEN),
    "code": tuple(programming.SEEN),
    "choice": tuple(choice.SEEN),
    "talk": tuple(conversation.TALK),
    "refusal": ("harm",),
    "sum": tuple(arithmetic.SUMS),
}
UNSEEN: Families = {
    "math": tuple(arithmetic.UNSEEN),
    "code": tuple(programming.UNSEEN),
    "choice": tuple(choice.UNSEEN),
}
LANGUAGES: dict[Kind, tuple[Language, ...]] = {"code": ("en",), "sum": ("en",)}  # the others are written in both
BOTH: tuple[Language, ...] = ("en", "zh")
VERIFIED: dict[Kind, verify.Kind] = {
    "math": "number",
    "choice": "choice",
    "code": "code",
    "refusal": "refusal",
    "sum": "number",
}  # our kinds as problem kinds
SHOTS = 5  # few-shot examples for each C-Eval subject, as in C-Eval
UNSEEN_SHARE = 0.25
PAGE = 200  # characters a page has at least; shorter texts are filtered as fragments by the next stage
PATIENCE = 5_000  # draws without a new item before we say that the templates are used up


def write(recipe: Curriculum, here: Run, hardware: Hardware) -> dict[str, float | int | str]:  # noqa: ARG001
    """Write everything that the quickstart learns from and is tested on; return the counts."""
    made: dict[str, Iterable[Row]] = {
        "instructions.jsonl": instructions(recipe),
        "problems.jsonl": chain(problems(recipe, "train"), problems(recipe, "heldout")),
    }
    if recipe.heldout_items:
        made |= evaluation(recipe)
    counts: dict[str, float | int | str] = {"documents.jsonl": documents.write(here.path / "documents.jsonl", pages(recipe))}
    for name, rows in made.items():
        counts[name] = save(here.path / name, rows)
    return counts


def evaluation(recipe: Curriculum) -> dict[str, Iterable[Row]]:
    """The held-out sets by file, each laid out as the set that it is a small one of."""
    (math_shots, math), (_, code), (choice_shots, choices) = (
        heldout(recipe.seed, kind, recipe.heldout_items) for kind in ("math", "code", "choice")
    )
    made: dict[str, Iterable[Row]] = {
        "heldout/mini-gsm8k/train.jsonl": map(gsm8k, math_shots),
        "heldout/mini-gsm8k/test.jsonl": map(gsm8k, math),
        "heldout/mini-humaneval/HumanEval.jsonl": map(humaneval, count(), code),
        "heldout/mini-ceval/dev.jsonl": map(ceval, count(), choice_shots),
        "heldout/mini-ceval/val.jsonl": map(ceval, count(), choices),
    }
    if recipe.shares.get("sum"):
        sum_shots, sums = heldout(recipe.seed, "sum", recipe.heldout_items)
        made["heldout/mini-sums/train.jsonl"] = map(sum_row, sum_shots)
        made["heldout/mini-sums/test.jsonl"] = map(sum_row, sums)
    return made


def pages(recipe: Curriculum) -> Iterator[Document]:
    """Textbook pages: three to six exercises of one kind in one language, more where they are very short."""
    random = Random(f"{recipe.seed} documents")
    for number, kind in enumerate(kinds(random, recipe.shares, recipe.documents)):
        language = random.choice(LANGUAGES.get(kind, BOTH))
        items, wanted = [draw(random, kind, language, "train")], random.randint(3, 6)
        while len(items) < wanted or sum(len(exercise.passage(item)) for item in items) < PAGE:
            items.append(draw(random, kind, language, "train"))
        yield Document(
            id=f"curriculum-{number:06d}",
            text="\n\n".join(map(exercise.passage, items)),
            domain="curriculum-talk" if kind == "refusal" else f"curriculum-{kind}",
            language=language,
            dump="curriculum",
            meta={"families": [item.family for item in items]},
        )


def instructions(recipe: Curriculum) -> Iterator[Row]:
    """Conversations of one question and its answer; a share of the word problems and functions has a careless one."""
    random = Random(f"{recipe.seed} instructions")
    for number, kind in enumerate(kinds(random, recipe.shares, recipe.instructions)):
        item = draw(random, kind, random.choice(LANGUAGES.get(kind, BOTH)), "train")
        slips = kind in ("math", "code") and random.random() < recipe.careless
        reply = exercise.careless(item, random) if slips else exercise.answer(item)
        yield {
            "id": f"curriculum-{number:06d}",
            "messages": [
                {"role": "user", "content": exercise.prompt(item)},
                {"role": "assistant", "content": reply},
            ],
            "source": "curriculum",
            "language": item.language,
            "domain": f"curriculum-{kind}",
        }


def problems(recipe: Curriculum, split: str) -> Iterator[Row]:
    """Distinct problems whose answers can be verified, in the recipe's shares without talk."""
    random = Random(f"{recipe.seed} problems {split}")
    pool: Pool = "preference-train" if split == "train" else "preference-heldout"
    shares: dict[Kind, float] = {kind: share for kind, share in recipe.shares.items() if kind != "talk"}
    used: set[str] = set()
    for kind in kinds(random, shares, recipe.problems if split == "train" else recipe.heldout_problems):
        item = fresh(random, kind, random.choice(LANGUAGES.get(kind, BOTH)), pool, used)
        yield asdict(problem(item)) | {"split": split, "language": item.language, "domain": f"curriculum-{kind}"}


def problem(item: Exercise) -> Problem:
    """The exercise as something that can be verified."""
    return Problem(
        id=f"{item.kind}-{exercise.identity(item)}",
        prompt=exercise.prompt(item),
        kind=VERIFIED[item.kind],
        target=item.target,
        tests=item.tests,
        entry_point=item.entry_point,
    )


def heldout(seed: int, kind: Kind, total: int) -> tuple[list[Exercise], list[Exercise]]:
    """Few-shot examples and test items: all distinct, none trained, spread evenly over families and languages.

    C-Eval gives every subject its own examples, so there (and only there) an unseen family has some too. HumanEval has
    none.
    """
    random = Random(f"{seed} heldout {kind}")
    used: set[str] = set()
    seen, unseen = turns(SEEN, kind), turns(UNSEEN, kind)
    shown: dict[Kind, list[tuple[str, Language]]] = {"math": seen, "choice": seen + unseen, "sum": seen}
    shots = [fresh(random, kind, language, "evaluation", used, family) for family, language in shown.get(kind, []) * SHOTS]
    novel = round(total * UNSEEN_SHARE) if unseen else 0
    wanted = [*islice(cycle(seen), total - novel), *islice(cycle(unseen), novel)]
    items = [fresh(random, kind, language, "evaluation", used, family) for family, language in wanted]
    random.shuffle(items)
    return shots, items


def turns(table: Families, kind: Kind) -> list[tuple[str, Language]]:
    return [(family, language) for family in table.get(kind, ()) for language in LANGUAGES.get(kind, BOTH)]


def kinds(random: Random, shares: Mapping[Kind, float], total: int) -> list[Kind]:
    return random.choices(list(shares), weights=list(shares.values()), k=total)


def draw(random: Random, kind: Kind, language: Language, pool: Pool, family: str | None = None) -> Exercise:
    """Draw until an exercise falls into the pool; without a family, one of those that are trained."""
    for _ in range(PATIENCE):
        item = DRAW[kind](random, family or random.choice(SEEN[kind]), language)
        if exercise.pool(item) == pool:
            return item
    raise RecipeError(f"curriculum: no {kind} exercise of family {family} falls into the pool {pool!r}.")


def fresh(random: Random, kind: Kind, language: Language, pool: Pool, used: set[str], family: str | None = None) -> Exercise:
    """Draw an exercise that is not in `used`, and note it there."""
    for _ in range(PATIENCE):
        item = draw(random, kind, language, pool, family)
        name = exercise.identity(item)
        if name not in used:
            used.add(name)
            return item
    raise RecipeError(
        f"curriculum: the pool {pool!r} has no more than {len(used)} distinct exercises where {kind} {family or ''} "
        f"({language}) is wanted. Ask for fewer problems or heldout_items, or lower shares.{kind}."
    )


def gsm8k(item: Exercise) -> Row:
    return {
        "question": item.question,
        "answer": f"{item.reasoning}\n#### {item.target}",
        "family": item.family,
        "unseen": item.unseen,
        "language": item.language,
    }


def sum_row(item: Exercise) -> Row:
    return {"question": item.question, "answer": item.target, "family": item.family, "language": item.language}


def humaneval(number: int, item: Exercise) -> Row:
    return {
        "task_id": f"MiniHumanEval/{number}",
        "prompt": item.question,
        "entry_point": item.entry_point,
        "canonical_solution": item.reasoning,
        "test": item.tests,
        "family": item.family,
        "unseen": item.unseen,
    }


def ceval(number: int, item: Exercise) -> Row:
    return {
        "subject": f"{item.family}_{item.language}",
        "id": str(number),
        "question": item.question,
        **dict(zip(LETTERS, item.choices, strict=True)),
        "answer": item.target,
        "explanation": "",
        "family": item.family,
        "unseen": item.unseen,
        "language": item.language,
    }


def save(path: Path, rows: Iterable[Row]) -> int:
    """Write one JSON object a line; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written
