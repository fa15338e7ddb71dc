"""One generated exercise: what it is, the one pool it belongs to, and how it is told.

The pool is read off a hash of what is asked, so training, preference and evaluation items are disjoint by
construction: no list of used items is kept, and a different seed cannot move an item from one pool to another.
"""

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["math", "code", "choice", "talk", "refusal", "sum"]
Language = Literal["en", "zh"]
Pool = Literal["train", "preference-train", "preference-heldout", "evaluation"]

LETTERS = "ABCD"
# careless answers: some shorter, some longer than the good one, so that length does not tell them apart
GUESSES: dict[Language, tuple[str, ...]] = {
    "en": ("Maybe {}.", "Let me think about it. I am not sure at all, but I would guess that it is {}."),
    "zh": ("大概是{}。", "让我想一想。我不太确定，不过我猜可能是{}。"),
}
UNDONE = ("    pass\n", "    # this part is left for later, when there is more time\n    return None\n")
POOLS: dict[Pool, int] = {"train": 60, "preference-train": 16, "preference-heldout": 8, "evaluation": 16}  # per cent


@dataclass(frozen=True)
class Exercise:
    """A question with its worked answer. For code the question is the signature, the reasoning is the body."""

    kind: Kind
    family: str
    language: Language
    question: str
    reasoning: str = ""
    target: str = ""  # the number, the letter, or "decline"
    choices: tuple[str, ...] = ()
    tests: str = ""
    entry_point: str = ""
    unseen: bool = False  # a template that no training text uses


def identity(exercise: Exercise) -> str:
    """Name what is asked. The order of the choices does not count: reordering them is not a new item."""
    asked = (exercise.kind, exercise.family, exercise.language, exercise.question, *sorted(exercise.choices))
    return hashlib.sha256("\x1f".join(asked).encode()).hexdigest()[:16]


def pool(exercise: Exercise) -> Pool:
    """Say where an exercise may be used. Talk has nothing to verify, so all of it is for training."""
    if exercise.unseen:
        return "evaluation"
    if exercise.kind == "talk":
        return "train"
    place = int(identity(exercise), 16) % 100
    for name, share in POOLS.items():
        if place < share:
            return name
        place -= share
    raise AssertionError(f"the shares of POOLS add up to {sum(POOLS.values())}, not to 100")


def prompt(exercise: Exercise) -> str:
    """What a user asks in a conversation."""
    match exercise.kind:
        case "code":
            return f"Complete this function:\n\n```python\n{exercise.question}```"
        case "choice":
            return exercise.question + options(exercise)
        case _:
            return exercise.question


def answer(exercise: Exercise) -> str:
    """What the assistant says to `prompt`."""
    match exercise.kind:
        case "math":
            closing = {"en": f"The answer is {exercise.target}.", "zh": f"答案是{exercise.target}。"}
            return f"{exercise.reasoning}\n{closing[exercise.language]}"
        case "code":
            return f"```python\n{exercise.question}{exercise.reasoning}```"
        case "choice":
            right = exercise.choices[LETTERS.index(exercise.target)]  # named before its letter: one step, then a look-up
            return {"en": f"It is {right}.\nAnswer: ", "zh": f"是{right}。\n答案："}[exercise.language] + exercise.target
        case "sum":
            return exercise.target
        case _:
            return exercise.reasoning


def careless(exercise: Exercise, random: Random) -> str:
    """A bad answer as collected instructions hold them: a wrong number without working, or a function left undone."""
    if exercise.kind == "code":
        return f"```python\n{exercise.question}{random.choice(UNDONE)}```"
    wrong = random.choice([number for number in range(2, 82) if str(number) != exercise.target])
    return random.choice(GUESSES[exercise.language]).format(wrong)


def passage(exercise: Exercise) -> str:
    """The exercise as a piece of a textbook, for pre-training."""
    match exercise.kind:
        case "code":
            return (exercise.question + exercise.reasoning).rstrip()
        case "choice":
            return prompt(exercise) + {"en": "\nAnswer: ", "zh": "\n答案："}[exercise.language] + exercise.target
        case "sum":
            return f"{exercise.question} {exercise.target}"
        case _:
            return f"Question: {exercise.question}\nAnswer: {answer(exercise)}"


def options(exercise: Exercise) -> str:
    return "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, exercise.choices, strict=True))


def pick(random: Random, text: str) -> str:
    """One of the words of a list written as text."""
    return random.choice(text.split())
