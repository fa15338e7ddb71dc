"""Instruction rows -> tokenised rows with labels, in the shares that the recipe asks for, and a validation split.

    sources -> read, tokenise, in batches -> spool on disk -> duplicates, shares, split: numbers -> doctor -> rows.jsonl

The learnt part is exactly the answers with their end marks. A row that is too long is dropped and counted, never cut.
Rows with the same question lie on one side of the split. Memory holds some hundred bytes a row, never its text.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from alignment import data_card
from alignment.corpus import decontaminate, dedup, minhash
from alignment.corpus.documents import Document
from alignment.errors import DataError
from alignment.hardware import Hardware
from alignment.posttrain import doctor, quota, spool, start, supervision
from alignment.posttrain.diagnosis import Cut, Diagnosis
from alignment.posttrain.intake import Intake
from alignment.posttrain.spool import Part, Row, Spool
from alignment.recipe import Mixture, Near, Source
from alignment.run import Run, write_text

BATCH = 1024  # rows that are tokenised at once
WRITTEN = ("id", "input_ids", "labels", "source", "language", "domain")  # of a row; its text stays in its source
TELL_EVERY = 100_000  # rows between two lines to the person who waits
QUESTIONS = ("question", "Question", "problem", "prompt", "text")  # what evaluation sets call it
SCRATCH = "steps"  # of a run: outside its seal
NEAR, BEYOND, LEAK = "near duplicate", "beyond its share", "contains a held-out item"


class Built(NamedTuple):
    """The rows to train on and the held-out ones; how they came to be."""

    train: Part
    validation: Part
    intake: Intake
    said: dict[str, Any]  # of the ledger: decontamination, near, blend, as far as they were asked for


def build(recipe: Mixture, here: Run, hardware: Hardware) -> dict[str, float | int | str]:  # noqa: ARG001
    """Write rows.jsonl, validation.jsonl and ledger.json, if the doctor finds the rows sound."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    with scratch(here) as folder:
        built = gather(recipe, here, tokenizer, folder)
        counts = doctor.gate(_seen_by_doctor(recipe, built, tokenizer, f"{here.path}: {recipe.stage}"), here)
        for name, part in (("rows", built.train), ("validation", built.validation)):
            save(here.path / f"{name}.jsonl", ({key: row[key] for key in WRITTEN} for row in part))
    held = len(built.validation)
    write_text(here.path / "ledger.json", json.dumps(ledger(built, counts, tokenizer), indent=1, ensure_ascii=False))
    here.say(f"{len(built.train):,} rows, {held} for validation; dropped: {said(built.intake.left_out)}")
    return {**counts, "validation": held, "dropped": built.intake.left_out.total()}


def examine(recipe: Mixture, here: Run) -> Diagnosis:
    """Let the doctor look at the rows that this recipe would write."""
    _, tokenizer = start.open_tokenizer(recipe, here)
    with scratch(here) as folder:
        return _seen_by_doctor(recipe, gather(recipe, here, tokenizer, folder), tokenizer, recipe.stage)


def _seen_by_doctor(recipe: Mixture, built: Built, tokenizer: Any, where: str) -> Diagnosis:
    cut, dropped = built.intake.cut, built.intake.left_out
    return doctor.rows(built.train, built.validation, cut, dropped, tokenizer, where, overlong=recipe.overlong)


def ledger(built: Built, counts: Mapping[str, int], tokenizer: Any) -> dict[str, Any]:
    """Say in plain data what is in the mixture, validation rows too, and what is not."""
    times = built.train.times + built.validation.times
    rows = {f"{name}s": built.train.spool.counts(name, times) for name in ("source", "domain", "language")}
    return {
        **counts,
        "validation": len(built.validation),
        "read": dict(built.intake.read),
        "dropped": dict(built.intake.left_out),
        "dropped_of": {source: dict(reasons) for source, reasons in built.intake.dropped.items()},
        **rows,
        "tokenizer": supervision.signature(tokenizer),
        **built.said,
    }


# -- what is read, and what of it is taken ----------------------------------------------------------------------------


def gather(recipe: Mixture, here: Run, tokenizer: Any, folder: Path) -> Built:
    """Read and tokenise all rows into a spool in `folder`; choose among them by duplicates and shares, and split them."""
    intake = Intake(tokenizer, Cut(recipe.max_length))
    sought = decontaminate.Sought(items) if (items := list(_held_out(recipe, here))) else None
    kept = Spool(folder / "spool.jsonl", recipe.seed)
    spooled = _spooled(recipe, here, intake, sought, kept)
    if recipe.near:
        minhash.write(folder / "sketch", (_sketch(rows, recipe.near, recipe.seed) for rows in spooled))
    else:
        for _ in spooled:
            pass
    told: dict[str, Any] = {"decontamination": sought.report()} if sought else {}
    among = np.ones(len(kept), np.bool_)
    if recipe.near and len(kept):
        among, told["near"] = _distinct(folder, recipe.near, kept, intake)
    times = among.astype(np.int32)
    if recipe.blend and len(kept):
        times, told["blend"] = quota.times(kept, among, recipe.blend, recipe.seed)
        _note(intake, kept, among & (times == 0), BEYOND)
    taken = np.flatnonzero(times)
    questions = np.frombuffer(bytes(kept.questions), "V16")[taken].tobytes()
    held = np.zeros(len(kept), np.bool_)
    held[taken] = spool.held_out(questions, recipe.validation)
    return Built(kept.part(times * ~held), kept.part(held.astype(np.int32)), intake, told)


