"""What passes between this project and a hub: names are pinned to commits, finished runs are pushed.

`revision: unpinned` in a data card or in a recipe's `start:` is refused wherever it would be loaded; `pin()` asks the hub
once which commit the name means today. `push()` packs a sealed run with its card and sends it in one commit: whoever
looks sees the old state or the new one, and what was uploaded before an interruption is not uploaded again.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment import data_card, hardware, lineage, model_card, run, schema
from alignment.errors import HubError, RunError
from alignment.recipe import UNPINNED

COMMIT = re.compile(r"[0-9a-f]{40}")
PUSHED = {".safetensors", ".json", ".jinja", ".txt", ".model"}  # of a model folder; never a pickle, so no training_args.bin
# Of an earlier push; what this one does not have goes.
STALE = re.compile(r"[^/]*\.safetensors(\.index\.json)?|\.eval_results/[^/]*\.yaml|data/[^/]*\.jsonl|data_cards/[^/]*\.md")
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")
LINE = re.compile(rf"(?m)^([^#\n]*\brevision:[ \t]*){UNPINNED}\b")


def pin(path: Path) -> tuple[str, str]:
    """Replace `revision: unpinned` in a data card or recipe by today's commit; return hub name and commit."""
    if not path.is_file():
        raise HubError(f"{path}: no such file. Name a data card (.md) or a recipe (.yaml).")
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise HubError(f"{path}: cannot be read as UTF-8 text ({error}). Name a data card or a recipe.") from None
    card = path.suffix == ".md"
    head = data_card.front_matter(text, path) if card else text
    hub, revision = _named(schema.parse(head, str(path)), path, card)
    if revision != UNPINNED:
        raise HubError(f"{path}: {hub} is pinned to {revision} already. Write `revision: {UNPINNED}` to pin it anew.")
    places = LINE.findall(head)
    if len(places) != 1:
        raise HubError(f"{path}: `revision: {UNPINNED}` stands {len(places)} times on lines of its own kind; keep one.")
    found = commit(hub, "dataset" if card else "model")
    run.write_text(path, LINE.sub(rf"\g<1>{found}", text, count=1))
    return hub, found


def commit(hub: str, kind: str) -> str:
    """Ask the hub for the newest commit of a model or data set."""
    from huggingface_hub import HfApi

    with data_card.asking_hub(hub):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        found = api.repo_info(hub, repo_type=kind, timeout=30).sha
    if not COMMIT.fullmatch(found or ""):
        raise HubError(f"{hub}: the hub names no commit ({found!r}). Write the commit hash into the file by hand.")
    return str(found)


# -- pushing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parcel:
    """What goes to the hub: the kind of repository, and each file as bytes or as where it lies."""

    kind: str  # model, dataset
    files: Mapping[str, bytes | Path]
    left: tuple[str, ...]  # files of the model folder that stay here

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(len(file) if isinstance(file, bytes) else file.stat().st_size for file in self.files.values())


def pack(path: Path, to: str, licence: str | None = None) -> Parcel:
    """Put together what a finished run gives to the hub; every output is hashed and must be as it was sealed."""
    chain = lineage.chain(path)
    last = run.read(path, hash_limit=None)
    recipes = {f"recipes/{one.path.name}.yaml": one.path / "recipe.yaml" for one in chain}
    if (path / "model").is_dir():
        kept, left = _model(path / "model")
        return _checked(Parcel("model", {**model_card.model(chain, to, licence), **recipes, **kept}, left))
    wanted = {file for parts in model_card.data_files(last).values() for file in parts.values()}
    if not wanted:
        raise RunError(f"{path}: a {last.manifest['stage']} run holds neither model/ nor data to share. Push another run.")
    data = {f"data/{file}": path / file for file in sorted(wanted)}
    return _checked(Parcel("dataset", {**model_card.data_set(chain, to, licence), **recipes, **_told(chain), **data}, ()))


def _told(chain: Sequence[run.Finished]) -> dict[str, Path]:
    """What a data set says of itself beside its card: the ledger, and the data cards of its sources."""
    names = {name for one in chain for name in one.manifest["cards"]}
    cards = {f"data_cards/{name}.md": data_card.CARDS / f"{name}.md" for name in sorted(names)}
    files = {"ledger.json": chain[-1].path / "ledger.json", **cards}
    return {name: file for name, file in files.items() if file.is_file()}


