"""The run directory: what a stage leaves behind, sealed last.

`begin()` writes an unfinished `run.json`, the stage fills the directory, `finish()` lists every output with bytes and
sha256 and replaces `run.json` atomically. A finished manifest means finished files; `read()` refuses anything else.
`eval/`, `log.txt`, `checkpoints/`, `steps/` and runs within a run (the cells of an experiment) lie outside the seal.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment import manifest, terminal
from alignment.errors import RunError
from alignment.manifest import versions as versions
from alignment.terminal import Progress as Progress
from alignment.terminal import console as console

MANIFEST = "run.json"
HASH_LIMIT = 2 << 30  # read() hashes outputs up to this many bytes; `trace --verify` hashes all
WORKING = ("checkpoints", "steps")  # what a run continues from; goes when it is sealed
OUTSIDE = ("eval", *WORKING, "log.txt", MANIFEST)
# What a run holds before its stage has made anything; finished steps are named by what they depend on.
OURS = {MANIFEST, "recipe.yaml", "log.txt", "metrics.jsonl", "doctor.html", "steps"}


@dataclass(frozen=True)
class Finished:
    """A sealed run."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """The sealed fingerprint (hex)."""
        return str(self.manifest["fingerprint"])

    @property
    def parents(self) -> Mapping[str, str]:
        """The runs it was made from, with their fingerprints. An input with a colon is none: it begins the chain."""
        return {name: mark for name, mark in self.manifest["inputs"].items() if not name.endswith(":")}

    @property
    def numbers(self) -> Mapping[str, Any]:
        """The stage's closing numbers."""
        return dict(self.manifest["numbers"])


@dataclass
class Run:
    """A live, unfinished run directory. Only the main process writes."""

    path: Path
    inputs: Mapping[str, Finished]
    cards: Mapping[str, Any]  # name -> alignment.data_card.Opened
    main: bool
    resumed: bool
    manifest: dict[str, Any]
    started: float = field(default_factory=time.monotonic)
    data_root: Path | None = None  # where the cards' files are; the cells of an experiment look there too

    def log(self, **row: Any) -> None:
        """Append one line to metrics.jsonl."""
        if self.main:
            row["time"] = round(time.monotonic() - self.started, 3)
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def rewind(self, step: int) -> None:
        """Forget metrics after `step`: a resumed training logs them again."""
        path = self.path / "metrics.jsonl"
        if self.main and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(path, "".join(kept))

    def say(self, text: str) -> None:
        """Tell the person at the keyboard, and log.txt."""
        if self.main:
            console().print(f"  {text}", markup=False)
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Progress]:
        """Show how far a long step is."""
        if self.main:
            with terminal.progress(what, total) as bar:
                yield bar
        else:
            yield Progress(total)


# -- begin, finish, read ----------------------------------------------------------------------------------------------


def begin(
    path: Path,
    plan: dict[str, Any],
    *,
    inputs: Mapping[str, Finished],
    cards: Mapping[str, Any],
    main: bool,
    resume: bool,
    recipe_text: str,
    data_root: Path | None = None,
) -> Run:
    """Open a run directory for a stage.

    An unfinished run is continued only with `resume` and the same fingerprint; one whose stage has made nothing yet
    gives way to a corrected recipe.
    """
    resumed = resume
    if main:
        resumed = _may_begin(path, plan, resume)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / MANIFEST, json.dumps(plan, indent=1))
        write_text(path / "recipe.yaml", recipe_text)
        if not resumed:
            (path / "metrics.jsonl").unlink(missing_ok=True)  # of a recipe that was corrected
    return Run(path, inputs, cards, main, resumed, plan, data_root=data_root)


