"""Some clusters of near duplicates to read: who stays, who goes, how similar they are, and where they differ.

Which are shown is left to chance: of all documents that went as near duplicates the seed draws some, and each shows its
cluster, so a cluster of many documents is drawn more often. Of one cluster a few documents are shown, the first of the
corpus, and of each pair of texts the stretch in which they first differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from alignment.corpus import dedup, duplicates
from alignment.corpus.column import mapped
from alignment.corpus.documents import Document
from alignment.corpus.ngrams import CJK
from alignment.corpus.shelf import Shelf
from alignment.run import write_text
from alignment.section import Near

CLUSTERS = 20  # shown at most
MEMBERS = 4  # of a cluster, beside the one that stays
BEFORE, SHOWN = 40, 400  # characters before the first difference, and of each text from there
PIECES = re.compile(rf"[{CJK}]|[^\W{CJK}]+|\s+|[^\w\s]")


def write(path: Path, shards: Sequence[Path], step: Path, near: Near, seed: int) -> None:
    """Write the page for the documents of `shards`, as the step `duplicates` decided of them."""
    fate, instead = mapped(step / duplicates.FATE), mapped(step / "instead.npy")
    gone = np.flatnonzero((fate == duplicates.NEAR) & (instead >= 0))  # not those that an index holds
    drawn = np.random.default_rng(seed).permutation(gone)[:CLUSTERS]
    with Shelf(shards) as shelf:
        pages = [
            _cluster(shelf, int(root), gone[instead[gone] == root], near)
            for root in dict.fromkeys(instead[drawn].tolist())  # each once, in the order in which they were drawn
        ]
    head = (
        f"# Clusters of near duplicates\n\n{len(gone):,} documents of {len(fate):,} went as near duplicates of one that "
        f"stays (J >= {near.threshold:g} over {near.shingle}-grams, keep: {near.keep}). Shown are the clusters of "
        f"{len(drawn)} of them, drawn with seed {seed}. A document may be alike to one that went, and less to the one that "
        "stays. `[-...-]` stands only in the document that goes, `{+...+}` only in the one that stays.\n"
    )
    write_text(path, "\n".join([head, *pages]))


def _cluster(shelf: Shelf, root: int, members: np.ndarray[tuple[int], np.dtype[np.int64]], near: Near) -> str:
    (stays,) = shelf.documents(np.array([root]))
    grams = dedup.shingles(stays, near.shingle)
    lines = [f"## {_named(stays)} stays, {len(members):,} went"]
    for document in shelf.documents(members[:MEMBERS]):
        similarity = dedup.jaccard(grams, dedup.shingles(document, near.shingle))
        lines += [f"{_named(document)} went: J = {similarity:.3f}", _quoted(difference(document.text, stays.text))]
    if len(members) > MEMBERS:
        lines.append(f"and {len(members) - MEMBERS:,} more")
    return "\n\n".join(lines) + "\n"


def difference(gone: str, stays: str) -> str:
    """Show the stretch in which two texts first differ, with marks around what only one of them holds."""
    shorter = min(len(gone), len(stays))
    same = next((place for place in range(shorter) if gone[place] != stays[place]), shorter)
    begin = max(same - BEFORE, 0)
    return "".join(_marked(*(PIECES.findall(text[begin : begin + SHOWN]) for text in (gone, stays))))


def _marked(gone: list[str], stays: list[str]) -> Iterator[str]:
    for kind, a, b, c, d in SequenceMatcher(None, gone, stays, autojunk=False).get_opcodes():
        if kind == "equal":
            yield "".join(gone[a:b])
            continue
        if a < b:
            yield f"[-{''.join(gone[a:b])}-]"
        if c < d:
            yield f"{{+{''.join(stays[c:d])}+}}"


def _named(document: Document) -> str:
    return f"`{document.id}` ({document.dump}, {len(document.text):,} characters)"


def _quoted(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())  # Markdown takes indented lines as they are
