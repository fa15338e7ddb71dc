"""The stage `corpus`: raw documents -> deduplicated, filtered, decontaminated, remixed documents, and the ledger.

The order is the paper's (2.1): deduplication over all dumps together, filtering, remixing. Decontamination stands
before remixing, so that what it takes does not change the shares. Each step is a map over shards below `steps/`, which
`carrier` carries out and a resumed run does not repeat; between the maps stand small steps on columns of numbers.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from alignment import recipe as words
from alignment.corpus import card, carrier, deal, decontaminate, duplicates, learnt, ledger, remix, sources, spans, strings
from alignment.corpus.carrier import Crew, Folders
from alignment.corpus.deal import Deal, Order
from alignment.corpus.duplicates import Duplicates
from alignment.corpus.intake import Intake
from alignment.corpus.ledger import Ledger, Tally
from alignment.corpus.shelf import Shelf, said
from alignment.corpus.sift import STEPS, Sift, unique
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.run import Run

WORKER_BYTES = 192 << 20  # of a process, beside its largest document
PER_ROW = 160  # bytes that the steps between the shards hold for each document
PER_DOCUMENT_BYTE = 32  # that the largest document takes while it is read, signed and judged
SIGNED = {"shingle", "hashes", "bands"}  # what a signature depends on, beside the seed
SAMPLE = 5000  # documents that models of the filters are set against

Numbers = dict[str, float | int | str]


def build(recipe: words.Corpus, here: Run, hardware: Hardware) -> Numbers:
    """Write documents.jsonl, heldout.jsonl, aside.jsonl and ledger.json; return the closing numbers."""
    crew, book = _crew(recipe, hardware), Ledger()
    raw = _read(recipe, here, crew, book)
    twins = _deduplicated(recipe, here, raw, book)
    sifted = _sifted(recipe, here, crew, raw, twins, book)
    numbers = _remixed(recipe, here, crew, sifted, book)
    if recipe.keep_index:
        duplicates.keep_index(here.path / "index", raw, twins)
    book.write(here.path / "ledger.json")
    card.write(here, recipe.data, book.plain())
    return {**numbers, **_lost(book)}


def _crew(recipe: words.Corpus, hardware: Hardware) -> Crew:
    """As many processes as the machine has threads for, and the recipe memory, beside this one."""
    each = WORKER_BYTES + PER_DOCUMENT_BYTE * recipe.max_document_bytes
    if recipe.memory_bytes < each:
        raise DataError(
            f"memory_bytes: {recipe.memory_bytes:,} is too little. One process needs {each:,} for documents of up to "
            f"{recipe.max_document_bytes:,} bytes (max_document_bytes). Raise the one or lower the other."
        )
    return Crew(max(1, min(hardware.threads, recipe.memory_bytes // each - 1)), hardware.cluster)


def _carry(here: Run, name: str, work: carrier.Work, shards: int, crew: Crew) -> Folders:
    with here.progress(name, shards) as bar:
        return carrier.carry(here.path / "steps" / name, work, shards, crew, bar.advance)


def _once(here: Run, name: str, work: carrier.Work) -> Path:
    """Do a step on numbers, which is one shard, in this process."""
    return _carry(here, name, work, 1, Crew(1))[0]


# -- read -------------------------------------------------------------------------------------------------------------


def _read(recipe: words.Corpus, here: Run, crew: Crew, book: Ledger) -> Folders:
    parts = sources.parts(recipe, here)
    raw = _carry(here, "read", Intake(tuple(parts), recipe.near, recipe.seed), len(parts), crew)
    tally, aside = Tally(), Counter[str]()
    for number, source in enumerate(recipe.data):
        rows, files, bad = 0, 0, Counter[str]()
        for part, folder in ((p, f) for p, f in zip(parts, raw, strict=True) if p.number == number):
            there = said(folder)
            found = Tally.read(there["tally"])
            tally += found
            rows += found.total("out")["documents"]
            files += len(part.files)
            bad.update(there["aside"])
        sources.judge(source, number, files, rows, bad)
        if source.card:
            here.cards[source.card].rows_read = (here.cards[source.card].rows_read or 0) + rows
        aside += bad
    if (needed := WORKER_BYTES + PER_ROW * tally.total("in")["documents"]) > recipe.memory_bytes:
        raise DataError(f"memory_bytes: {recipe.memory_bytes:,}; so many documents need {needed:,}. Raise it.")
    book.step("sources", tally)
    book.facts["aside"] = dict(aside.most_common())
    _joined(here.path / "aside.jsonl", [folder / "aside.jsonl" for folder in raw])
    if aside:
        here.say(f"{aside.total():,} rows put aside into aside.jsonl ({', '.join(f'{k}: {n}' for k, n in aside.items())})")
    return raw


def _deduplicated(recipe: words.Corpus, here: Run, raw: Folders, book: Ledger) -> Path:
    sought = tuple(part.source.dedup for part in sources.parts(recipe, here))
    indexes = tuple(_index(recipe, here, name) for name in recipe.index)
    twins = _once(here, "duplicates", Duplicates(raw, sought, recipe.near, indexes))
    found = said(twins)
    book.facts["removed_as_dumps_are_joined"] = ledger.joined(found["documents"], found["removed"])
    counts = {name: found[name] for name in ("candidates", "verified")}
    book.facts["near"] = {**counts, **recipe.near.model_dump()}
    return twins


def _index(recipe: words.Corpus, here: Run, name: str) -> Path:
    """The index that an earlier run kept, if it was made with the same words."""
    found = here.inputs[name]
    if not (found.path / "index").is_dir():
        raise DataError(f"index: run {name} kept none. Run it with `keep_index: true`, or leave it out.")
    theirs = {**found.manifest["recipe"]["near"], "seed": found.manifest["recipe"]["seed"]}
    for field, ours in {**recipe.near.model_dump(include=SIGNED), "seed": recipe.seed}.items():
        if theirs[field] != ours:
            raise DataError(f"index: run {name} has {field} {theirs[field]}, here it is {ours}. Only alike can be compared.")
    return found.path / "index"


# -- sift -------------------------------------------------------------------------------------------------------------


def _sifted(recipe: words.Corpus, here: Run, crew: Crew, raw: Folders, twins: Path, book: Ledger) -> Folders:
    models = _once(here, "learn", lambda _, out: _learn(recipe, here, raw, out))
    book.facts |= said(models)
    against = here.inputs[recipe.against].path / "heldout" if recipe.against else None
    repeated = _repeated(recipe, here, raw, twins, book)
    work = Sift(raw, twins, repeated, recipe.filters, models, against, recipe.seed, _turns(recipe))
    sifted = _carry(here, "sift", work, len(raw), crew)
    tallies = {step: Tally() for step in STEPS}
    for folder in sifted:
        for step, plain in said(folder)["tallies"].items():
            tallies[step] += plain
    taken = {"repeated strings": recipe.strings, "decontamination": against}
    for step in STEPS:
        if taken.get(step, True):
            book.step(step, tallies[step])
    _something_left(tallies, recipe)
    if against:
        found = [said(folder)["overlap"] for folder in sifted]
        book.facts["decontamination"] = decontaminate.report(decontaminate.heldout(against), found)
        spans.write(here.path / "decontamination_sample.jsonl", decontaminate.sample(found))
    return sifted


def _repeated(recipe: words.Corpus, here: Run, raw: Folders, twins: Path, book: Ledger) -> tuple[words.Strings, Path] | None:
    asked = recipe.strings
    if asked is None:
        return None

    def find(_: int, out: Path) -> None:
        found = strings.repeated(lambda: unique(raw, twins), asked, out)
        (out / "said.json").write_text(json.dumps(found), encoding="utf-8")

    folder = _once(here, "strings", find)
    book.facts["strings"] = said(folder)
    return asked, folder


def _learn(recipe: words.Corpus, here: Run, raw: Folders, out: Path) -> None:
    with Shelf(raw) as shelf:
        some = np.sort(np.random.default_rng(recipe.seed).permutation(shelf.count)[:SAMPLE])
        facts = learnt.learn(recipe.filters, lambda named: sources.examples(named, here), shelf.documents(some), out)
    (out / "said.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def _something_left(tallies: Mapping[str, Tally], recipe: words.Corpus) -> None:
    if not tallies["filters"].total("in")["documents"]:
        raise DataError(f"index: every document is a duplicate of one in {', '.join(recipe.index)}. Nothing new is here.")
    good, reasons = tallies["filters"].total("out")["documents"], tallies["filters"].reasons
    if not good:
        took = ", ".join(f"{reason}: {entry['documents']}" for reason, entry in reasons.items())
        count = tallies["filters"].total("in")["documents"]
        raise DataError(f"filters: all {count} documents were filtered out ({took}). Loosen that rule of `filters:`.")
    if recipe.against and not tallies["decontamination"].total("out")["documents"]:
        raise DataError(f"against: every document contains a held-out item of {recipe.against}. Check that run.")


# -- remix ------------------------------------------------------------------------------------------------------------


def _remixed(recipe: words.Corpus, here: Run, crew: Crew, sifted: Folders, book: Ledger) -> Numbers:
    plan = _planned(recipe, deal.available(sifted))
    if plan.bound_by:
        total = sum(plan.take.values())
        here.say(f"{total:,} of {recipe.bytes:,} bytes: {plan.bound_by} is read max_epochs = {recipe.max_epochs} times")
    order = _once(here, "order", Order(sifted, plan, _turns(recipe), recipe.held_out, bool(recipe.languages)))
    found = said(order)
    numbers: Numbers = found["numbers"]
    book.step("remix", Tally.read(found["tally"]))
    book.facts["remix"] = {"shares": recipe.shares, "epochs": plan.epochs, "bound_by": plan.bound_by, "plan": plan.rows}
    if not numbers["documents"] or (recipe.held_out and not numbers["held_out_documents"]):
        count = book.steps[-1]["out"]["documents"]
        raise DataError(f"held_out: {recipe.held_out} of {count} documents leaves one side empty. Change it.")
    cuts = np.load(order / "cuts.npy")
    parts = _carry(here, "deal", Deal(sifted, order), len(cuts) - 1, crew)
    for name, some in (("documents", cuts[:-1] < numbers["documents"]), ("heldout", cuts[:-1] >= numbers["documents"])):
        _joined(here.path / f"{name}.jsonl", [parts[part] / "documents.jsonl" for part in np.flatnonzero(some)])
    return numbers


def _turns(recipe: words.Corpus) -> int:
    """How often a document may be read at most."""
    return math.ceil(max([recipe.max_epochs, *recipe.max_epochs_of.values()]))


def _planned(recipe: words.Corpus, found: Mapping[tuple[str, str], int]) -> remix.Plan:
    shares, caps = recipe.shares, recipe.max_epochs_of
    available: dict[str, int] = {}
    for (domain, _), size in found.items():
        available[domain] = available.get(domain, 0) + size
    if recipe.languages:
        available, shares = remix.by_language(found, shares, recipe.languages)
        caps = {group: caps[group.split("/")[0]] for group in available if group.split("/")[0] in caps}
    return remix.plan(available, shares, budget=recipe.bytes, max_epochs=recipe.max_epochs, caps=caps)


def _joined(path: Path, files: Iterable[Path]) -> None:
    """Write files one behind the other into one."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as out:
        for file in files:
            with file.open("rb") as piece:
                shutil.copyfileobj(piece, out, 1 << 20)
    draft.replace(path)


def _lost(book: Ledger) -> Numbers:
    lost = {row["step"]: row["in"]["documents"] - row["out"]["documents"] for row in book.steps}
    numbers: Numbers = {
        "raw_documents": book.steps[0]["in"]["documents"],
        "put_aside": sum(book.facts["aside"].values()),
        "exact_duplicates": lost["exact duplicates"],
        "near_duplicates": lost["near duplicates"],
        "filtered": lost["filters"],
    }
    if "decontamination" in lost:
        numbers["contaminated"] = lost["decontamination"]
        for group, counts in book.facts["decontamination"]["groups"].items():
            numbers |= {f"{group}_{name}": count for name, count in counts.items()}
    return numbers
