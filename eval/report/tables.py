"""The tables of a report, as plain cells: Markdown and HTML print the same ones.

A cell is a text, or a Value with its interval; what is missing is an empty text, never a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any]  # report.json, or a part of it


@dataclass(frozen=True)
class Value:
    """A share with the ends of its interval; `signed` for a difference."""

    score: float
    low: float
    high: float
    signed: bool = False

    @property
    def text(self) -> str:
        """The score in per cent, or the difference in points."""
        return _points(self.score, self.signed)

    @property
    def range(self) -> str:
        """The interval in the same unit."""
        return f"{_points(self.low, self.signed)} to {_points(self.high, self.signed)}"


def _points(share: float, signed: bool) -> str:
    points = round(100 * share, 1) + 0.0  # no negative zero
    return (f"{points:+.1f}" if signed and points else f"{points:.1f}").replace("-", "\u2212")


Cell = str | Value


@dataclass(frozen=True)
class Table:
    """Rows below a head; `note` says how to read them."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


@dataclass(frozen=True)
class Section:
    """Tables that belong together."""

    title: str
    tables: list[Table]


def sections(found: Found) -> list[Section]:
    """All tables in reading order; empty ones are left out."""
    ledger = found["ledger"]
    plan = {
        "Results": [scores(found), differences(found), groups(found), preferences(found)],
        "Base model": [bits(found)],
        "Data": [*((steps(ledger), composition(ledger), overlap(ledger)) if ledger else ())],
        "Tokenizer": [tokenizer(found)],
        "How it was measured": [protocol(found)],
        "Runs": [runs(found)],
    }
    kept = [Section(title, [table for table in tables if table.rows]) for title, tables in plan.items()]
    return [section for section in kept if section.tables]


def scores(found: Found) -> Table:
    """Models by tasks."""
    names = task_names(found)
    rows: list[tuple[Cell, ...]] = []
    for model in found["models"]:
        tasks = model["tasks"]
        shots = " / ".join(str(tasks[name]["shots"]["most"]) for name in names if name in tasks)
        asked = f"completion, {shots} shots" if model["form"] == "completion" else "chat, 0 shots"
        cells = [value(tasks[name]) if name in tasks else "" for name in names]
        rows.append((model["name"], asked, *cells, _mean(tasks, "stop_rate"), _mean(tasks, "repetition")))
    return Table(
        "Models side by side",
        "Per cent right with the 95 % interval. Stopped: answers that ended by themselves. Repetition: share of an "
        "answer's 4-grams that it had said before. The task sampled draws one answer to each held-out problem of the "
        "preference stage at temperature 1.",
        ("model", "asked", *names, "stopped", "repetition"),
        rows,
    )


def differences(found: Found) -> Table:
    """Each model against the one before it."""
    rows: list[tuple[Cell, ...]] = []
    for row in found["differences"]:
        d, p = row["difference"], row["p_value"]
        visible = "" if row["visible"] is None else f"{100 * row['visible']:.1f}"
        change = Value(d["score"], d["low"], d["high"], signed=True)
        flips = (str(row["gained"]), str(row["lost"]))
        rows.append((row["task"], f"{row['before']} → {row['after']}", change, *flips, _p(p), visible))
    return Table(
        "What each stage changed",
        "Percentage points, paired on the same items: bootstrap interval, items gained and lost, McNemar's exact p, and "
        "the smallest difference that this many flips could show.",
        ("task", "models", "difference", "gained", "lost", "p", "visible from"),
        rows,
    )


def groups(found: Found) -> Table:
    """Seen and unseen templates, or subjects, apart."""
    models = found["models"]
    rows: list[tuple[Cell, ...]] = []
    for task in task_names(found):
        names = {name: None for m in models for name in m["tasks"].get(task, {}).get("groups", {})}
        if len(names) < 2:
            continue
        for name in names:
            cells = [m["tasks"].get(task, {}).get("groups", {}).get(name) for m in models]
            n = next(cell["n"] for cell in cells if cell)
            rows.append((task, name, str(n), *(value(cell) if cell else "" for cell in cells)))
    return Table(
        "By group",
        "Seen templates are asked with numbers and words that were never trained; unseen templates were never trained "
        "at all.",
        ("task", "group", "n", *(model["name"] for model in models)),
        rows,
    )


def preferences(found: Found) -> Table:
    """Ranking held-out pairs."""
    ways = ("log-probability", "implicit reward", "length")
    rows: list[tuple[Cell, ...]] = []
    for model in found["models"]:
        ranked = model.get("preference")
        if ranked:
            cells = [value(ranked[way]) if way in ranked else "" for way in ways]
            rows.append((model["name"], str(ranked["n"]), *cells))
    return Table(
        "Preference accuracy",
        "Held-out pairs ranked as the verifier ranks them, ties half: by the answers' log-probability, by the implicit "
        "reward (log-probability above the reference model's), and by taking the shorter answer.",
        ("model", "pairs", *ways),
        rows,
    )


