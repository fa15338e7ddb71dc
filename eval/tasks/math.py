"""Competition problems whose answer is an expression: MATH.

Protocol for base models: 4-shot with the prompt of Minerva (Lewkowycz et al., 2022, appendix D), as the DeepSeek-V2 paper
prints it; `Problem:` stops an answer. Chat models are asked 0-shot with DeepSeek-Math's instruction. What is read is the
announced answer (strict), or else the last number (flexible, the score); equality is that of `alignment.verify.expression`.

Files: math/*.jsonl with problem, solution, level and type, or the hub's Parquet files (EleutherAI/hendrycks_math, a folder
a subject) or test.jsonl of HuggingFaceH4/MATH-500. The target is what the solution puts into its last `\\boxed{}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignment.errors import DataError
from alignment.verify import expression
from alignment.verify.problem import Problem
from eval import data
from eval.data import Record
from eval.task import Answer, Form, Item, Mark, Task, verified, written
from eval.tasks.gsm8k import STEPS

FILES = ("*.jsonl", "*/test-*.parquet")
STEM = "Problem:\n{problem}\n\nSolution:"
SHOTS = (
    (
        "Find the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.",
        "The expressions inside each square root must be non-negative. Therefore, $x-2 \\ge 0$, so $x\\ge2$, and "
        "$5 - x \\ge 0$, so $x \\le 5$. Also, the denominator cannot be equal to zero, so $5-x>0$, which gives $x<5$. "
        "Therefore, the domain of the expression is $\\boxed{[2,5)}$.",
        "[2,5)",
    ),
    (
        "If $\\det \\mathbf{A} = 2$ and $\\det \\mathbf{B} = 12,$ then find $\\det (\\mathbf{A} \\mathbf{B}).$",
        "We have that $\\det (\\mathbf{A} \\mathbf{B}) = (\\det \\mathbf{A})(\\det \\mathbf{B}) = (2)(12) = \\boxed{24}.$",
        "24",
    ),
    (
        "Terrell usually lifts two 20-pound weights 12 times. If he uses two 15-pound weights instead, how many times must "
        "Terrell lift them in order to lift the same total weight?",
        "If Terrell lifts two 20-pound weights 12 times, he lifts a total of $2\\cdot 12\\cdot20=480$ pounds of weight.  If "
        "he lifts two 15-pound weights instead for $n$ times, he will lift a total of $2\\cdot15\\cdot n=30n$ pounds of "
        "weight.  Equating this to 480 pounds, we can solve for $n$:\n\\begin{align*}\n30n&=480\\\\\n"
        "\\Rightarrow\\qquad n&=480/30=\\boxed{16}\n\\end{align*}",
        "16",
    ),
    (
        "If the system of equations\n\n\\begin{align*}\n6x-4y&=a,\\\\\n6y-9x &=b.\n\\end{align*}has a solution $(x, y)$ "
        "where $x$ and $y$ are both nonzero,\nfind $\\frac{a}{b},$ assuming $b$ is nonzero.",
        "If we multiply the first equation by $-\\frac{3}{2}$, we obtain\n\n$$6y-9x=-\\frac{3}{2}a.$$Since we also know "
        "that $6y-9x=b$, we have\n\n$$-\\frac{3}{2}a=b\\Rightarrow\\frac{a}{b}=\\boxed{-\\frac{2}{3}}.$$",
        "-\\frac{2}{3}",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Expressions(Task):
    """A set of problems with worked solutions."""

    instruction: str

    def items(self, root: Path | None) -> list[Item]:
        """Read the problems; the worked examples are Minerva's."""
        shots = tuple(
            f"{STEM.format(problem=problem)}\n{solution}\n"
            f"Final Answer: The final answer is ${target}$. I hope it is correct."
            for problem, solution, target in SHOTS
        )
        return [
            Item(
                id=f"{self.name}/{record.values.get('unique_id', number)}",
                problem=Problem(f"{self.name}/{number}", record.values["problem"].strip(), "expression", _target(record)),
                group=str(record.values.get("type") or record.values.get("subject", "all")),
                language="en",
                shots=shots,
            )
            for number, record in enumerate(data.read(root, self.name, FILES, ("problem", "solution")))
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:
        """Worked examples and the problem, or the problem and the instruction."""
        if form == "chat":
            return f"{item.problem.prompt}\n{self.instruction}"
        return "\n\n".join([*item.shots[:shots], STEM.format(problem=item.problem.prompt)])

    def mark(self, items: Sequence[Item], answers: Sequence[Answer]) -> list[Mark]:
        """Read the expressions, flexibly and strictly, and compare."""
        found = zip(verified(items, answers), items, written(items, answers), strict=True)
        return [replace(mark, strict=_strict(text, item.problem.target)) for mark, item, text in found]

    def same(self, one: str, other: str) -> bool:
        """Compare readings as they are compared with the target: `\\frac12` and `1/2` are one."""
        return expression.same(one, other)


def _strict(text: str, target: str) -> Mark:
    read = expression.read(text)
    return Mark(read, expression.same(read, target))


def _target(record: Record) -> str:
    solution = str(record.values["solution"])
    found = expression.boxed(solution)
    if found is None or not found.strip():
        raise DataError(f"{record.where}: a solution without \\boxed{{}}: {solution[-60:]!r}. Fetch the file again.")
    return found


TASKS = {
    "math": Expressions(
        name="math",
        stops=("Problem:",),
        instruction=STEPS["en"],
        max_new_tokens=1024,
        protocol="DeepSeek-V2, appendix (Minerva's prompt)",
    ),
}
