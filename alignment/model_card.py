"""The cards that go to the hub with a run: README.md of a model or a data set, its picture, its evaluation results.

Everything is read back from the chain of manifests, the ledgers and the evaluation beside the run; what was not measured
is said to be missing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment import data_card, scores, templates
from alignment.errors import DataError
from alignment.run import Finished

MODEL, DATA_SET, CHECKPOINT = "model_card.md.jinja", "data_set_card.md.jinja", "checkpoint_card.md.jinja"
PICTURE = "training.png"
POINTS = 400  # a curve in a picture needs no more
UNKNOWN = "not known: its card is not here"
OWN = {"curriculum": "made by the exercises of this project; MIT"}
# Which files of a data run a reader of the data set wants: configuration -> split -> file.
DATA: dict[str, dict[str, dict[str, str]]] = {
    "curriculum": {
        "documents": {"train": "documents.jsonl"},
        "instructions": {"train": "instructions.jsonl"},
        "problems": {"train": "problems.jsonl"},
    },
    "corpus": {"default": {"train": "documents.jsonl", "test": "heldout.jsonl"}},
    "mixture": {"default": {"train": "rows.jsonl", "validation": "validation.jsonl"}},
    "preferences": {
        "default": {"train": "pairs.jsonl", "test": "heldout_pairs.jsonl"},
        "samples": {"train": "samples.jsonl"},
    },
}


def model(chain: Sequence[Finished], to: str, licence: str | None) -> dict[str, bytes]:
    """Write README.md, the picture and `.eval_results/` of the chain's last run."""
    from huggingface_hub import ModelCardData

    last, found = chain[-1], scores.read(chain)
    sources = ledger(chain)
    base = next((mark for run in chain for name, mark in run.manifest["inputs"].items() if name == "start:"), None)
    head = ModelCardData(
        language=languages(chain, sources) or None,
        license=licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["plumbline", last.manifest["stage"]],
        datasets=[source["hub"] for source in sources if source["hub"]] or None,
        base_model=base.partition("@")[0] if base and "/" in base else None,
        model_name=to.partition("/")[2],
        eval_results=[scores.index(score) for score in found] or None,
    )
    picture = curves(chain)
    config = json.loads((last.path / "model" / "config.json").read_text(encoding="utf-8"))
    readme = _fill(
        MODEL,
        head=head.to_yaml(),
        to=to,
        base=base,
        last=last,
        chain=chain,
        recipe=(last.path / "recipe.yaml").read_text(encoding="utf-8").strip(),
        template=last.manifest.get("chat_template"),
        sources=sources,
        ledgers=ledgers(chain),
        scores=found,
        parents=list(dict.fromkeys(name for score in found for name in score.before)),
        picture=PICTURE if picture else None,
        shape={name: config[name] for name in SHAPE if name in config},
        length=last.manifest["recipe"].get("max_length") or last.manifest["recipe"].get("sequence_length"),
        licence=licence,
        tasks=[score.task for score in found],
    )
    files = {"README.md": readme.encode()}
    if picture:
        files[PICTURE] = picture
    return files | scores.files(found)


SHAPE = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size")


def data_set(chain: Sequence[Finished], to: str, licence: str | None) -> dict[str, bytes]:
    """Write README.md of a run that holds data."""
    from huggingface_hub import DatasetCardData

    last, sources = chain[-1], ledger(chain)
    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": f"data/{file}"} for split, file in parts.items()]}
        for name, parts in data_files(last).items()
    ]
    head = DatasetCardData(
        language=languages(chain, sources) or None,
        license=licence,
        tags=["plumbline", last.manifest["stage"]],
        task_categories=["text-generation"],
        pretty_name=to.partition("/")[2],
        configs=configs,
    )
    readme = _fill(
        DATA_SET,
        head=head.to_yaml(),
        to=to,
        last=last,
        chain=chain,
        recipe=(last.path / "recipe.yaml").read_text(encoding="utf-8").strip(),
        sources=sources,
        ledgers=ledgers(chain[-1:]),
        configs=configs,
        numbers=dict(last.numbers),
        licence=licence,
    )
    return {"README.md": readme.encode()}


