"""The tables of a report, as plain cells: Markdown and HTML print the same ones.

What is missing is an empty text, never a zero.
"""

from __future__ import annotations

from collections.abc import Iterable

from eval.report import checks
from eval.report.cells import Cell, Found, Section, Table, Value, duration, number, size, value


def sections(found: Found) -> list[Section]:
    """All tables in reading order; empty ones are left out."""
    ledger = found["ledger"]
    plan = {
        "Results": [scores(found), differences(found), groups(found), preferences(found)],
        "Base model": [bits(found)],
        "Data": [*((steps(ledger), composition(ledger)) if ledger else ()), mixture(found), outcomes(found), overlap(found)],
        "Tokenizer": [tokenizer(found)],
        "How it was measured": [protocol(found), checks.contamination(found), checks.invariance(found)],
        "Runs": [runs(found)],
    }
    kept = [Section(title, [table for table in tables if table.rows]) for title, tables in plan.items()]
    return [section for section in kept if section.tables]


def scores(found: Found) -> Table:
    """Models by tasks."""
    names = task_names(found)
    models = [model["tasks"] for model in found["models"]]
    written = [name for name in names if all(name in tasks and tasks[name]["stop_rate"] is not None for tasks in models)]
    rows: list[tuple[Cell, ...]] = []
    for model in found["models"]:
        tasks = model["tasks"]
        shots = " / ".join(shown_shots(tasks[name]) for name in names if name in tasks)
        asked = f"completion, {shots} shots" if model["form"] == "completion" else "chat, 0 shots"
        cells = [value(tasks[name]) if name in tasks else "" for name in names]
        shared = [tasks[name] for name in written]
        means = (_mean(shared, key) for key in ("stop_rate", "stop_string_rate", "repetition"))
        rows.append((model["name"], asked, *cells, *means))
    return Table(
        "Models side by side",
        "Per cent right with the 95 % interval. The last columns are over the tasks that every model answers in writing "
        f"({', '.join(written) or 'none'}). Ended: the model said its end mark. Cut: it went on to the next question, as a "
        "few-shot base does, and a stop text ended it. Repetition: share of 4-grams said before, in answers long enough. "
        "The task sampled draws one answer to each held-out problem of the preference stage at temperature 1.",
        ("model", "asked", *names, "ended", "cut", "repetition"),
        rows,
    )


def differences(found: Found) -> Table:
    """Each model against the one before it."""
    forms = {model["name"]: model["form"] for model in found["models"]}
    rows: list[tuple[Cell, ...]] = []
    for row in found["differences"]:
        d, p = row["difference"], row["p_value"]
        visible = "" if row["visible"] is None else f"{100 * row['visible']:.1f}"
        change = Value(d["score"], d["low"], d["high"], signed=True)
        flips = (str(row["gained"]), str(row["lost"]))
        models = [row["before"], row["after"]]
        if forms[row["before"]] != forms[row["after"]]:  # then the way of asking changed with the model
            models = [f"{name} ({forms[name]})" for name in models]
        rows.append((row["task"], " → ".join(models), change, *flips, _p(p), visible))
    return Table(
        "What each stage changed",
        "Percentage points over items, paired on the same ones: Tango's interval (a bootstrap of items where each has "
        "several answers), items gained and lost, McNemar's exact p, and the smallest true difference that so many items "
        "show four times in five, if they flip as often as here. Where forms are named, the way of asking changed too.",
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
    return Table("What the base model was trained on", "", ("", "", "documents", "text", "share of bytes"), rows)


def mixture(found: Found) -> Table:
    """What the instructions are made of."""
    known = found["mixture"] or {}
    groups = [(key, known.get(key, {})) for key in ("sources", "domains", "languages", "dropped")]
    rows: list[tuple[Cell, ...]] = [(key, name, f"{n:,}") for key, counts in groups for name, n in counts.items()]
    count, tokens, learnt = (known.get(key, 0) for key in ("rows", "tokens", "learnt_tokens"))
    note = f"{count:,} rows of {tokens:,} tokens, {learnt:,} of them learnt."
    return Table("What the SFT model was trained on", note, ("", "", "rows"), rows)


def outcomes(found: Found) -> Table:
    """What sampling gave for each kind of problem."""
    counts: dict[str, dict[str, int]] = {}
    for name, n in (found["preferences"] or {}).get("outcomes", {}).items():
        kind, _, outcome = name.partition(": ")
        counts.setdefault(kind, {})[outcome] = n
    words = ("paired", "all right", "all wrong", "no whole pair")
    rows: list[tuple[Cell, ...]] = [(kind, *(f"{by.get(word, 0):,}" for word in words)) for kind, by in counts.items()]
    return Table("Preference pairs", "Problems by what their sampled answers gave.", ("kind", *words), rows)


def overlap(found: Found) -> Table:
    """What decontamination found."""
    known = {
        "documents": (found["ledger"] or {}).get("decontamination") or {},
        "instructions and problems": found["exercises"] or {},
    }
    rows: list[tuple[Cell, ...]] = []
    for text, report in known.items():
        for name, counts in report.get("groups", {}).items():
            cells = (f"{counts[key]:,}" for key in ("items", "exact", "sharing_runs", "longest_run"))
            broken = counts["sharing_runs"] if name == "unseen" else counts["exact"] and text != "documents"
            rows.append((text, name, *cells, "VIOLATED" if broken else "holds"))
    note = (
        "Held-out items against all training text, by runs of 13 tokens. Documents that held a whole item, now gone: "
        f"{known['documents'].get('documents_containing_items', 0):,}. Templates that are trained share runs with their "
        "held-out items by design, never a whole one; unseen templates must share none."
    )
    head = ("text", "held-out group", "items", "contained whole", "sharing a run", "longest run", "claim")
    return Table("Decontamination", note, head, rows)


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
            engine = task["engine"]
            drawn = "greedy" if task["temperature"] == 0 else f"temperature {task['temperature']:g}"
            how = drawn if task["stop_rate"] is not None else "likeliest option"
            score = f"{task['average']}, {task['interval_kind']}"
            ran = ", ".join(engine[key] for key in ("kind", "dtype", "attention", "device"))
            cells = (str(task["n"]), shown_shots(task), how, str(task["unread"]), _strict(task), score, ran)
            rows.append((model["name"], name, *cells, task["prompts"][:12]))
    return Table(
        "",
        "Unread answers count as not right and are listed here. Strict: right, and announced as the answer; the score takes "
        "the last number else. The digest is of all prompts as the model saw them, in tokens.",
        ("model", "task", "n", "shots", "answer", "unread", "strict", "score and interval", "engine", "prompts"),
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


def shown_shots(task: Found) -> str:
    """How many worked examples the items had."""
    least, most = task["shots"]["least"], task["shots"]["most"]
    return str(most) if least == most else f"{least}–{most}"


def _mean(tasks: Iterable[Found], key: str) -> str:
    known = [(task[key], task["n"]) for task in tasks if task[key] is not None]
    return f"{sum(x * n for x, n in known) / sum(n for _, n in known):.1%}" if known else ""


def _strict(task: Found) -> str:
    return f"{task['strict']['score']:.1%}" if "strict" in task else ""


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