def _spooled(
    recipe: Mixture, here: Run, intake: Intake, sought: decontaminate.Sought | None, kept: Spool
) -> Iterator[list[Row]]:
    """Spool the rows that can be learnt, a batch at a time."""
    for source in recipe.data:
        left: Counter[str] = Counter()
        name, before, done = str(source.run or source.card), len(kept), 0
        for batch in spool.batches(read(source, here, left), BATCH):
            intake.read.update(row["source"] for row in batch)
            rows = intake.take(_clean(batch, sought, intake) if sought else batch)
            kept.add(rows)
            yield rows
            if (done := done + len(batch)) % TELL_EVERY < len(batch):
                here.say(f"{name}: {done:,} rows read")
        for reason, count in left.items():
            intake.read[name] += count
            intake.count(name, reason, count)
        here.say(f"{name}: {len(kept) - before:,} rows can be learnt")


def read(source: Source, here: Run, dropped: Counter[str]) -> Iterator[Row]:
    """Read the instruction rows of a run or a card; what a card's reader leaves out is added to `dropped` at the end."""
    if source.run:
        path = here.inputs[source.run].path / "instructions.jsonl"
        if not path.exists():
            raise DataError(f"{path}: no such file. Name a run that writes instructions, or a card.")
        yield from islice(load(path), source.rows)
        return
    card = here.cards[str(source.card)]
    yield from islice(card.rows(), source.rows)
    dropped.update(card.dropped)


def _held_out(recipe: Mixture, here: Run) -> Iterator[decontaminate.Item]:
    """The evaluation items that no row may contain: of a run's held-out sets, and of cards."""
    if recipe.against:
        yield from decontaminate.heldout(here.inputs[recipe.against].path / "heldout")
    for name in recipe.held_out:
        for where, record in data_card.open_card(name, here.data_root, training=False).records():
            asked = next((record[key] for key in QUESTIONS if isinstance(record.get(key), str)), None)
            if asked is None:
                raise DataError(f"{where}: no question ({', '.join(QUESTIONS)}). Is card {name} an evaluation set?")
            given = record.get("choices") or [record[letter] for letter in "ABCD" if letter in record]
            choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCDEFGHIJ", given, strict=False))
            yield decontaminate.Item(where, asked + choices, name)


def _clean(rows: list[Row], sought: decontaminate.Sought, intake: Intake) -> list[Row]:
    """Drop rows that contain a whole evaluation item."""
    goes = sought.look([_document(row) for row in rows])
    for position in goes:
        intake.count(rows[position]["source"], LEAK)
    return [row for position, row in enumerate(rows) if position not in goes]


def _document(row: Row) -> Document:
    text = "\n".join(turn["content"] for turn in row["messages"])
    return Document(row["id"], text, row["domain"], row["language"], row["source"])


def _sketch(rows: list[Row], near: Near, seed: int) -> minhash.Sketch:
    """Sketch conversations; system turns stay out, since many rows share them."""
    texts = ["\n".join(turn["content"] for turn in row["messages"] if turn["role"] != "system") for row in rows]
    code = [dedup.CODE in row["domain"] for row in rows]
    return minhash.sketch(texts, code, shingle=near.shingle, hashes=near.hashes, bands=near.bands, seed=seed)


def _distinct(folder: Path, near: Near, kept: Spool, intake: Intake) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """Which rows stay when of those that are alike, over all sources, one does."""
    found = dedup.cluster(minhash.Store([folder / "sketch"]), near.threshold, scratch=folder)
    stays = dedup.survivors(found, near.keep, lengths=np.array(kept.sizes, np.float64))
    among = stays == np.arange(len(kept))
    _, number = kept.groups("source")
    across = int((number != number[stays]).sum())
    _note(intake, kept, ~among, NEAR)
    return among, {
        "candidates": found.candidates,
        "verified": found.verified,
        "gone": int((~among).sum()),
        "gone_for_a_row_of_another_source": across,
    }


def _note(intake: Intake, kept: Spool, gone: np.ndarray[Any, Any], reason: str) -> None:
    for source, count in kept.counts("source", gone.astype(np.int32)).items():
        intake.count(source, reason, count)


@contextmanager
def scratch(here: Run) -> Iterator[Path]:
    """Make a folder in the run for what is needed on the way."""
    folder = here.path / SCRATCH
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- a few rows, in memory --------------------------------------------------------------------------------------------


class Tokenised(NamedTuple):
    """Rows that can be learnt, with what was left out by reason, and what cutting the long ones would have lost."""

    rows: list[Row]
    dropped: Counter[str]
    cut: Cut


def tokenise(rows: Iterable[Row], tokenizer: Any, max_length: int) -> Tokenised:
    """Encode conversations; a row that cannot be learnt is counted by its reason."""
    intake = Intake(tokenizer, Cut(max_length))
    kept = [row for batch in spool.batches(rows, BATCH) for row in intake.take(batch)]
    return Tokenised(kept, intake.left_out, intake.cut)


def check_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Refuse a mixture whose ids are those of another tokenizer or chat template."""
    made_with = json.loads((folder / "ledger.json").read_text(encoding="utf-8"))["tokenizer"]
    if made_with != supervision.signature(tokenizer):
        raise DataError(f"{folder}: tokenised for another tokenizer or chat template. Build it for this start.")


def load(path: Path) -> Iterator[Row]:
    """Read a JSONL file of ours."""
    with path.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def save(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file."""
    with path.open("wb") as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def said(counts: Mapping[str, int]) -> str:
    """Say counts by reason in a line."""
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "nothing"