def checkpoint(manifest: Mapping[str, Any], recipe: str, step: int, to: str, licence: str | None) -> dict[str, bytes]:
    """Write README.md of a model whose training goes on."""
    from huggingface_hub import ModelCardData

    tags = ["plumbline", manifest["stage"], "checkpoint"]
    head = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=tags, license=licence)
    return {"README.md": _fill(CHECKPOINT, head=head.to_yaml(), to=to, manifest=manifest, recipe=recipe, step=step).encode()}


def data_files(found: Finished) -> dict[str, dict[str, str]]:
    """The data files of a run by configuration and split; empty files are no split."""
    sizes = {name: output["bytes"] for name, output in found.manifest["outputs"].items()}
    kept = {
        name: {split: file for split, file in parts.items() if sizes.get(file)}
        for name, parts in DATA.get(found.manifest["stage"], {}).items()
    }
    return {name: parts for name, parts in kept.items() if parts}


# -- what the chain says of itself ------------------------------------------------------------------------------------


def ledger(chain: Sequence[Finished]) -> list[dict[str, Any]]:
    """Every source of data in the chain: which run read it, its licence and origin, rows, digest."""
    found = []
    for run in chain:
        if run.manifest["stage"] in OWN:
            found.append({"name": run.path.name, "hub": None, "licence": OWN[run.manifest["stage"]], "run": run.path.name})
        for name, about in run.manifest["cards"].items():
            found.append({"run": run.path.name, **_source(name), "rows": about["rows"], "revision": about["revision"]})
    return [{"origin": "", "rows": None, "revision": None, "language": None, **source} for source in found]


def _source(name: str) -> dict[str, Any]:
    if name.endswith(":"):
        return {"name": "installed Python packages", "hub": None, "licence": "each package's own"}
    try:
        card = data_card.load(name)
    except DataError:
        return {"name": name, "hub": None, "licence": UNKNOWN}
    return {
        **{"name": name, "hub": card.hub, "licence": card.licence, "origin": card.origin, "language": card.language},
    }


def ledgers(chain: Sequence[Finished]) -> list[tuple[str, str, dict[str, int]]]:
    """What the ledgers count: (run, what is counted, counts)."""
    found = []
    for run in chain:
        file = run.path / "ledger.json"
        counted = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        for what in ("read", "domains", "languages", "sources", "outcomes", "dropped"):
            if isinstance(counts := counted.get(what), dict) and counts:
                found.append((run.path.name, what, counts))
        if blend := counted.get("blend"):
            found.append((run.path.name, "epochs", {group["group"]: group["epochs"] for group in blend["groups"]}))
        left = (counted.get("steps") or [{}])[-1].get("by", {})  # of a corpus: what its last step let through
        for key in ("domain", "language"):
            if kept := {name: group["out"]["bytes"] for name, group in left.get(key, {}).items() if group["out"]["bytes"]}:
                found.append((run.path.name, f"bytes by {key}", kept))
    return found


def languages(chain: Sequence[Finished], sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """The languages that the ledgers and cards of the chain name, as two-letter codes."""
    counted = [name for _, what, counts in ledgers(chain) if what == "languages" for name in counts]
    named = [source["language"] for source in sources if source["language"]]
    return sorted({name for name in [*counted, *named] if len(name) == 2 and name.isalpha()})


# -- text and picture -------------------------------------------------------------------------------------------------


def curves(chain: Sequence[Finished]) -> bytes | None:
    """Draw the loss of every training in the chain (PNG); None where nothing was trained."""
    from matplotlib.figure import Figure

    found = {run.path.name: points for run in chain if (points := _losses(run.path / "metrics.jsonl"))}
    if not found:
        return None
    figure = Figure(figsize=(3.4 * len(found), 2.4), layout="constrained", dpi=120)
    for axes, (name, points) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        axes.plot(*zip(*points, strict=True), linewidth=1)
        axes.set_title(f"{name}: loss over updates", loc="left", fontsize=9)
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})  # the same chain gives the same bytes
    return drawn.getvalue()


def _losses(file: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    points = [(row["step"], row["loss"]) for row in rows if isinstance(row.get("loss"), int | float)]
    return points[:: max(1, len(points) // POINTS)]


def _fill(name: str, /, **words: Any) -> str:
    environment = templates.environment(Path(__file__).parent, html=False)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    filled: str = environment.get_template(name).render(**words)
    return filled
