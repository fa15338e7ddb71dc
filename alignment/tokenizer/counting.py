"""Word counts of a stratified sample: training reads these, so memory is bounded by words, not by text.

The sample is drawn by the hash of a document's name, in two passes over the corpus that hold no text. Words are counted
in one pass; where there are more than fit, the rarest are forgotten, and how many that were is said.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tokenizers.pre_tokenizers import Sequence
from xxhash import xxh3_64_intdigest

from alignment.corpus.documents import Document
from alignment.errors import DataError
from alignment.tokenizer import pretokens

BATCH = 4_000_000  # characters whose pieces are counted before they are cut into words
LONGEST = 4096  # symbols of a word; what is longer is counted in parts: a merge rewrites the whole word, again and again
PAIRS = 2**31 - 1  # tokenizers adds up pairs in 32 bits and goes on below zero, so that the commonest are never merged


# -- the sample -------------------------------------------------------------------------------------------------------


def limits(found: Iterable[Document], sample_bytes: int, shares: Mapping[str, float], seed: int) -> dict[str, int]:
    """Find the highest hash of each domain's part of the sample; shares of nothing are those of the corpus."""
    hashes: dict[str, array[int]] = {}
    sizes: dict[str, array[int]] = {}
    for document in found:
        hashes.setdefault(document.domain, array("Q")).append(_hash(document, seed))
        sizes.setdefault(document.domain, array("Q")).append(document.bytes)
    if unknown := sorted(set(shares) - set(hashes)):
        raise DataError(f"shares: the corpus has no domain {unknown[0]!r}. Domains: {', '.join(sorted(hashes)) or 'none'}.")
    weights = shares or {domain: float(sum(size)) for domain, size in sizes.items()}
    if not (whole := sum(weights.values())):
        raise DataError("the corpus is empty, or every share is 0: there is no text to learn from. Name another corpus.")
    highest = {}
    for domain, weight in sorted(weights.items()):
        left = sample_bytes * weight / whole
        for mark, size in sorted(zip(hashes[domain], sizes[domain], strict=True)):
            if left <= 0:
                break
            highest[domain] = mark
            left -= size
    return highest


def sample(found: Iterable[Document], limits: Mapping[str, int], seed: int) -> Iterator[Document]:
    """Pass on the documents up to their domain's highest hash: the same ones in any order and in any company."""
    return (document for document in found if _hash(document, seed) <= limits.get(document.domain, -1))


def _hash(document: Document, seed: int) -> int:
    return xxh3_64_intdigest(f"{seed}/{document.dump}/{document.id}".encode())


# -- the counts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """How often each word (in the byte alphabet) stands in the text, and how many occurrences were forgotten."""

    words: Mapping[str, int]
    forgotten: int = 0

    @property
    def total(self) -> int:
        """All occurrences."""
        return sum(self.words.values()) + self.forgotten


def count(texts: Iterable[str], digits: str = "split", max_words: int = 10_000_000) -> Counts:
    """Count words. Above `max_words` distinct ones the rarest go: those seen once so far, then twice, and so on."""
    cut = pretokens.pre_tokenizer(digits)
    words: Counter[str] = Counter()
    forgotten = 0
    for found in _pieces(texts):
        _add(words, found, cut)
        floor = 0
        while len(words) > max_words:
            floor += 1
            rare = [word for word, number in words.items() if number <= floor]
            forgotten += sum(words.pop(word) for word in rare)
    return Counts(words, forgotten)


def check_overflow(words: Mapping[str, int]) -> None:
    """Refuse counts that the trainer cannot add up. No later pair is commoner than the commonest pair of bytes."""
    if sum(number * (len(word) - 1) for word, number in words.items()) <= PAIRS:
        return
    pairs: Counter[str] = Counter()
    for word, number in words.items():
        for left, right in pairwise(word):
            pairs[left + right] += number
    pair, most = max(pairs.items(), key=lambda item: item[1])
    if most > PAIRS:
        raise DataError(
            f"sample_bytes: the pair {pair!r} stands {most:,} times in the sample, and the trainer counts to {PAIRS:,}. "
            "Lower sample_bytes, or the share of the domain that repeats it."
        )


def _pieces(texts: Iterable[str]) -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    characters = 0
    for text in texts:
        found.update(pretokens.pieces(text))
        characters += len(text)
        if characters >= BATCH:
            yield found
            found, characters = Counter(), 0
    yield found


def _add(words: Counter[str], found: Counter[str], cut: Sequence) -> None:
    for piece, number in found.items():
        for word in pretokens.words(piece, cut):
            for start in range(0, len(word), LONGEST):
                words[word[start : start + LONGEST]] += number
