"""Is model B better than model A? `python -m eval compare A B`, on the answers that both evaluations saved.

Paired item by item: the same ids, the same targets. Where the prompts differ, that is said, for then it is not only the
model that changed. Writes comparison.json, comparison.md and comparison.html with every item that flipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment import run, terminal
from alignment.errors import DataError, RunError
from eval import harness, journal, statistics
from eval.report import comparison
from eval.samples import Row
from eval.summary import averaged

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
FORMAT = "plumbline-comparison-1"
DRAWN = ("max_new_tokens", "temperature", "top_p", "seed")
ASKED = ("protocol", "form", "shots", "samples", *DRAWN, "average", "engine", "versions")


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation left behind: its report, and where its samples lie."""

    name: str
    folder: Path
    report: Mapping[str, Any]

    def rows(self, task: str) -> dict[str, Row]:
        """Read the marked answers of a task, by item."""
        path = self.folder / "samples" / f"{task}.jsonl"
        if not path.exists():
            raise RunError(f"{path}: missing, though report.json names the task. Evaluate that task again.")
        found = {row["id"]: row for row in journal.read_rows(path)}
        if len(found) != self.report["tasks"][task]["n"]:
            said = f"holds {len(found)} items, report.json {self.report['tasks'][task]['n']}"
            raise RunError(f"{path}: {said}: an evaluation was interrupted. Evaluate that task again.")
        return found


@app.command()
def main(
    a: Annotated[Path, typer.Argument(help="A run, or the folder of an evaluation (with report.json).")],
    b: Annotated[Path, typer.Argument(help="The same, of the model that may be better.")],
    out: Annotated[Path | None, typer.Option(help="Where the comparison goes; reports/A-B.")] = None,
) -> None:
    """Compare two evaluations, item by item."""
    one, other = read(a), read(b)
    found = compare(one, other)
    place = out or Path("reports") / f"{_plain(found['a'])}-{_plain(found['b'])}"
    place.mkdir(parents=True, exist_ok=True)
    run.write_text(place / "comparison.json", json.dumps(found, indent=1, ensure_ascii=False))
    run.write_text(place / "comparison.md", comparison.markdown(found))
    run.write_text(place / "comparison.html", comparison.page(found))
    for line in comparison.lines(found):
        terminal.console().print(line, markup=False, soft_wrap=True)
    terminal.console().print(f"{place / 'comparison.html'}", markup=False)


def read(place: Path) -> Evaluated:
    """Open the evaluation of a run, or of the folder that it was written to."""
    folder = place / "eval" if run.is_run(place) else place
    report = harness.read_report(folder)
    if report is None:
        raise RunError(f"{folder}: no report.json. Evaluate that model first, with `python -m eval`.")
    return Evaluated(folder.parent.name if folder.name == "eval" else folder.name, folder, report)


def compare(a: Evaluated, b: Evaluated) -> dict[str, Any]:
    """Compare all tasks that both have. Raises DataError where they have none, or other items or targets."""
    shared = [name for name in a.report["tasks"] if name in b.report["tasks"]]
    if not shared:
        raise DataError(f"{a.folder} and {b.folder}: no task in common. Evaluate both on the same --tasks.")
    names = (a.name, b.name) if a.name != b.name else (str(a.folder), str(b.folder))
    return {
        "format": FORMAT,
        "a": names[0],
        "b": names[1],
        "same_model": a.report["model"] == b.report["model"],
        "tasks": {name: _task(name, a, b) for name in shared},
        "left_out": sorted(a.report["tasks"].keys() ^ b.report["tasks"].keys()),
    }


def _task(name: str, a: Evaluated, b: Evaluated) -> dict[str, Any]:
    before, after = a.rows(name), b.rows(name)
    pairs = [(before[item], after[item]) for item in before if item in after]
    if not pairs:
        raise DataError(f"{name}: {a.folder} and {b.folder} have no item in common. Evaluate both on the same data.")
    for old, new in pairs:
        if old["target"] != new["target"]:
            raise DataError(
                f"{name}, item {old['id']}: its target is {old['target']!r} in {a.folder} and {new['target']!r} in "
                f"{b.folder}. These are not the same items; evaluate both on the same data."
            )
    one, other = a.report["tasks"][name], b.report["tasks"][name]
    changed = [old["id"] for old, new in pairs if old["prompt"] != new["prompt"]]
    return {
        "n": len(pairs),
        "only_a": len(before) - len(pairs),
        "only_b": len(after) - len(pairs),
        "prompts": {"differ": len(changed), "first": changed[:1], "same_tokens": one["prompts"] == other["prompts"]},
        "asked": [[field, *values] for field, values in _differing(one, other)],
        "results": list(_results(pairs, macro=one["average"] == other["average"] == "mean of groups")),
        "flips": [_flip(old, new) for old, new in pairs if old["correct"] != new["correct"]],
    }


def _results(pairs: Sequence[tuple[Row, Row]], *, macro: bool) -> Iterator[dict[str, Any]]:
    """The comparison over items and, for a mean over groups, over those."""
    marks = ([float(old["correct"]) for old, _ in pairs], [float(new["correct"]) for _, new in pairs])
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for old, new in pairs:
        sides = groups.setdefault(old["group"], ([], []))
        sides[0].append(float(old["correct"]))
        sides[1].append(float(new["correct"]))
    large = min(len(side) for side, _ in groups.values()) >= statistics.SMALLEST_GROUP
    for over_groups in [True, False] if macro and large else [False]:
        found = statistics.paired_macro(groups) if over_groups else statistics.paired(*marks)
        scores = [averaged({g: sides[i] for g, sides in groups.items()}, macro=over_groups) for i in (0, 1)]
        a, b = ({"score": side["score"], "interval": side["interval"]} for side in scores)
        yield {"average": scores[0]["average"], "a": a, "b": b, **asdict(found)}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """What else differs in how a task was asked, field by field."""
    for field in ASKED:
        left, right = one.get(field), other.get(field)
        if isinstance(left, dict) and isinstance(right, dict):
            for key in sorted(left.keys() | right.keys()):
                if left.get(key) != right.get(key):
                    yield f"{field}: {key}", (str(left.get(key)), str(right.get(key)))
        elif left != right:
            yield field, (str(left), str(right))


def _flip(old: Row, new: Row) -> dict[str, Any]:
    shown = ("read", "answer", "correct", "why")
    return {
        "id": old["id"],
        "group": old["group"],
        "target": old["target"],
        "prompt": new["prompt"],
        "better": "b" if new["correct"] > old["correct"] else "a",
        "a": {key: old[key] for key in shown},
        "b": {key: new[key] for key in shown},
    }


def _plain(name: str) -> str:
    return name.strip("/").replace("/", "-")
