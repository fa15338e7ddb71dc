"""A data card: one Markdown file per data set; its front matter says where the rows lie and what they may be used for.

`data_cards/NAME.md` -> `load()` -> `resolve()` to files (a local copy below --data-root, else the hub at a pinned
revision) -> `open_card()`, from which a stage reads documents, instruction rows or pairs. A held-out split never
reaches a training stage. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from alignment import layouts, rows, schema
from alignment.corpus import readers
from alignment.corpus.remote import asking_hub as asking_hub
from alignment.errors import DataError, HubError, RecipeError
from alignment.recipe import UNPINNED

CARDS = Path("data_cards")
DOCUMENTS, ITEMS = "documents", "items"  # items: read by an evaluation task, never by a stage
READERS = (DOCUMENTS, ITEMS, *layouts.INSTRUCTIONS, *layouts.PAIRS)  # `kto` gives rows and pairs

RelativePath = Annotated[str, Field(min_length=1)]


class Split(schema.Words):
    """Some files of a data set, and what they are for. `rows` and `bytes` (of the files) stand only where known."""

    role: Literal["train", "held-out"]
    files: Annotated[tuple[RelativePath, ...], Field(min_length=1)]  # patterns below --data-root
    hub_files: tuple[RelativePath, ...] = ()  # exact names in the hub repository; unset: `files`
    rows: Annotated[int, Field(gt=0)] | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None
    seen: bool  # whether rows and bytes were counted on the files; False: from memory or from a page

    @field_validator("files", "hub_files")
    @classmethod
    def _inside(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError("name files relative to the data root, without `..`")
        return names


class Card(schema.Words):
    """The front matter of a data card."""

    name: schema.Name
    origin: str
    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|unpinned)$")] | None = None
    licence: str
    language: str
    domain: str
    reader: str
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    rename: dict[str, str] = Field(default_factory=dict)  # columns that the reader knows by other names: column: its name
    fill: dict[str, str] = Field(default_factory=dict)  # values for placeholders `{{name}}` in the texts
    splits: Annotated[dict[str, Split], Field(min_length=1)]

    @field_validator("hub", "revision", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("reader")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in READERS:
            raise ValueError(f"no such reader. {schema.nearest(value, READERS)} It stands there")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Card:
        if unknown := sorted(set(self.rename) - set(self.columns)):
            raise ValueError(f"rename: {', '.join(unknown)} is not among columns")
        names = [self.rename.get(column, column) for column in self.columns]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rename: two columns would be called {twice[0]}")
        if self.reader == DOCUMENTS and (self.rename or self.fill):
            raise ValueError("rename and fill are for records; the reader `documents` does not read them")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: a commit hash or `unpinned`, or none for both")
        for name, split in self.splits.items():
            if self.hub and any(mark in file for file in split.hub_files or split.files for mark in "*?["):
                raise ValueError(f"split {name}: a hub file needs its exact name; add hub_files")
            if self.reader == ITEMS and split.role == "train":
                raise ValueError(f"split {name}: the reader `items` is for held-out splits; training needs a reader")
        return self


@dataclass
class Opened:
    """A card with its files at hand: the rows that the last reading took, and by reason what it left out of them."""

    card: Card
    paths: tuple[Path, ...]
    digest: str
    streamed: tuple[str, ...] = ()  # instead of paths: names in the hub repository, read from there without a copy
    rows_read: int | None = None
    dropped: Counter[str] = field(default_factory=Counter)

    def about(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"revision": self.card.revision, "rows": self.rows_read, "digest": self.digest}

    def files(self) -> tuple[readers.File, ...]:
        """Name the files of raw documents, each by what tells it apart from the others."""
        self._expect((DOCUMENTS,), "documents")
        if self.streamed:
            hub = f"{self.card.hub}@{self.card.revision}"
            return tuple(readers.File(f"{self.card.name}/{name}", f"{hub}/{name}", on_hub=True) for name in self.streamed)
        above = os.path.commonpath([path.parent for path in self.paths])
        return tuple(
            readers.File(f"{self.card.name}/{path.relative_to(above).as_posix()}", str(path)) for path in self.paths
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read instruction rows."""
        self._expect(layouts.INSTRUCTIONS, "instruction rows")
        return rows.instructions(self.records(), self.card.reader, self.card.model_dump(), self.dropped)

    def pairs(self) -> Iterator[dict[str, str]]:
        """Read preference pairs."""
        self._expect(layouts.PAIRED, "preference pairs")
        return rows.pairs(self.records(), self.card.reader, self.card.model_dump(), self.dropped)

    def judged(self) -> Iterator[dict[str, Any]]:
        """Read answers judged good or bad; a pair is one of each."""
        self._expect(layouts.PAIRED, "judged answers")
        return rows.judged(self.records(), self.card.reader, self.card.model_dump(), self.dropped)

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read the rows as they stand, each with the place that a complaint can name; placeholders are filled."""
        self.dropped.clear()
        self.rows_read = 0
        for path in self.paths:
            for where, record in rows.records(path, self.card.columns):
                self.rows_read += 1
                missing = [name for name in self.card.columns if name not in record]
                if missing:
                    raise DataError(f"{where}: no column {missing[0]!r}, which card {self.card.name} promises.")
                if self.card.rename:
                    record = self._renamed(record, where)
                yield where, _filled(record, self.card.fill) if self.card.fill else record

    def _renamed(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        names = self.card.rename
        for name in names.values():
            if name in record and name not in names:
                raise DataError(f"{where}: has a column {name!r} already. Rename that one too in card {self.card.name}.")
        return {names.get(column, column): value for column, value in record.items()}

    def _expect(self, known: Sequence[str] | Mapping[str, Any], what: str) -> None:
        if self.card.reader not in known:
            raise DataError(f"card {self.card.name}: reader {self.card.reader!r} gives no {what}. Name another card.")


def open_card(name: str, data_root: Path | None, *, training: bool, stream: bool = False, folder: Path = CARDS) -> Opened:
    """Find a card's files: the train splits for a training stage, the held-out ones otherwise.

    `stream`: what is not below the data root stays on the hub, and its commit stands for its content.
    """
    card = load(name, folder)
    renamed = [card.rename] if card.rename else []
    read_as = json.dumps([card.reader, card.fill, card.language, card.domain, *renamed], sort_keys=True)
    splits = _splits(card, training=training)
    if stream and card.hub and not (data_root and _local(card, splits, data_root)):
        _pinned(card)
        names = tuple(name for split in splits for name in split.hub_files or split.files)
        whole = f"{read_as}{card.hub}@{card.revision} {json.dumps(names)}"
        return Opened(card, (), hashlib.sha256(whole.encode()).hexdigest(), names)
    paths = resolve(card, data_root, training=training)
    return Opened(card, tuple(paths), hashlib.sha256((read_as + digest(paths)).encode()).hexdigest())


def load(name: str, folder: Path = CARDS) -> Card:
    """Read one card. Raises DataError naming file, field and the nearest known word."""
    path = folder / f"{name}.md"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.md") if file.stem != "README")
        hint = schema.nearest(name, known) if known else f"There is none in {folder}/: run this from the project's root."
        raise DataError(f"{path}: no such data card. {hint}")
    try:
        raw = schema.parse(front_matter(path.read_text(encoding="utf-8"), path), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    except RecipeError as error:
        raise DataError(str(error)) from None
    if not isinstance(raw, dict):
        raise DataError(f"{path}: the front matter is a mapping that begins with `name:`.")
    if "reader" not in raw:
        raise DataError(f"{path}: reader: missing, so nothing can read the rows. Readers: {', '.join(READERS)}.")
    card = schema.validate(Card, raw, str(path), DataError)
    if card.name != name:
        raise DataError(f"{path}: name: is {card.name!r}; a card is called as its file.")
    return card


def check(name: str, *, training: bool, folder: Path = CARDS) -> None:
    """Refuse a card that has no split for this use: a held-out set cannot be trained on."""
    _splits(load(name, folder), training=training)


def front_matter(text: str, path: Path) -> str:
    """The YAML between the two `---` lines at the head of a card."""
    head, fence, rest = text.partition("---\n")
    yaml, end, _ = rest.partition("\n---\n")
    if head.strip() or not fence or not end:
        raise DataError(f"{path}: no front matter. A card begins with YAML between two lines of `---`.")
    return yaml + "\n"


def resolve(card: Card, data_root: Path | None, *, training: bool) -> list[Path]:
    """Name the files of a card: local copies below the data root, else from the hub at the pinned revision."""
    splits = _splits(card, training=training)
    local = _local(card, splits, data_root) if data_root is not None else []
    if local:
        other = [split for split in card.splits.values() if split not in splits]
        both = {file for split in other for name in split.files for file in (data_root or Path()).glob(name)}
        if shared := sorted(both & set(local)):
            raise DataError(f"card {card.name}: {shared[0]} is in a train and in a held-out split. Mend the card.")
        return local
    if card.hub is None:
        wanted = ", ".join(name for split in splits for name in split.files)
        place = f"{data_root} holds none of: {wanted}" if data_root else f"no --data-root was given (it holds {wanted})"
        raise DataError(f"card {card.name}: {place}. Point --data-root at a local copy; origin: {card.origin}.")
    return _fetched(card, splits)


def digest(paths: Sequence[Path]) -> str:
    """Hash files by name and content (hex)."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def _splits(card: Card, *, training: bool) -> list[Split]:
    splits = [split for split in card.splits.values() if (split.role == "train") == training]
    if not splits:
        kind = "every split is held out, so no training stage may read it" if training else "it has no held-out split"
        raise DataError(f"card {card.name}: {kind}. Name another card.")
    return splits


