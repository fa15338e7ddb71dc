"""The stage `corpus`: raw documents -> deduplicated, filtered, decontaminated, remixed documents, and the ledger.

The order is the paper's (2.1): deduplication over all dumps together, filtering, remixing. Decontamination stands
before remixing, so that what it takes does not change the shares. Each step is a map over shards below `steps/`, which
`carrier` carries out and a resumed run does not repeat; between the maps stand small steps on columns of numbers. A step's
folder is named by all that the step depends on, so a corrected recipe does again what the correction touches, and no more.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignment import recipe as words
from alignment.corpus import (
    card,
    carrier,
    clusters,
    deal,
    decontaminate,
    duplicates,
    installed,
    learnt,
    ledger,
    remix,
    repeats,
    sources,
    spans,
)
from alignment.corpus.carrier import Crew, Folders
from alignment.corpus.deal import Deal, Order
from alignment.corpus.duplicates import Duplicates
from alignment.corpus.intake import Intake
from alignment.corpus.ledger import Ledger, Tally
from alignment.corpus.shelf import Shelf, said
from alignment.corpus.sift import STEPS, Sift
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.run import Run

WORKER_BYTES = 192 << 20  # of a process, beside its largest document
PER_ROW = 160  # bytes that the steps between the shards hold for each document
PER_DOCUMENT_BYTE = 32  # that the largest document takes while it is read, signed and judged
KEY = 12  # hexadecimal digits
JUDGED = {"dedup", "max_bad_share"}  # what is said of a source, but not asked by who reads it
SIGNED = ("shingle", "hashes", "bands")  # what a signature depends on, beside the seed
SAMPLE = 5000  # documents that models of the filters are set against

Numbers = dict[str, float | int | str]


def build(recipe: words.Corpus, here: Run, hardware: Hardware) -> Numbers:
    """Write documents.jsonl, heldout.jsonl, aside.jsonl and ledger.json; return the closing numbers."""
    crew, book = _crew(recipe, hardware), Ledger()
    raw = _read(recipe, here, crew, book)
    twins = _deduplicated(recipe, here, raw, book)
    sifted = _sifted(recipe, here, crew, raw, twins, book)
    numbers = _remixed(recipe, here, crew, sifted, book)
    _joined(here.path / "aside.jsonl", [folder / "aside.jsonl" for folder in raw])
    clusters.write(here.path / "clusters.md", raw, twins, recipe.near, recipe.seed)
    if recipe.against:
        spans.write(here.path / "decontamination_sample.jsonl", decontaminate.sample([said(f)["overlap"] for f in sifted]))
    duplicates.keep_removed(here.path / "removed", twins)
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


def _carry(here: Run, name: str, work: carrier.Work, shards: int, crew: Crew, depends: object) -> Folders:
    """Carry out a step in a folder that is named by what it depends on; earlier steps are named in their folders."""
    key = hashlib.sha256(repr(depends).replace(str(here.path), "").encode()).hexdigest()[:KEY]
    with here.progress(name, shards) as bar:
        return carrier.carry(here.path / "steps" / f"{name}-{key}", work, shards, crew, bar.advance)


def _once(here: Run, name: str, work: carrier.Work, depends: object) -> Path:
    """Do a step on numbers, which is one shard, in this process."""
    return _carry(here, name, work, 1, Crew(1), depends)[0]


def _content(here: Run, names: Iterable[str | None]) -> list[Any]:
    """What cards and runs hold, by their digests; of a run, its fingerprint."""
    known = {**here.manifest.get("inputs", {}), **{name: opened.digest for name, opened in here.cards.items()}}
    return [(name, known.get(name)) for name in names if name]


# -- read -------------------------------------------------------------------------------------------------------------


def _read(recipe: words.Corpus, here: Run, crew: Crew, book: Ledger) -> Folders:
    parts = sources.parts(recipe, here)
    depends = _asked(recipe, here, parts), {name: getattr(recipe.near, name) for name in SIGNED}, recipe.seed
    raw = _carry(here, "read", Intake(tuple(parts), recipe.near, recipe.seed), len(parts), crew, depends)
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
    if aside:
        here.say(f"{aside.total():,} rows put aside into aside.jsonl ({', '.join(f'{k}: {n}' for k, n in aside.items())})")
    return raw


def _asked(recipe: words.Corpus, here: Run, parts: Iterable[sources.Part]) -> list[Any]:
    """All that decides what `read` finds in the sources."""
    asked: list[Any] = _content(here, [source.card or source.run for source in recipe.data])
    asked += [installed.digest() for source in recipe.data if source.installed]
    for part in parts:
        names = [file.name for file in part.files]
        asked.append((part.source.model_dump(exclude=JUDGED), names, part.domain, part.language, part.most))
    return asked


def _deduplicated(recipe: words.Corpus, here: Run, raw: Folders, book: Ledger) -> Path:
    sought = tuple(part.source.dedup for part in sources.parts(recipe, here))
    indexes = tuple(_index(recipe, here, name) for name in recipe.index)
    work = Duplicates(raw, sought, recipe.near, indexes)
    twins = _once(here, "duplicates", work, (work, _content(here, recipe.index)))
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
    for field, ours in {**recipe.near.model_dump(include=set(SIGNED)), "seed": recipe.seed}.items():
        if theirs[field] != ours:
            raise DataError(f"index: run {name} has {field} {theirs[field]}, here it is {ours}. Only alike can be compared.")
    return found.path / "index"


# -- sift -------------------------------------------------------------------------------------------------------------


def _sifted(recipe: words.Corpus, here: Run, crew: Crew, raw: Folders, twins: Path, book: Ledger) -> Folders:
    depends = raw, recipe.filters, recipe.seed, _content(here, [*here.manifest.get("inputs", {}), *here.cards])
    models = _once(here, "learn", lambda _, out: _learn(recipe, here, raw, out), depends)
    book.facts |= said(models)
    against = here.inputs[recipe.against].path / "heldout" if recipe.against else None
    repeated = _repeated(recipe, here, crew, raw, twins, book)
    work = Sift(raw, twins, repeated, recipe.filters, models, against, recipe.seed, _turns(recipe))
    sifted = _carry(here, "sift", work, len(raw), crew, (work, _content(here, [recipe.against])))
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
    return sifted


def _repeated(
    recipe: words.Corpus, here: Run, crew: Crew, raw: Folders, twins: Path, book: Ledger
) -> tuple[words.Strings, Path, Path] | None:
    """Find what documents repeat; return where the lines lie, and the runs."""
    if (asked := recipe.strings) is None:
        return None
    look = repeats.Windows(raw, twins, asked)
    windows = _carry(here, "windows", look, len(raw), crew, look)
    gather = repeats.Shared(windows, {repeats.LINES: asked.line_documents, repeats.CHOSEN: asked.run_documents})
    shared = _once(here, "shared", gather, gather)
    again = repeats.Runs(raw, twins, asked, shared)
    runs = _carry(here, "runs", again, len(raw), crew, again)
    gather = repeats.Shared(runs, {repeats.RUNS: asked.run_documents})
    found = _once(here, "strings", gather, gather)
    book.facts["strings"] = said(shared) | said(found)
    return asked, shared, found


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
    work = Order(sifted, plan, _turns(recipe), recipe.held_out, bool(recipe.languages))
    order = _once(here, "order", work, work)
    found = said(order)
    numbers: Numbers = found["numbers"]
    book.step("remix", Tally.read(found["tally"]))
    book.facts["remix"] = {"shares": recipe.shares, "epochs": plan.epochs, "bound_by": plan.bound_by, "plan": plan.rows}
    if not numbers["documents"] or (recipe.held_out and not numbers["held_out_documents"]):
        count = book.steps[-1]["out"]["documents"]
        raise DataError(f"held_out: {recipe.held_out} of {count} documents leaves one side empty. Change it.")
    cuts = np.load(order / "cuts.npy")
    parts = _carry(here, "deal", Deal(sifted, order), len(cuts) - 1, crew, Deal(sifted, order))
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
