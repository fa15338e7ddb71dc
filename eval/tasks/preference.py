"""Held-out preference pairs: which answer does a model hold likelier, and is what it samples right?

Three ways to rank a pair, each with its interval, ties counting half: the summed log-probability of the whole answers
with their end marks; the implicit reward, which takes a reference model's log-probabilities off (Rafailov et al., 2023,
equation 5 without the constant); and length alone, which any claim about preferences has to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment import chat
from alignment.errors import DataError
from alignment.verify import problem
from eval import data, statistics
from eval.task import Form, Item, Task

FIELDS = ("id", "prompt", "chosen", "rejected")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sampled(Task):
    """Problems that no stage has trained on; one answer each, drawn at temperature 1, judged by the verifier."""

    file: str = "problems.jsonl"
    name: str = "sampled"
    max_new_tokens: int = 96
    temperature: float = 1.0

    def items(self, root: Path | None) -> list[Item]:
        """Read the held-out half of a curriculum's problems."""
        if root is None:
            raise DataError(f"{self.name}: its problems are a curriculum's; name that folder with --data-root.")
        return [
            Item(
                id=row["id"],
                problem=problem.from_row(row, f"{root / self.file}, {row['id']}"),
                group=row["kind"],
                language=row.get("language", "en"),
            )
            for row in data.rows(root, self.file, ("id", "kind", "split"))
            if row["split"] == "heldout"
        ]

    def prompt(self, item: Item, form: Form, shots: int) -> str:  # noqa: ARG002
        """The problem as it stands."""
        return item.problem.prompt


TASKS: dict[str, Task] = {"mini-sampled": Sampled(name="mini-sampled", file="../problems.jsonl")}  # beside heldout/


def score(engine: Any, pairs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Log-probabilities of both answers of each pair, with the end mark, given the user's turn."""
    prompts, answers = [], []
    for pair in pairs:
        asked = [{"role": "user", "content": pair["prompt"]}]
        prompt = chat.encode(engine.tokenizer, asked, answer=False).input_ids
        said = [
            chat.encode(engine.tokenizer, [*asked, {"role": "assistant", "content": pair[side]}], answer=True)
            for side in ("chosen", "rejected")
        ]
        prompts.append(prompt)
        answers.append([[i for i, learnt in zip(e.input_ids, e.learnt, strict=True) if learnt] for e in said])
    return [
        {
            "id": pair["id"],
            "prompt": pair["prompt"],
            "answer": {"chosen": chosen.logprob, "rejected": rejected.logprob},
            "lengths": {"chosen": chosen.tokens, "rejected": rejected.tokens},
            "read": "chosen" if chosen.logprob > rejected.logprob else "rejected",
            "target": "chosen",
            "correct": chosen.logprob > rejected.logprob,
        }
        for pair, (chosen, rejected) in zip(pairs, engine.score(prompts, answers), strict=True)
    ]


def summary(found: Sequence[Row], reference: Sequence[Row] | None) -> dict[str, Any]:
    """Say how often each way of ranking prefers the chosen answer."""
    margins = {
        "log-probability": [row["answer"]["chosen"] - row["answer"]["rejected"] for row in found],
        "length": [row["lengths"]["rejected"] - row["lengths"]["chosen"] for row in found],
    }
    if reference is not None:
        if [row["id"] for row in reference] != [row["id"] for row in found]:
            raise DataError("preference: the reference was scored on other pairs. An implicit reward needs the same ones.")
        before = {row["id"]: row["answer"]["chosen"] - row["answer"]["rejected"] for row in reference}
        raw = zip(found, margins["log-probability"], strict=True)
        margins["implicit reward"] = [margin - before[row["id"]] for row, margin in raw]
    return {"n": len(found)} | {name: _accuracy(values) for name, values in margins.items()}


def _accuracy(margins: Sequence[float]) -> dict[str, Any]:
    wins = [1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins]
    found = asdict(statistics.wilson(sum(wins), len(wins)))
    return {
        "score": found["score"],
        "interval": [found["low"], found["high"]],
        "ties": sum(margin == 0 for margin in margins),
        "mean_margin": sum(margins) / len(margins),
    }