def bits(found: Found) -> Table:
    """Bits per byte of held-out text, beside what simple models reach on it."""
    numbers: Found = next((run["numbers"] for run in found["runs"] if "bits_per_byte" in run["numbers"]), {})
    names = {
        "bits_per_byte": "this model",
        "bits_per_byte_order3": "byte n-grams of order 3",
        "bits_per_byte_gzip": "gzip -9",
        "bits_per_byte_unigram": "byte frequencies",
    }
    kept = [(label, numbers[name]) for name, label in names.items() if name in numbers]
    domains = [(f"this model on {name.partition('.')[2]}", x) for name, x in numbers.items() if "bits_per_byte." in name]
    whole = numbers.get("bits_per_byte_unigram")
    rows = [(label, f"{x:.3f}", f"{x / whole:.0%}" if whole else "") for label, x in kept + domains]
    head = ("", "bits per byte", "of byte frequencies")
    return Table("Held-out text", "Lower is better. All are scored on the same held-out documents.", head, list(rows))


def steps(ledger: Found) -> Table:
    """What each step of the corpus took away."""
    rows: list[tuple[Cell, ...]] = []
    for step in ledger.get("steps", []):
        reasons = "; ".join(f"{lost['documents']:,} {reason}" for reason, lost in step["reasons"].items())
        before, after = step["in"], step["out"]
        gone = before["documents"] - after["documents"]
        cells = (f"{after['documents']:,}", f"{gone:,}" if gone else "", size(after["bytes"]), reasons)
        rows.append((step["step"], *cells))
    return Table("What was dropped, and why", "", ("step", "documents left", "dropped", "text left", "reasons"), rows)


def composition(ledger: Found) -> Table:
    """What the corpus is made of at the end."""
    last = (ledger.get("steps") or [{}])[-1].get("by", {})
    rows: list[tuple[Cell, ...]] = []
    for key in ("domain", "language"):
        kept = {name: group["out"] for name, group in last.get(key, {}).items() if group["out"]["documents"]}
        whole = sum(group["bytes"] for group in kept.values())
        for name, group in sorted(kept.items(), key=lambda item: -item[1]["bytes"]):
            rows.append((key, name, f"{group['documents']:,}", size(group["bytes"]), f"{group['bytes'] / whole:.1%}"))
    return Table("What it was trained on", "", ("", "", "documents", "text", "share of bytes"), rows)


def overlap(ledger: Found) -> Table:
    """What decontamination found."""
    known = ledger.get("decontamination", {})
    rows = [
        (name, *(f"{counts[key]:,}" for key in ("items", "exact", "sharing_runs", "longest_run")))
        for name, counts in known.get("groups", {}).items()
    ]
    note = (
        f"Held-out items against every training document, by runs of {known.get('run_tokens', '?')} tokens. Documents "
        f"that held a whole item, now gone: {known.get('documents_containing_items', 0):,}. Templates that are trained "
        "share runs with their held-out items by design; unseen templates must not."
    )
    head = ("held-out group", "items", "contained whole", "sharing a run", "longest run")
    return Table("Decontamination", note, head, list(rows))


def tokenizer(found: Found) -> Table:
    """What the tokenizer stage measured."""
    numbers: Found = next((run["numbers"] for run in found["runs"] if run["stage"] == "tokenizer"), {})
    rows = [(name.replace("_", " "), number(x)) for name, x in numbers.items()]
    return Table("", "Bytes per token on held-out documents.", ("", ""), list(rows))


def protocol(found: Found) -> Table:
    """What a score needs to be repeated."""
    rows: list[tuple[Cell, ...]] = []
    for model in found["models"]:
        for name, task in model["tasks"].items():
            least, most = task["shots"]["least"], task["shots"]["most"]
            shots = str(most) if least == most else f"{least} to {most}"
            drawn = "greedy" if task["temperature"] == 0 else f"temperature {task['temperature']:g}"
            how = drawn if task["stop_rate"] is not None else "likeliest option"
            cells = (str(task["n"]), shots, how, str(task["unread"]), task["average"], task["prompts"][:12])
            rows.append((model["name"], name, *cells))
    return Table(
        "",
        "Unread answers count as not right and are listed here. The digest is of all prompts as the model saw them.",
        ("model", "task", "n", "shots", "answer", "unread", "score", "prompts"),
        rows,
    )


def runs(found: Found) -> Table:
    """The chain from raw text to this report."""
    rows = [
        (run["name"], ", ".join(run["inputs"]) or "–", duration(run["seconds"]), size(run["bytes"]), run["fingerprint"])
        for run in found["runs"]
    ]
    return Table("", "", ("run", "made from", "time", "size", "fingerprint"), list(rows))


def task_names(found: Found) -> list[str]:
    """Tasks in the order in which the models met them."""
    return list(dict.fromkeys(name for model in found["models"] for name in model["tasks"]))


def value(task: Found) -> Value:
    """A score with its interval as a cell."""
    return Value(task["score"], *task["interval"])


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds for people."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def number(x: Any) -> str:
    """A closing number for people."""
    if isinstance(x, bool) or not isinstance(x, int | float):
        return str(x)
    return f"{x:,}" if isinstance(x, int) else f"{x:,.4g}"


def _mean(tasks: Found, key: str) -> str:
    written = [(task[key], task["n"]) for task in tasks.values() if task[key] is not None]
    return f"{_weighted(written):.1%}" if written else ""


def _weighted(pairs: Iterable[tuple[float, int]]) -> float:
    pairs = list(pairs)
    return sum(x * n for x, n in pairs) / sum(n for _, n in pairs)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
