"""The data card of a corpus run: what is in it, where it comes from, what was taken and why; written from the ledger.

The front matter is what the Hub reads of a data set, so the run directory can be pushed as it is. Beside it lies
table1.svg: what deduplication removes as the dumps are joined, next to the paper's own curve.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from alignment.corpus import installed
from alignment.run import Run, write_text
from alignment.section import RawText

PAPER = {1: 22.2, 2: 46.7, 6: 55.7, 12: 69.9, 16: 75.7, 22: 76.3, 41: 81.6, 91: 89.8}  # Table 1: dumps, % removed
FILES = {"train": "documents.jsonl", "heldout": "heldout.jsonl"}
ALONE = "und"

Ledger = Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """A source of the corpus: its name, where it is from, under which terms, and the digest of what was read."""

    name: str
    origin: str
    licence: str
    digest: str


def write(here: Run, sources: Sequence[RawText], ledger: Ledger) -> None:
    """Write README.md, the data card, and table1.svg into a run."""
    fingerprint = str(here.manifest.get("fingerprint", ""))
    text = card(here.path.name, ledger, [_origin(source, here) for source in sources], fingerprint)
    write_text(here.path / "README.md", text)
    write_text(here.path / "table1.svg", picture(ledger["removed_as_dumps_are_joined"]))


def _origin(source: RawText, here: Run) -> Origin:
    if source.card:
        opened = here.cards[source.card]
        return Origin(source.card, opened.card.origin, opened.card.licence, opened.digest)
    if source.run:
        return Origin(source.run, "a run beside this one", "as there", here.manifest.get("inputs", {}).get(source.run, ""))
    return Origin(str(source.installed), "the Python that is installed", "of each package", installed.digest())


def card(name: str, ledger: Ledger, origins: Sequence[Origin], fingerprint: str) -> str:
    """The whole card in Markdown."""
    last = ledger["steps"][-1]
    languages = [key for key, group in last["by"]["language"].items() if group["out"]["documents"] and key != ALONE]
    licences = sorted({origin.licence.lower().replace(" ", "-") for origin in origins})
    head = {
        "pretty_name": name,
        "language": languages,
        "license": licences[0] if len(licences) == 1 else "other",
        "task_categories": ["text-generation"],
        "size_categories": [size_category(last["out"]["documents"])],
        "tags": ["pretraining", "deduplicated"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": split, "path": file} for split, file in FILES.items()]}
        ],
    }
    sections = [
        f"# {name}",
        f"{_size(last['out'])} of text for pre-training, out of {_size(ledger['steps'][0]['in'])} that were read. "
        f"Fingerprint of the run: `{fingerprint}`.",
        *_section("Sources", ("name", "origin", "licence", "digest"), [vars(origin).values() for origin in origins]),
        *_section("Steps", ("step", "documents", "dropped", "bytes left", "why"), map(_step, ledger["steps"])),
        *_section("What it is made of", ("", "", "documents", "share of bytes"), _composition(last)),
        *_table1(ledger.get("removed_as_dumps_are_joined", [])),
        *_section("Remix", ("group", "bytes there", "share", "bytes taken", "epochs"), _plan(ledger)),
        *_models(ledger),
        *_decontamination(ledger),
        *_dropped(ledger["steps"]),
    ]
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def size_category(documents: int) -> str:
    """The Hub's word for so many documents."""
    names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    below = next((place for place in range(len(names)) if documents < 10 ** (place + 3)), None)
    if below is None:
        return "n>1T"
    return f"n<{names[0]}" if below == 0 else f"{names[below - 1]}<n<{names[below]}"


# -- tables ------------------------------------------------------------------------------------------------------------


