"""The stage `corpus`: raw documents -> deduplicated, filtered, decontaminated, remixed documents, and the ledger.

The order is the paper's (2.1): deduplication over all dumps together, filtering, remixing. Decontamination stands
before remixing, so that what it takes does not change the shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from alignment import recipe as words
from alignment.corpus import decontaminate, dedup, documents, filters, installed, ledger, readers, remix
from alignment.corpus.documents import Document
from alignment.corpus.ledger import Ledger
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.run import Run
from alignment.terminal import Progress


def build(recipe: words.Corpus, here: Run, hardware: Hardware) -> dict[str, float | int | str]:  # noqa: ARG001
    """Write documents.jsonl, heldout.jsonl and ledger.json; return the closing numbers."""
    book = Ledger()
    with here.progress("sources", len(recipe.data)) as bar:
        raw, templated = _raw(recipe.data, here, bar)
    book.step("sources", raw, raw)
    unique = _deduplicated(raw, templated, recipe, book)
    good = _filtered(unique, recipe.filters, book)
    clean = _decontaminated(good, recipe, here, book) if recipe.against else good
    mixed = _remixed(clean, recipe, here, book)
    train, held_out = remix.split(mixed, recipe.held_out, recipe.seed)
    if not train or (recipe.held_out and not held_out):
        raise DataError(f"held_out: {recipe.held_out} of {len(mixed)} documents leaves one side empty. Change it.")
    documents.write(here.path / "documents.jsonl", train)
    documents.write(here.path / "heldout.jsonl", held_out)
    book.write(here.path / "ledger.json")
    return _numbers(book, train, held_out)


def _raw(sources: Sequence[words.RawText], here: Run, bar: Progress) -> tuple[list[Document], set[str]]:
    """Read all sources; name the dumps whose near-duplicates are meant to be there."""
    raw: list[Document] = []
    templated: set[str] = set()
    for source in sources:
        found = list(readers.first(islice(_documents(source, here), source.rows), source.limit_bytes))
        if not found:
            raise DataError(f"data: {_name(source)} gave no document. Raise its limit, or check the source.")
        if source.domain:
            found = [replace(document, domain=source.domain) for document in found]
        if not source.dedup:
            templated |= {document.dump for document in found}
        raw += found
        bar.advance(documents=len(raw))
    order = {dump: place for place, dump in enumerate(dict.fromkeys(document.dump for document in raw))}
    return sorted(raw, key=lambda document: order[document.dump]), templated


def _documents(source: words.RawText, here: Run) -> Iterator[Document]:
    if source.run:
        yield from documents.read(here.inputs[source.run].path / "documents.jsonl")
    elif source.card:
        yield from here.cards[source.card].documents()
    elif source.installed:
        yield from installed.documents(source.installed)


def _name(source: words.RawText) -> str:
    return source.run or source.card or source.installed or "a source"


def _deduplicated(raw: list[Document], templated: set[str], recipe: words.Corpus, book: Ledger) -> list[Document]:
    same = dedup.exact(raw)
    left = [position for position in range(len(raw)) if position not in same.survivor]
    book.step(
        "exact duplicates",
        raw,
        [raw[position] for position in left],
        {"equal text": [raw[position] for position in same.survivor]},
        {raw[position].id: raw[other] for position, other in same.survivor.items()},
    )
    sought = [position for position in left if raw[position].dump not in templated]
    near = dedup.near(
        [raw[position] for position in sought],
        shingle=recipe.near.shingle,
        hashes=recipe.near.hashes,
        bands=recipe.near.bands,
        threshold=recipe.near.threshold,
        seed=recipe.seed,
    )
    survivor = {sought[position]: sought[other] for position, other in near.survivor.items()}
    unique = [raw[position] for position in left if position not in survivor]
    book.step(
        "near duplicates",
        [raw[position] for position in left],
        unique,
        {"near duplicate": [raw[position] for position in survivor]},
        {raw[position].id: raw[other] for position, other in survivor.items()},
    )
    lost = same.joins.copy()
    lost[np.array(sought, np.int64)] |= near.joins
    book.facts["removed_as_dumps_are_joined"] = ledger.joined(raw, lost)
    book.facts["near"] = {"candidates": near.candidates, "verified": near.pairs, **recipe.near.model_dump()}
    return unique


def _filtered(unique: list[Document], limits: words.Filters, book: Ledger) -> list[Document]:
    rules = [
        filters.shorter_than(limits.min_characters),
        filters.longer_than(limits.max_characters),
        filters.letters_below(limits.min_letter_share),
        filters.symbols_above(limits.max_symbol_share),
        filters.repeated_lines_above(limits.max_repeated_line_share),
    ]
    good, dropped = filters.keep(unique, rules)
    if not good:
        took = ", ".join(f"{reason}: {len(lost)}" for reason, lost in dropped.items())
        raise DataError(f"filters: all {len(unique)} documents were filtered out ({took}). Loosen that rule of `filters:`.")
    book.step("filters", unique, good, dropped)
    return good


def _decontaminated(good: list[Document], recipe: words.Corpus, here: Run, book: Ledger) -> list[Document]:
    items = decontaminate.heldout(here.inputs[str(recipe.against)].path / "heldout")
    found = decontaminate.overlap(good, items)
    clean = [document for position, document in enumerate(good) if position not in found.contains]
    if not clean:
        raise DataError(f"against: every document contains a held-out item of {recipe.against}. Check that run.")
    dropped = {"contains a held-out item": [good[position] for position in found.contains]}
    book.step("decontamination", good, clean, dropped)
    book.facts["decontamination"] = found.report()
    return clean


def _remixed(clean: list[Document], recipe: words.Corpus, here: Run, book: Ledger) -> list[Document]:
    available: dict[str, int] = {}
    for document in clean:
        available[document.domain] = available.get(document.domain, 0) + document.bytes
    plan = remix.plan(available, recipe.shares, budget=recipe.bytes, max_epochs=recipe.max_epochs)
    if plan.bound_by:
        total = sum(plan.take.values())
        here.say(f"{total:,} of {recipe.bytes:,} bytes: {plan.bound_by} is read max_epochs = {recipe.max_epochs} times")
    mixed = remix.remix(clean, plan, recipe.seed)
    book.step("remix", clean, mixed)
    book.facts["remix"] = {"shares": recipe.shares, "epochs": plan.epochs, "bound_by": plan.bound_by}
    return mixed


def _numbers(book: Ledger, train: list[Document], held_out: list[Document]) -> dict[str, float | int | str]:
    lost = {row["step"]: row["in"]["documents"] - row["out"]["documents"] for row in book.steps}
    numbers: dict[str, float | int | str] = {
        "documents": len(train),
        "bytes": sum(document.bytes for document in train),
        "held_out_documents": len(held_out),
        "held_out_bytes": sum(document.bytes for document in held_out),
        "raw_documents": book.steps[0]["in"]["documents"],
        "exact_duplicates": lost["exact duplicates"],
        "near_duplicates": lost["near duplicates"],
        "filtered": lost["filters"],
    }
    if "decontamination" in lost:
        numbers["contaminated"] = lost["decontamination"]
        for group, counts in book.facts["decontamination"]["groups"].items():
            numbers |= {f"{group}_{name}": count for name, count in counts.items()}
    return numbers
