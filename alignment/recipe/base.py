"""What the recipes of all stages have: a seed, the profiles they fit, and what they read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from alignment.schema import Name, Words
from alignment.section import Start


class Recipe(Words):
    """What every stage has. `fits` names the hardware profiles it was written for; it is not part of what is learnt."""

    stage: str
    seed: int = 0
    fits: Annotated[tuple[Name, ...], Field(min_length=1)] = ("cpu",)

    def runs(self) -> set[str]:
        """Name the neighbouring runs that this recipe reads."""
        return set(_names(self.model_dump(), "run")) | self._direct_runs()

    def cards(self) -> set[str]:
        """Name the data cards that this recipe reads."""
        return set(_names(self.model_dump(), "card"))

    def batches(self) -> list[tuple[int, int]]:
        """Name the training batches: sequences per update, tokens per sequence."""
        return []

    def starts(self) -> dict[str, Start]:
        """Name the models that this recipe reads, each by its place in the recipe."""
        return dict(_starts(self, ""))

    def _direct_runs(self) -> set[str]:
        return set()


def _starts(words: Words, place: str) -> Iterator[tuple[str, Start]]:
    for name in type(words).model_fields:
        value = getattr(words, name)
        if isinstance(value, Start):
            yield f"{place}{name}", value
        elif isinstance(value, Words):
            yield from _starts(value, f"{place}{name}.")


def _names(value: Any, key: str) -> Iterable[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get(key), str):
            yield value[key]
        for inner in value.values():
            yield from _names(inner, key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names(inner, key)
