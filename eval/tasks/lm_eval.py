"""The protocols of lm-evaluation-harness 0.4.13: gsm8k_cot, humaneval and ceval-valid, item by item as there.

Its tasks `gsm8k/gsm8k-cot.yaml`, `humaneval/humaneval.yaml` and `ceval/_default_ceval_yaml` in our words: prompts, stops,
lengths, extraction and comparison are theirs, oddities included (the strict pattern of gsm8k_cot eats the last digit of
an answer that ends the text). C-Eval is 0-shot there unless told otherwise; here it is asked with five examples, or with
--shots N. Every model completes: no chat template. A prompt too long loses its beginning. `benchmarks/lm_eval_parity.py`
compares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignment.errors import DataError
from alignment.verify import judge
from alignment.verify.problem import Problem
from eval import data
from eval.task import Answer, Form, Item, Mark, Task, marked, written
from eval.tasks import gsm8k, humaneval, multiple_choice

VERSION = "lm-eval 0.4.13"

# gsm8k-cot.yaml; the eight examples are those of Wei et al. (2022), table 20.
STEM, JOINT = "Q: {question}\nA:", " "
SHOTS = (
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are "
        "done, there will be 21 trees. How many trees did the grove workers plant today?",
        "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have been "
        "21 - 15 = 6. The answer is 6.",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
        "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?",
        "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After "
        "eating 35, they had 74 - 35 = 39. The answer is 39.",
    ),
    (
        "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many "
        "lollipops did Jason give to Denny?",
        "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - "
        "12 = 8. The answer is 8.",
    ),
    (
        "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have now?",
        "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. 5 + 4 = 9. The "
        "answer is 9.",
    ),
    (
        "There were nine computers in the server room. Five more computers were installed each day, from "
        "monday to thursday. How many computers are now in the server room?",
        "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 computers were "
        "added. 9 + 20 is 29. The answer is 29.",
    ),
    (
        "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How "
        "many golf balls did he have at the end of wednesday?",
        "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 more, he had "
        "35 - 2 = 33 golf balls. The answer is 33.",
    ),
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars left. "
        "23 - 15 is 8. The answer is 8.",
    ),
)
STRICT = re.compile(r"The answer is (\-?[0-9\.\,]+).")  # the first one counts
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")  # the last one counts
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")  # taken out of answer and target before they are compared as text


@dataclass(frozen=True, kw_only=True)
class ChainOfThought(Task):
    """gsm8k_cot. The score is `flexible-extract`, beside it stands `strict-match`."""

    def items(self, root: Path | None) -> list[Item]:
        """Read the test split; questions stay as they are, outer spaces included."""
        patterns = tuple(pattern.format(split="test") for pattern in gsm8k.FILES)
        shots = tuple(STEM.format(question=question) + JOINT + answer for question, answer in SHOTS)
        found = []
        for number, record in enumerate(data.read(root, "gsm8k", patterns, ("question", "answer"))):
            answer = str(record.values["answer"])
            if "####" not in answer:
                raise DataError(f"{record.where}: an answer without `#### N`: {answer[:60]!r}. Fetch the file again.")
            target = answer.split("####")[-1].strip()
            problem = Problem(f"gsm8k/{number}", str(record.values["question"]), "number", target)
            found.append(Item(problem.id, problem, "all", "en", shots=shots))
        return found

    def prompt(self, item: Item, form: Form, shots: int) -> str:  # noqa: ARG002
        """Worked examples and the question."""
        return "\n\n".join([*item.shots[:shots], STEM.format(question=item.problem.prompt)])

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read by both filters and compare as text."""
        return [
            replace(_compared(_last(text), item), strict=_compared(_first(text), item))
            for item, text in zip(items, written(items, answers), strict=True)
        ]

    def same(self, one: str, other: str) -> bool:
        """Compare readings as they are compared with the target: `$18.` and `18` are one."""
        return _bare(one) == _bare(other)


@dataclass(frozen=True, kw_only=True)
class Continued(humaneval.Functions):
    """humaneval: the answer is taken as it is, behind the prompt."""

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Run prompt and answer as one program."""
        pairs = list(zip((item.problem for item in items), written(items, answers), strict=True))
        return [marked(found) for found in judge.verify_many(pairs, program=lambda prompt, answer, _: prompt + answer)]


def _first(text: str) -> str | None:
    found = STRICT.findall(text)
    return found[0] if found else None


def _last(text: str) -> str | None:
    found = FLEXIBLE.findall(text)
    return (found[-1][0] or found[-1][1]).strip() if found else None


def _compared(read: str | None, item: Item) -> Mark:
    if read is None:
        return Mark(None, False, "unread")
    right = _bare(read) == _bare(item.problem.target)
    return Mark(read, right, "" if right else f"{read}, not {item.problem.target}")


def _bare(text: str) -> str:
    for pattern in IGNORED:
        text = re.sub(pattern, "", text)
    return text.lower()


TASKS: dict[str, Task] = {
    "gsm8k": ChainOfThought(
        name="gsm8k",
        stops=("Q:", "</s>", "<|im_end|>"),
        max_new_tokens=256,  # the length of its hf backend where a task names none
        published=gsm8k.TASKS["gsm8k"].published,
        protocol=f"{VERSION}, gsm8k_cot",
        cuts_text=True,
    ),
    "humaneval": Continued(
        name="humaneval",
        stops=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        max_new_tokens=1024,
        published=humaneval.TASKS["humaneval"].published,
        protocol=f"{VERSION}, humaneval",
        cuts_text=True,
    ),
    "ceval": replace(
        multiple_choice.CEVAL,
        header="以下是中国关于{subject}的单项选择题，请选出其中的正确答案。",
        cues={"zh": ("答案：", " ")},
        macro=False,  # its group's score weighs subjects by size
        protocol=f"{VERSION}, ceval-valid",
        cuts_text=True,
    ),
}