def _local(card: Card, splits: Sequence[Split], data_root: Path) -> list[Path]:
    if not data_root.is_dir():
        raise DataError(f"{data_root}: no such folder. Point --data-root at the folder that holds the data sets.")
    names = [name for split in splits for name in split.files]
    found = {name: sorted(file for file in data_root.glob(name) if file.is_file()) for name in names}
    absent = [name for name, files in found.items() if not files]
    if absent and len(absent) < len(found):
        raise DataError(f"card {card.name}: {data_root / absent[0]} is missing, the other files are there. Complete it.")
    return list(dict.fromkeys(file for files in found.values() for file in files))


def _pinned(card: Card) -> None:
    if card.revision == UNPINNED:
        raise HubError(
            f"card {card.name}: {card.hub} has no pinned revision, so tomorrow's rows may be others. "
            f"Run `python -m alignment pin {CARDS / card.name}.md` once, or give --data-root with a local copy."
        )


def _fetched(card: Card, splits: Sequence[Split]) -> list[Path]:
    _pinned(card)
    from huggingface_hub import hf_hub_download

    names = [name for split in splits for name in split.hub_files or split.files]
    with asking_hub(f"card {card.name}: {card.hub}@{card.revision}"):
        return [
            Path(
                hf_hub_download(
                    str(card.hub),
                    name,
                    repo_type="dataset",
                    revision=card.revision,
                    endpoint=os.environ.get("HF_ENDPOINT"),
                )
            )
            for name in names
        ]


def _filled(value: Any, fill: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in fill.items():
            value = value.replace("{{" + name + "}}", text)
        return value
    if isinstance(value, dict):
        return {key: _filled(inner, fill) for key, inner in value.items()}
    return [_filled(inner, fill) for inner in value] if isinstance(value, list) else value
