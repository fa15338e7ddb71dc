"""What rules measure on one document: shares of its characters, words, lines and repeated runs.

After Gopher (Rae et al. 2021, A1.1), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024), with counterparts for
text without spaces: there two characters count as a word, runs of n words are runs of 2n characters, and clauses stand
for words where their length is meant. Blank lines are no lines. None: the measure has no meaning for this text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice

import numpy as np

from alignment.corpus.reading import CHARACTERS_PER_WORD, LETTER, WORD, Reading, word_hash

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Gopher's
CHINESE_STOP_WORDS = tuple("的是在了不和有这也就")
BULLETS = re.compile(r"^[^\S\n]*[-•·●◆■○]", re.MULTILINE)
ELLIPSES = ("...", "…", "。。。")
ENDS = (".", "?", "!", "。", "？", "！", "…", "．", "｡", "⁉", "⁈", "‼")  # of a sentence
QUOTES = tuple("\"'”’」』）)")  # may follow an end
SENTENCES = re.compile(r"""[.?!]+["'”’)]*(?=\s|$)|[。？！…．｡]+""")
SHORT_LINE = 30  # characters; FineWeb's

Measure = Callable[[Reading], float | None]


def letter_share(reading: Reading) -> float:
    """Letters of any script among what is not white space: few in tables of numbers and in drawings."""
    return reading.letters / max(reading.visible, 1)


def symbol_share(reading: Reading) -> float:
    """Marks among what is not white space: many in markup and encoded data."""
    return reading.symbols / max(reading.visible, 1)


def repeated_line_share(reading: Reading) -> float:
    """Characters in lines that the document has had before, white space around them aside: boilerplate."""
    lines = [stripped for line in reading.text.splitlines() if (stripped := line.strip())]
    whole = sum(map(len, lines))
    return (whole - sum(map(len, set(lines)))) / max(whole, 1)


def word_length(reading: Reading) -> float | None:
    """Mean characters of a word."""
    lengths = reading.lengths[reading.token_kinds == WORD]
    return float(lengths.mean()) if len(lengths) and not reading.chinese else None


def clause_length(reading: Reading) -> float | None:
    """Mean characters between two marks."""
    count, characters = reading.clauses
    return characters / count if reading.chinese and count else None


def alphabetic_words(reading: Reading) -> float:
    """Words between white space with a letter in them; of Chinese text the tokens."""
    starts = reading.tokens[0] if reading.chinese else reading.word_starts
    if not len(starts):
        return 0.0
    letters = np.logical_or.reduceat((reading.kinds & LETTER) > 0, starts)  # white space at their ends has none
    return float(np.count_nonzero(letters)) / len(starts)


def stop_words(reading: Reading) -> int:
    """Different stop words that occur, of the language that has more: text with commands in it may be of either."""
    return max(sum(bool((reading.hashes == stop).any()) for stop in _stop_words(chinese)) for chinese in (False, True))


def hash_ratio(reading: Reading) -> float:
    """Hash signs per word or mark."""
    return reading.text.count("#") / reading.units


def ellipsis_ratio(reading: Reading) -> float:
    """Ellipses per word or mark."""
    return sum(map(reading.text.count, ELLIPSES)) / reading.units


def newline_ratio(reading: Reading) -> float:
    """Line ends per word or mark: many in lists."""
    return reading.text.count("\n") / reading.units


def bullet_lines(reading: Reading) -> float:
    """Lines that begin with a bullet."""
    return len(BULLETS.findall(reading.text)) / max(len(reading.lines), 1)


def ellipsis_lines(reading: Reading) -> float:
    """Lines that end in an ellipsis."""
    if not any(map(reading.text.count, ELLIPSES)):
        return 0.0
    return sum(line.rstrip().endswith(ELLIPSES) for line in reading.lines) / max(len(reading.lines), 1)


def finished_lines(reading: Reading) -> float:
    """Lines that end as a sentence does."""
    return sum(line.endswith(ENDS) for line in reading.lines) / max(len(reading.lines), 1)