def _may_begin(path: Path, plan: Mapping[str, Any], resume: bool) -> bool:
    """Whether the run that lies there is continued. Raises RunError where it may be neither continued nor replaced."""
    holds = {file.name.removesuffix(".part") for file in path.iterdir() if not is_run(file)} if path.exists() else set()
    if not (path / MANIFEST).exists():
        if holds - {MANIFEST}:
            raise RunError(f"{path}: holds files but no {MANIFEST}. Choose another --runs, or remove them yourself.")
        return False
    old = read_manifest(path)
    if old.get("finished"):
        raise RunError(f"{path}: holds a finished run. Choose another --runs, or remove it yourself.")
    if old["fingerprint"] == plan["fingerprint"]:
        if not resume:
            raise RunError(f"{path}: holds an unfinished run. Add --resume to continue it, or choose another --runs.")
        return True
    if holds - OURS:
        raise RunError(
            f"{path}: the unfinished run differs from this recipe ({manifest.first_difference(old, plan)}). "
            "Restore the recipe, choose another --runs, or remove that run yourself."
        )
    return False


def finish(run: Run, numbers: Mapping[str, Any]) -> Finished:
    """Seal a run: list every output with bytes and sha256, then replace the manifest."""
    if not run.main:
        return Finished(run.path, run.manifest)
    outputs = {name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for name, file in _files(run.path)}
    half = [name for name in outputs if any(part.endswith(".part") for part in name.split("/"))]
    if half:
        raise RunError(f"{run.path}: {half[0]} is half-written. The stage has a fault; run it again with --resume.")
    sealed = {
        **run.manifest,
        "finished": True,
        "ended": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round(time.monotonic() - run.started, 1),
        "numbers": dict(numbers),
        "outputs": outputs,
    }
    sealed["seal"] = _seal(sealed)
    write_text(run.path / MANIFEST, json.dumps(sealed, indent=1))
    for name in WORKING:  # last: a run that dies before it is sealed needs them
        shutil.rmtree(run.path / name, ignore_errors=True)
    return Finished(run.path, sealed)


def read(path: Path, stage: str | None = None, *, hash_limit: int | None = HASH_LIMIT) -> Finished:
    """Open a finished run. Checks all sizes, and hashes up to `hash_limit` bytes (None: all of them).

    Raises RunError for a run that is missing, unfinished, foreign, changed, or of another stage.
    """
    found = read_manifest(path)
    if not found.get("finished"):
        raise RunError(f"{path}: unfinished. Continue it with --resume, then try again.")
    if found.get("seal") != _seal(found):
        raise RunError(f"{path}: {MANIFEST} was changed after it was sealed. Run the stage again elsewhere (--runs).")
    if stage is not None and found["stage"] != stage:
        raise RunError(f"{path}: a {found['stage']} run; a {stage} run is needed here.")
    if foreign := [name for name, _ in _files(path) if name not in found["outputs"]]:
        raise RunError(f"{path / foreign[0]}: was put there after the run was sealed. Move it away.")
    budget = float("inf") if hash_limit is None else hash_limit
    for name, seal in sorted(found["outputs"].items(), key=lambda item: item[1]["bytes"]):
        file = path / name
        if not file.exists():
            raise RunError(f"{file}: missing, though the run is sealed. Restore it, or run the stage again (--runs).")
        if file.stat().st_size != seal["bytes"]:
            raise RunError(f"{file}: {file.stat().st_size} bytes, {seal['bytes']} were sealed. Restore it or run again.")
        budget -= seal["bytes"]
        if budget >= 0 and sha256(file) != seal["sha256"]:
            raise RunError(f"{file}: its content was changed after the run was sealed. Restore it or run again.")
    return Finished(path, found)


def is_run(path: Path) -> bool:
    """Whether a folder claims to be a run."""
    return (path / MANIFEST).exists()


def sha256(path: Path) -> str:
    """Hash one file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    within = {manifest.parent for manifest in path.glob(f"*/{MANIFEST}")}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and name.split("/")[0] not in OUTSIDE and not within.intersection(file.parents):
            yield name, file


def read_manifest(path: Path) -> dict[str, Any]:
    """Parse a manifest, finished or not."""
    file = path / MANIFEST
    if not file.exists():
        raise RunError(f"{path}: no {MANIFEST} here. Run that stage first, or point --runs at where it was run.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file}: not a manifest ({error}). Run the stage again elsewhere (--runs).") from None
    if not isinstance(found, dict) or found.get("format") != manifest.FORMAT:
        raise RunError(f"{file}: not written by this toolkit (format {manifest.FORMAT} expected).")
    return found


def _seal(found: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in found.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
