"""What models, lists and the row itself say of a document. The models are small arrays in .npz files, never pickles.

`learnt` trains them and writes the lists down as hashes, once a run; every worker maps the same files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.corpus.measures import Measure
from alignment.corpus.ngrams import Windows
from alignment.corpus.reading import Reading
from alignment.errors import DataError
from alignment.sieve import Filters

FEATURES = 1 << 18  # of a classifier: words and pairs of words by hash
LANGUAGE_CHARACTERS = 1000  # what the language is told from
ORDER = 6  # bytes in the longest run that the byte model counts
CELLS = np.uint64(21)  # bits: two million counts an order
STRENGTH = 4.0  # how many bytes seen outweigh what shorter runs say
SCORED_BYTES = 16384  # of a document by the byte model
LICENCE = ("licence", "license")  # fields of a row
ROBOTS = ("robots", "robots_txt", "robots_meta", "x_robots_tag")
CLOSED = {"disallow", "disallowed", "noindex", "noai", "none", "deny", "denied", "false"}

Model = dict[str, NDArray[Any]]


def scores(words: Filters, models: Path | None) -> Iterator[tuple[str, float, Measure]]:
    """The rules of a recipe that need a model: the field with the threshold, its value and the measure."""
    if words.languages:
        languages = frozenset(words.languages)
        yield "min_language_probability", words.min_language_probability, partial(language, languages=languages)
    if words.min_quality is not None:
        yield "min_quality", words.min_quality, partial(likeness, model=load(models, "quality"))
    if words.max_toxicity is not None:
        yield "max_toxicity", words.max_toxicity, partial(likeness, model=load(models, "toxicity"))
    if words.max_toxic_words is not None:
        yield "max_toxic_words", words.max_toxic_words, partial(listed, lists=load(models, "toxic_words"))
    if words.max_perplexity_rank is not None:
        yield "max_perplexity_rank", words.max_perplexity_rank, partial(rank, model=load(models, "fluent"))


def load(models: Path | None, name: str) -> Model:
    """Read a model that `learnt` wrote."""
    path = (models or Path()) / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no model here ({error}). It is trained at the start of the stage; run it anew.") from None


# -- language ----------------------------------------------------------------------------------------------------------


def language(reading: Reading, languages: frozenset[str]) -> float:
    """The probability that the text is in one of these languages."""
    ranked = _identifier().rank(reading.text[:LANGUAGE_CHARACTERS])
    return float(sum(chance for name, chance in ranked if name in languages))


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


# -- classifiers and lists ---------------------------------------------------------------------------------------------


def features(reading: Reading) -> NDArray[np.int64]:
    """The features of a text: which words and pairs of words it has, case aside, hashed to numbers below FEATURES."""
    pairs = Windows(reading.folded).of(2)
    return np.unique(np.concatenate([reading.folded, pairs]) % np.uint64(FEATURES)).astype(np.int64)


def likeness(reading: Reading, model: Model) -> float:
    """The probability that a text is like the examples that `yes` names."""
    found = features(reading)
    score = model["weights"][found].sum() / math.sqrt(max(len(found), 1)) + model["bias"][0]
    return 1 / (1 + math.exp(-min(max(float(score), -50.0), 50.0)))


def listed(reading: Reading, lists: Model) -> float:
    """The share of a text's words and marks that stand in a listed entry."""
    windows, inside = Windows(reading.folded), 0
    for length, entries in lists.items():
        inside += int(length) * int(np.isin(windows.of(int(length)), entries).sum())
    return inside / max(len(reading.folded), 1)


# -- the byte model ----------------------------------------------------------------------------------------------------


def runs(text: bytes) -> Iterator[NDArray[np.int64]]:
    """For each length up to ORDER the cell that the run ending at each byte is counted in."""
    codes = np.frombuffer(text, np.uint8).astype(np.uint64)
    packed = np.zeros(len(codes), np.uint64)
    for length in range(1, ORDER + 1):
        back = length - 1
        packed[back:] |= codes[: len(codes) - back] << np.uint64(8 * back)
        mixed = (packed + np.uint64(length)) * np.uint64(0x9E3779B97F4A7C15)
        yield (mixed >> np.uint64(64) - CELLS).astype(np.int64)


def bits_per_byte(reading: Reading, counts: NDArray[np.uint32]) -> float:
    """How many bits a byte of the text costs the byte model; `counts` has a row for each length of runs.

    Each length is interpolated with the shorter ones: p = (n(run) + s p') / (n(run without its last byte) + s).
    """
    text = reading.text.encode()[:SCORED_BYTES]
    chance = np.full(len(text), 1 / 256)
    context = np.full(len(text), float(counts[0].sum()))
    for row, cells in zip(counts, runs(text), strict=True):
        count = row[cells].astype(np.float64)
        context = np.maximum(context, count)  # two runs that share a cell must not make a probability above one
        chance = (count + STRENGTH * chance) / (context + STRENGTH)
        context = np.concatenate([[0.0], count[:-1]])
    return float(-np.log2(chance).mean()) if len(text) else 8.0


def rank(reading: Reading, model: Model) -> float | None:
    """Where a text's bits per byte stand among those of its language in the corpus: 0 reads best, 1 worst."""
    among = model.get(f"rank/{reading.document.language}", model["rank/"])
    place = np.searchsorted(among, bits_per_byte(reading, model["counts"]))
    return float(place) / len(among)


# -- the row itself ----------------------------------------------------------------------------------------------------


def unlicensed(reading: Reading, allowed: set[str]) -> bool:
    """Whether a row states no licence, or another than the allowed ones."""
    meta = reading.document.meta
    stated = next((meta[name] for name in LICENCE if meta.get(name)), "")
    found = stated if isinstance(stated, list) else [stated]
    return not all(str(licence).casefold() in allowed for licence in found)


def closed(reading: Reading) -> bool:
    """Whether a row says that robots may not use it: `robots: noindex, noai`, `robots_txt: disallow`, or false."""
    said = [reading.document.meta[name] for name in ROBOTS if name in reading.document.meta]
    return any(value is False or CLOSED & set(re.split(r"[\s,;:]+", str(value).lower())) for value in said)