def short_lines(reading: Reading) -> float:
    """Lines of few characters."""
    most = SHORT_LINE // CHARACTERS_PER_WORD if reading.chinese else SHORT_LINE
    return sum(len(line) <= most for line in reading.lines) / max(len(reading.lines), 1)


def sentences(reading: Reading, enough: int | None = None) -> int:
    """Ends of sentences, counted no further than `enough`."""
    return sum(1 for _ in islice(SENTENCES.finditer(reading.text), enough))


def duplicate_lines(reading: Reading) -> float:
    """Lines that the document has had before."""
    return _duplicates(reading.lines)[0] / max(len(reading.lines), 1)


def duplicate_line_characters(reading: Reading) -> float:
    """Characters in such lines."""
    return _duplicates(reading.lines)[1] / max(len(reading.text), 1)


def duplicate_paragraphs(reading: Reading) -> float:
    """Paragraphs that the document has had before."""
    return _duplicates(reading.paragraphs)[0] / max(len(reading.paragraphs), 1)


def duplicate_paragraph_characters(reading: Reading) -> float:
    """Characters in such paragraphs."""
    return _duplicates(reading.paragraphs)[1] / max(len(reading.text), 1)


def _duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts stood before, and their characters."""
    once = set(parts)
    if len(once) == len(parts):
        return 0, 0
    return len(parts) - len(once), sum(map(len, parts)) - sum(map(len, once))


def top_run(reading: Reading, words: int) -> float:
    """Characters of the run of so many words that stands most often, all its places together."""
    length = words * CHARACTERS_PER_WORD if reading.chinese else words
    found = reading.repeated(length)
    if found.most < 2:
        return 0.0
    gaps = 0 if reading.chinese else words - 1
    return found.most * (int(reading.run_characters(found.top, length)) + gaps) / len(reading.text)


def repeated_runs(reading: Reading, words: int, enough: float = 0.0) -> float:
    """Characters in runs of so many words that stood before; what is counted is passed over, as in Gopher.

    The text is walked through only where the share could pass `enough`; below it a bound is returned.
    """
    length = words * CHARACTERS_PER_WORD if reading.chinese else words
    found, whole = reading.repeated(length), max(len(reading.text), 1)
    again = found.starts[~found.first]
    ends = np.minimum(again + length, np.append(again[1:], len(reading.hashes)))
    bound = float(reading.characters_between(again, ends).sum()) / whole  # each character once, however many runs
    if bound <= enough:
        return bound
    sizes = reading.run_characters(found.starts, length)
    seen: set[int] = set()
    after = characters = 0
    for start, group, size in zip(found.starts.tolist(), found.group.tolist(), sizes.tolist(), strict=True):
        if start < after:
            continue
        if group in seen:
            characters += size
            after = start + length
        else:
            seen.add(group)
    return characters / whole


@cache
def _stop_words(chinese: bool) -> list[np.uint64]:
    return [np.uint64(word_hash(word)) for word in (CHINESE_STOP_WORDS if chinese else STOP_WORDS)]


MEASURES: dict[str, Measure] = {  # by the field of the recipe without its min_ or max_
    "characters": lambda reading: len(reading.text),
    "letter_share": letter_share,
    "symbol_share": symbol_share,
    "repeated_line_share": repeated_line_share,
    "words": lambda reading: reading.words,
    "word_length": word_length,
    "clause_length": clause_length,
    "hash_ratio": hash_ratio,
    "ellipsis_ratio": ellipsis_ratio,
    "bullet_lines": bullet_lines,
    "ellipsis_lines": ellipsis_lines,
    "alphabetic_words": alphabetic_words,
    "stop_words": stop_words,
    "duplicate_lines": duplicate_lines,
    "duplicate_paragraphs": duplicate_paragraphs,
    "duplicate_line_characters": duplicate_line_characters,
    "duplicate_paragraph_characters": duplicate_paragraph_characters,
    "sentences": sentences,
    "finished_lines": finished_lines,
    "short_lines": short_lines,
    "newline_ratio": newline_ratio,
}
