"""The sections of a recipe that say which documents of a corpus are kept, and what is masked in them.

Shares lie between 0 and 1. A rule that is not given is off; the first five always hold.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignment.schema import Name, Positive, Rate, Share, Words

Grams = dict[Annotated[int, Field(ge=1, le=100)], Share]  # words in a run: share of the characters


class Examples(Words):
    """Documents of one run, one card or the installed Python, all or those whose fields have the given values."""

    run: Name | None = None
    card: Name | None = None
    installed: Literal["stdlib", "packages"] | None = None
    where: dict[str, str] = Field(default_factory=dict)
    rows: Positive | None = None  # the first so many

    @model_validator(mode="after")
    def _one(self) -> Examples:
        if sum(value is not None for value in (self.run, self.card, self.installed)) != 1:
            raise ValueError("give exactly one of run, card and installed")
        return self


class Labels(Words):
    """Examples of two kinds, from which a linear classifier learns. A score near 1 is like the first kind."""

    yes: Annotated[tuple[Examples, ...], Field(min_length=1)]
    no: Annotated[tuple[Examples, ...], Field(min_length=1)]


class Filters(Words):
    """Quality rules. A document that breaks one goes, and the ledger says which."""

    min_characters: Positive = 200
    max_characters: Positive = 1_000_000
    max_symbol_share: Share = 0.45
    max_repeated_line_share: Share = 0.3
    min_letter_share: Share = 0.25

    # Gopher (Rae et al. 2021, A1.1), whose values are 50, 100000, 3, 10, 0.1, 0.1, 0.9, 0.3, 0.8 and 2
    min_words: Positive | None = None  # two Chinese characters count as a word
    max_words: Positive | None = None
    min_word_length: Rate | None = None  # mean; of text that is not mostly Chinese
    max_word_length: Rate | None = None
    min_clause_length: Rate | None = None  # its Chinese counterpart: mean characters between two marks
    max_clause_length: Rate | None = None
    max_hash_ratio: Share | None = None  # per word or mark
    max_ellipsis_ratio: Share | None = None
    max_bullet_lines: Share | None = None
    max_ellipsis_lines: Share | None = None
    min_alphabetic_words: Share | None = None
    min_stop_words: Positive | None = None  # different ones

    # Gopher, repetition (Table A1): 0.3, 0.3, 0.2, 0.2, {2: 0.2, 3: 0.18, 4: 0.16}, {5: 0.15, ..., 10: 0.1}
    max_duplicate_lines: Share | None = None
    max_duplicate_paragraphs: Share | None = None
    max_duplicate_line_characters: Share | None = None  # FineWeb: 0.01
    max_duplicate_paragraph_characters: Share | None = None
    max_top_grams: Grams = Field(default_factory=dict)  # the most frequent run of so many words
    max_duplicate_grams: Grams = Field(default_factory=dict)  # all that stood in such a run before

    # C4 (Raffel et al. 2020, 2.2): [lorem ipsum, "{"] and 5
    forbidden: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # phrases, whatever their case
    cut_lines: tuple[Literal["unfinished", "short", "javascript", "policy"], ...] = ()
    min_sentences: Positive | None = None

    # FineWeb (Penedo et al. 2024, 3.6): 0.12, 0.67 and 0.3
    min_finished_lines: Share | None = None  # that end a sentence
    max_short_lines: Share | None = None  # of 30 characters, or 15 Chinese ones
    max_newline_ratio: Share | None = None  # per word or mark

    # What a model, a list or the rows themselves say
    languages: tuple[str, ...] = ()  # ISO 639-1, as identified; code has none
    min_language_probability: Share = 0.5
    quality: Labels | None = None
    min_quality: Share | None = None
    toxicity: Labels | None = None
    max_toxicity: Share | None = None
    toxic_words: tuple[Examples, ...] = ()  # lists, an entry a line; none is part of this project
    max_toxic_words: Share | None = None  # of the words
    fluent: tuple[Examples, ...] = ()  # text that a byte model learns, to say what reads like it
    max_perplexity_rank: Share | None = None  # within its language; 0.67: the head and the middle third
    licences: tuple[str, ...] = ()  # the only ones; a row that states none goes
    robots: bool = True  # a row that says a robot may not use it goes
    contaminated_by: Literal["item", "run"] = "item"  # of `against`: the whole of an item, or a run of one
    mask: tuple[Literal["email", "phone", "id", "card", "ip"], ...] = ()

    @model_validator(mode="after")
    def _each_has_its_other_half(self) -> Filters:
        for given, limit in (
            ("quality", "min_quality"),
            ("toxicity", "max_toxicity"),
            ("toxic_words", "max_toxic_words"),
            ("fluent", "max_perplexity_rank"),
        ):
            if not getattr(self, given) and getattr(self, limit) is not None:
                raise ValueError(f"{limit} needs {given}")
            if getattr(self, given) and getattr(self, limit) is None:
                raise ValueError(f"{given} needs {limit}")
        return self