def _section(title: str, head: Sequence[str], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    table = "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines])
    return [f"## {title}", table] if lines else []


def _size(sizes: Mapping[str, int]) -> str:
    return f"{sizes['documents']:,} documents ({sizes['bytes']:,} bytes)"


def _step(step: Mapping[str, Any]) -> tuple[str, ...]:
    before, after = step["in"], step["out"]
    said = {reason: entry["documents"] for reason, entry in step["reasons"].items()} | step.get("counts", {})
    gone = before["documents"] - after["documents"]
    why = "; ".join(f"{count:,} {name}" for name, count in said.items())
    return step["step"], f"{after['documents']:,}", f"{gone:,}", f"{after['bytes']:,}", why


def _composition(last: Mapping[str, Any]) -> list[tuple[str, ...]]:
    whole = max(last["out"]["bytes"], 1)
    rows: list[tuple[str, ...]] = []
    for key in ("domain", "language", "dump"):
        for name, group in sorted(last["by"][key].items(), key=lambda item: -item[1]["out"]["bytes"]):
            if group["out"]["documents"]:
                rows.append((key, name, f"{group['out']['documents']:,}", f"{group['out']['bytes'] / whole:.1%}"))
    return rows


def _table1(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    if not curve:
        return []
    rows = [
        (row["dumps"], row["joined"], f"{row['documents']:,}", f"{row['rate']:.1%}", _paper(row["dumps"])) for row in curve
    ]
    note = (
        "Documents that equal or nearly equal an earlier one, when the dumps are joined one by one. The paper's dumps are "
        "months of Common Crawl, and it does not state similarity, shingles or hashes: the shapes compare, not the values."
    )
    head = ("dumps", "joined", "documents", "removed", "paper, Table 1")
    read = "[Clusters of near duplicates](clusters.md): some to read, who stays, who went, and where they differ."
    return [*_section("Removed as the dumps are joined", head, rows), note, "![curve](table1.svg)", read]


def _paper(dumps: int) -> str:
    return f"{PAPER[dumps]} %" if dumps in PAPER else ""


def _plan(ledger: Ledger) -> list[tuple[str, ...]]:
    plan = ledger.get("remix", {}).get("plan", [])
    return [
        (row["group"], f"{row['available_bytes']:,}", f"{row['share']:.1%}", f"{row['take_bytes']:,}", str(row["epochs"]))
        for row in plan
    ]


def _models(ledger: Ledger) -> list[str]:
    rows = []
    for name in ("quality", "toxicity"):
        if known := ledger.get(name):
            low, high = known["interval"]
            examples = f"{known['examples']['yes']} and {known['examples']['no']}, {known['held_out']} of them held out"
            rows.append((name, examples, f"{known['auc']:.3f} [{low:.3f}, {high:.3f}]"))
    return _section("Classifiers", ("", "examples", "area under the curve [95 %]"), rows)


def _decontamination(ledger: Ledger) -> list[str]:
    known = ledger.get("decontamination")
    if not known:
        return []
    rows = [
        (by, group, *(f"{counts[key]:,}" for key in ("items", "exact", "sharing_runs", "longest_run")))
        for by, groups in (("words", known["groups"]), ("characters", known["groups_by_characters"]))
        for group, counts in groups.items()
    ]
    head = ("by", "held-out group", "items", "contained whole", "sharing a run", "longest run")
    note = "`decontamination_sample.jsonl` holds matches to label; `benchmarks/decontamination.py` reads the labels."
    return [*_section("Decontamination", head, rows), note]


def _dropped(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for step in steps:
        for reason, entry in step["reasons"].items():
            for sample in entry["samples"]:
                lines.append(f"- {step['step']}, {reason}: `{sample['id']}` {_quoted(sample['text'])}")
                if "instead" in sample:
                    lines.append(f"  - stays: `{sample['instead']}` {_quoted(sample.get('instead_text', ''))}")
    return ["## Samples of what was dropped", "\n".join(lines)] if lines else []


def _quoted(text: str) -> str:
    return "`` " + " ".join(text.replace("``", "` `").split()) + " ``" if text.strip() else ""


# -- the picture of Table 1 --------------------------------------------------------------------------------------------


def picture(curve: Sequence[Mapping[str, Any]]) -> str:
    """Draw what is removed as dumps are joined, ours and the paper's (SVG)."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "table1", "font.size": 9}):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot([row["dumps"] for row in curve], [100 * row["rate"] for row in curve], "o-", label="this corpus")
        axes.plot(list(PAPER), list(PAPER.values()), "s--", color="grey", label="paper, Table 1")
        axes.set_xscale("log")
        axes.set_xticks(list(PAPER), list(map(str, PAPER)), minor=False)
        axes.set_xticks([], minor=True)
        axes.set_ylim(0, 100)
        axes.set_xlabel("dumps joined")
        axes.set_ylabel("% of documents removed")
        axes.legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return text.getvalue()
