"""Train what the rules of a recipe ask: linear classifiers, a byte model, and lists written down as hashes.

The examples are the user's own, or any text taken for good and for bad; a fifth of them is held out, and the area under
the curve stands in the ledger with its interval. scikit-learn fits the weights; what is kept are arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from alignment.corpus import judges
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import Windows
from alignment.corpus.reading import Reading
from alignment.errors import DataError
from alignment.sieve import Examples, Filters, Labels

Read = Callable[[Examples], Iterable[Document]]

HELD_OUT = 5  # one example in so many
FEWEST = 20  # examples of each kind
LENGTHS = range(1, 9)  # words of an entry of a list
TEXT_BYTES = 8 << 20  # that the byte model learns at most
RANKED = 5000  # documents of the corpus that a rank is taken among, at most
Z = 1.959964  # 95 %


def learn(words: Filters, read: Read, sample: Iterable[Document], folder: Path) -> dict[str, Any]:
    """Write the models that the rules need into a folder; return what is known of them, for the ledger.

    `read` gives the documents that a section of the recipe names; `sample` is of the corpus, the same in every run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    for name, labels in (("quality", words.quality), ("toxicity", words.toxicity)):
        if labels is not None:
            facts[name] = classifier(name, labels, read, folder / f"{name}.npz")
    if words.toxic_words:
        facts["toxic_words"] = lists(_examples(words.toxic_words, read), folder / "toxic_words.npz")
    if words.fluent:
        facts["fluent"] = byte_model(_examples(words.fluent, read), sample, folder / "fluent.npz")
    return facts


def _examples(sources: Sequence[Examples], read: Read) -> Iterator[Document]:
    for source in sources:
        found = (
            document
            for document in read(source)
            if all(str(_field(document, name)) == value for name, value in source.where.items())
        )
        yield from islice(found, source.rows)


def _field(document: Document, name: str) -> Any:
    if name in ("domain", "language", "dump"):
        return getattr(document, name)
    if name not in document.meta:
        raise DataError(f"where: document {document.id} has no field {name!r}. It has {sorted(document.meta)}.")
    return document.meta[name]


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, allow_pickle=False, **arrays)


# -- classifiers -------------------------------------------------------------------------------------------------------


def classifier(name: str, labels: Labels, read: Read, path: Path) -> dict[str, Any]:
    """Fit a logistic regression on hashed words and pairs of words; say how well it tells held-out examples apart."""
    kinds = [[(document.id, judges.features(Reading(document))) for document in _examples(side, read)]
             for side in (labels.yes, labels.no)]  # fmt: skip
    if min(map(len, kinds)) < FEWEST:
        counts = " and ".join(str(len(kind)) for kind in kinds)
        raise DataError(f"{name}: {counts} examples (yes and no); {FEWEST} of each are the fewest to learn from. Add some.")
    rows = [(_held_out(id_), found, label) for label, kind in ((1, kinds[0]), (0, kinds[1])) for id_, found in kind]
    training = [(found, label) for held, found, label in rows if not held]
    unseen = [(found, label) for held, found, label in rows if held]
    if {label for _, label in unseen} != {0, 1}:
        raise DataError(f"{name}: no example of both kinds could be held out. Add examples.")
    model = _fit(training)
    _save(path, model)
    scores = [model["weights"][found].sum() / math.sqrt(max(len(found), 1)) for found, _ in unseen]
    auc, low, high = area([s for s, (_, y) in zip(scores, unseen, strict=True) if y],
                          [s for s, (_, y) in zip(scores, unseen, strict=True) if not y])  # fmt: skip
    return {
        "examples": {"yes": len(kinds[0]), "no": len(kinds[1])},
        "held_out": len(unseen),
        "auc": round(auc, 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def _held_out(id_: str) -> bool:
    return xxh3_64_intdigest(f"held out {id_}".encode()) % HELD_OUT == 0


def _fit(rows: Sequence[tuple[NDArray[np.int64], int]]) -> judges.Model:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    lengths = [len(found) for found, _ in rows]
    values = np.repeat([1 / math.sqrt(max(length, 1)) for length in lengths], lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_matrix((values, np.concatenate([found for found, _ in rows]), ends), (len(rows), judges.FEATURES))
    # The kinds weigh the same however many examples each has, so that 0.5 is the middle between them.
    fitted = LogisticRegression(C=10.0, class_weight="balanced", max_iter=300).fit(matrix, [label for _, label in rows])
    return {"weights": fitted.coef_[0].astype(np.float32), "bias": fitted.intercept_.astype(np.float32)}


def area(yes: Sequence[float], no: Sequence[float]) -> tuple[float, float, float]:
    """The area under the ROC curve with its 95 % interval (DeLong et al. 1988, on the logit scale).

    Where all pairs are in order that variance is zero: the interval is then Wilson's for so many of the rarer kind.
    """
    high, low = np.array(yes), np.array(no)
    above = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    auc = float(above.mean())
    by_yes, by_no = above.mean(axis=1), above.mean(axis=0)
    variance = sum(float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.0 for part in (by_yes, by_no))
    if variance == 0 or not 0 < auc < 1:
        from scipy.stats import binomtest

        n = min(len(yes), len(no))
        found = binomtest(round(auc * n), n).proportion_ci(method="wilson")
        return auc, float(found.low), float(found.high)
    half = Z * math.sqrt(variance) / (auc * (1 - auc))
    middle = math.log(auc / (1 - auc))
    return auc, 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


# -- lists and the byte model ------------------------------------------------------------------------------------------


def lists(documents: Iterable[Document], path: Path) -> dict[str, Any]:
    """Write the entries of word lists, one a line, as hashes by their number of words."""
    by_length: dict[int, set[int]] = {}
    for document in documents:
        for entry in filter(str.strip, document.text.splitlines()):
            tokens = Reading(Document("", entry, "", "", "")).folded
            if len(tokens) not in LENGTHS:
                raise DataError(f"toxic_words: {entry[:60]!r} has {len(tokens)} words; entries have 1 to {LENGTHS[-1]}.")
            by_length.setdefault(len(tokens), set()).update(Windows(tokens).of(len(tokens)).tolist())
    if not by_length:
        raise DataError("toxic_words: the lists have no entry. An entry stands on a line of its own.")
    _save(path, {str(n): np.array(sorted(found), np.uint64) for n, found in sorted(by_length.items())})
    return {"entries": sum(map(len, by_length.values()))}


def byte_model(text: Iterable[Document], sample: Iterable[Document], path: Path) -> dict[str, Any]:
    """Count runs of bytes in a text, and rank a sample of the corpus by what they cost, language by language."""
    counts = np.zeros((judges.ORDER, 1 << int(judges.CELLS)), np.uint32)
    learnt = 0
    for document in text:
        for row, cells in zip(counts, judges.runs(document.text.encode()), strict=True):
            np.add.at(row, cells, 1)
        learnt += document.bytes
        if learnt >= TEXT_BYTES:
            break
    if not learnt:
        raise DataError("fluent: the examples have no text. Name a source that has.")
    bits: dict[str, list[float]] = {"": []}
    for document in islice(sample, RANKED):
        found = judges.bits_per_byte(Reading(document), counts)
        bits[""].append(found)
        bits.setdefault(document.language, []).append(found)
    ranks = {f"rank/{language}": np.sort(found) for language, found in bits.items()}
    _save(path, {"counts": counts, **ranks})
    median = {language or "all": round(float(np.median(found)), 3) for language, found in bits.items()}
    return {"bytes": learnt, "ranked": len(bits[""]), "median_bits_per_byte": median}