def pack_checkpoints(path: Path, to: str, licence: str | None = None) -> Iterator[tuple[str, Parcel]]:
    """Put together the models that an unfinished run has on its way, each with the revision it goes to, the oldest first."""
    about = run.read_manifest(path)
    names = [found.name.removeprefix("step-") for found in (path / "checkpoints").glob("step-*")]
    steps = {int(name) for name in names if name.isdigit()}  # the others are half-written
    saved = {
        int(state.parent.name.rpartition("-")[2]): state.parent for state in path.glob("checkpoints/*/trainer_state.json")
    }
    whole = {step: found for step, found in saved.items() if (found / "config.json").exists()}  # else it is an adapter
    if not steps and not whole:
        raise RunError(f"{path}: no checkpoint with a whole model here; a finished run keeps none. Push the run itself.")
    text = (path / "recipe.yaml").read_text(encoding="utf-8").strip()
    for step in sorted(steps | whole.keys()):
        with tempfile.TemporaryDirectory() as place:
            folder = whole.get(step) or Path(place) / "model"
            if step in steps:
                from alignment.models import midway

                try:
                    midway.write(path, step, hardware.prepare("cpu"), folder)
                except FileNotFoundError:
                    raise RunError(f"{path}: step {step} is gone, the training keeps only the newest. Push again.") from None
            kept, left = _model(folder)
            card = model_card.checkpoint(about, text, step, to, licence)
            yield f"step-{step}", _checked(Parcel("model", {**card, **kept}, left))


def _model(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files of a model folder that are pushed, and the names of the others."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    kept = {file.name: file for file in files if file.suffix in PUSHED and file.name != "trainer_state.json"}
    return kept, tuple(file.name for file in files if file.name not in kept)


def write(parcel: Parcel, out: Path, *, links: bool) -> None:
    """Lay a parcel out in a new folder, as the repository would be; with `links`, files of the run are linked to."""
    if out.exists():
        raise HubError(f"{out}: exists already. Choose another --out, or remove it yourself.")
    for name, file in parcel.files.items():
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(file, bytes):
            place.write_bytes(file)
        elif links:
            place.symlink_to(file.resolve())
        else:
            shutil.copyfile(file, place)


def push(parcel: Parcel, to: str, *, revision: str, private: bool, message: str, say: Callable[[str], None]) -> str:
    """Send a parcel in one commit; return the commit.

    Files that were uploaded before an interruption are known to the hub by their hash and are not sent again; weights and
    data of an earlier push that this one does not have are deleted in the same commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if not (get_token() or "").isascii():
        raise HubError("the hub token holds characters that no token has. Was it copied whole, and alone?")
    where: dict[str, Any] = {"repo_id": to, "repo_type": parcel.kind}
    with data_card.asking_hub(f"{to} (a token with write access is needed: `hf auth login`, or HF_TOKEN)"):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(**where, private=private or None, exist_ok=True)
        if private and not api.repo_info(**where, timeout=30).private:
            raise HubError(f"{to}: is public already, and --private was given. Make it private there, or push elsewhere.")
        if revision != "main":
            api.create_branch(**where, branch=revision, exist_ok=True)
        additions = [
            CommitOperationAdd(name, file if isinstance(file, bytes) else str(file)) for name, file in parcel.files.items()
        ]
        for addition in additions:
            try:
                api.preupload_lfs_files(**where, additions=[addition], revision=revision, free_memory=False)
            except RuntimeError as error:  # its cause may name an address that is signed
                raise HubError(f"{to}: {error} The same command goes on where this one stopped.") from None
            say(f"{addition.path_in_repo}: {addition.upload_info.size:,} bytes")
        known = api.list_repo_files(**where, revision=revision)
        stale = [name for name in known if STALE.fullmatch(name) and name not in parcel.files]
        operations: list[Any] = [*additions, *(CommitOperationDelete(name) for name in stale)]
        try:
            return str(api.create_commit(**where, operations=operations, commit_message=message, revision=revision).oid)
        except ValueError as error:  # the card's head, a --licence that the hub does not know
            raise HubError(f"{to}: {' '.join(str(error).split())} Nothing was committed.") from None


def _checked(parcel: Parcel) -> Parcel:
    """Refuse a parcel that holds a token: in a recipe, a card, a configuration."""
    from huggingface_hub import get_token

    mine = (get_token() or "").encode()
    for name, file in parcel.files.items():
        if name.endswith(".safetensors"):
            continue
        with open(file, "rb") if isinstance(file, Path) else io.BytesIO(file) as lines:
            if any(TOKEN.search(line) or (mine and mine in line) for line in lines):
                raise HubError(
                    f"{file if isinstance(file, Path) else name}: holds a hub token. Take it out; nothing was sent."
                )
    return parcel


def _named(raw: object, path: Path, card: bool) -> tuple[str, str]:
    section = raw if card else raw.get("start") if isinstance(raw, dict) else None
    hub = section.get("hub") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(hub, str) or hub == "none":
        place = "hub:" if card else "start: {hub: ORG/NAME, revision: unpinned}"
        raise HubError(f"{path}: names nothing on the hub (no `{place}`). There is nothing to pin.")
    return hub, str(section.get("revision"))
