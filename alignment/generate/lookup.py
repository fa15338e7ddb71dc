"""Guesses at the next tokens of an answer: what followed its last two tokens when they stood there before.

A step over few rows costs nearly the same for one token a row as for several, since reading the weights is what takes
the time. So guesses ride along, and as many as the model itself would have chosen are kept (prompt lookup decoding,
Saxena 2023): the answer is the same, in fewer steps. Code and reasoning repeat themselves often.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP_TOKENS = 64  # of all rows, guesses included
STEP_COST = 25  # of a step, in tokens: SmolLM2-135M, one thread, oneDNN, a step of M tokens takes as 25 + M
LONGEST = 16  # guesses of one row
RIGHT = 0.5  # of the guesses, as a rule of thumb


def worthwhile(guesses: Sequence[Sequence[int]]) -> int:
    """How many guesses a row to take along: where tokens won for the time of a step are most."""
    rows = len(guesses)

    def rate(width: int) -> float:
        return (rows + RIGHT * sum(min(len(guess), width) for guess in guesses)) / (STEP_COST + rows * (1 + width))

    return max(range(max(map(len, guesses)) + 1), key=rate)


class Lookup:
    """What followed each pair of tokens last, in one prompt and its answer."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids: list[int] = []
        self.follows: dict[tuple[int, int], int] = {}
        self.reach = 2  # tokens guessed at a time: more after right guesses, fewer after wrong ones
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token."""
        if len(self.ids) >= 2:
            self.follows[self.ids[-2], self.ids[-1]] = len(self.ids)
        self.ids.append(token)

    def guess(self, most: int) -> list[int]:
        """Guess up to `most` tokens; a repetition is guessed to go on."""
        at = self.follows.get((self.ids[-2], self.ids[-1])) if len(self.ids) >= 2 else None
        if at is None:
            return []
        period = len(self.ids) - at
        return [self.ids[at + k % period] for k in range(min(most, self.reach))]

    def learn(self, guessed: int, right: int) -> None:
        """Adapt the reach to how many guesses were right."""
        if guessed:
            self.reach = 2 * self.reach if right == guessed else max(1, right)
            self.reach = min(self.reach, LONGEST)
