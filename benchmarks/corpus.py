"""What each step of the corpus stage costs: CPU seconds, text a second and core, bytes on disk for a byte of text, memory.

Run from the project's root: `python benchmarks/corpus.py SAMPLE.jsonl [--shards 8] [--strings]`, with a sample that
`corpus_sample.py` wrote. One process, rules as a recipe has them by default; recipes/corpus/README.md plans by these rates.
"""

from __future__ import annotations

import argparse
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from alignment.corpus import build, carrier
from alignment.data_card import Card, Opened
from alignment.hardware import Hardware
from alignment.recipe import Corpus
from alignment.run import Run

CARD = {
    **{"name": "sample", "origin": "benchmarks/corpus_sample.py", "hub": None, "licence": "mixed", "language": "en"},
    **{"domain": "prose", "reader": "documents", "columns": ["text"]},
    "splits": {"all": {"role": "train", "files": ["*"], "seen": False}},
}


def cut(sample: Path, folder: Path, shards: int) -> int:
    """Deal the rows of a sample out into shards; return the bytes of the file."""
    folder.mkdir()
    files = [(folder / f"{number:03d}.jsonl").open("wb") for number in range(shards)]
    with sample.open("rb") as lines:
        for number, line in enumerate(lines):
            files[number % shards].write(line)
    for file in files:
        file.close()
    return sample.stat().st_size


@contextmanager
def measured() -> Iterator[dict[str, list[float]]]:
    """Collect the CPU seconds of each step, and the bytes that it left on disk."""
    costs: dict[str, list[float]] = {}
    carry = carrier.carry

    def carried(step: Path, *rest: Any) -> carrier.Folders:
        began = time.process_time()
        folders = carry(step, *rest)
        seconds = time.process_time() - began
        costs[step.name.partition("-")[0]] = [
            seconds,
            sum(file.stat().st_size for file in step.rglob("*") if file.is_file()),
        ]
        return folders

    carrier.carry = carried
    try:
        yield costs
    finally:
        carrier.carry = carry


def build_from(shards: Sequence[Path], out: Path, **more: Any) -> tuple[dict[str, Any], dict[str, list[float]], float]:
    """Build a corpus in one process; return its numbers, the costs of each step, and all CPU seconds."""
    words = {
        "stage": "corpus",
        "data": [{"card": "sample", "dump": "sample", "max_bad_share": 0.05}],
        "shares": {"prose": 0.9, "code": 0.1},
        "bytes": 10**12,
        **more,
    }
    card = Opened(Card.model_validate(CARD), tuple(sorted(shards)), "")
    out.mkdir()
    here = Run(out, {}, {"sample": card}, True, False, {})
    machine = Hardware("cpu", "cpu", "float32", "benchmark", "sdpa", 512, False, 1, threads=1)
    began = time.process_time()
    with measured() as costs:
        numbers = build.build(Corpus.model_validate(words), here, machine)
    return numbers, costs, time.process_time() - began


def main() -> None:
    """Build a corpus of the sample and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("sample", type=Path)
    options.add_argument("--shards", type=int, default=8)
    options.add_argument("--strings", action="store_true", help="also what documents repeat, lines and long runs")
    given = options.parse_args()
    if not given.sample.is_file():
        options.error(f"{given.sample}: no such file. Write it with benchmarks/corpus_sample.py")
    place = Path(tempfile.mkdtemp())
    size = cut(given.sample, place / "data", given.shards)
    numbers, costs, whole = build_from(
        list((place / "data").iterdir()), place / "corpus", strings={} if given.strings else None
    )
    say = sys.stdout.write
    say(f"{platform.machine()}, Python {platform.python_version()}; n = 1; {size:,} bytes of JSON Lines\n")
    say(f"{numbers}\n| step | CPU seconds | MB a second and core | disk, bytes a byte |\n|---|---|---|---|\n")
    for step, (seconds, left) in costs.items():
        say(f"| {step} | {seconds:.2f} | {size / 1e6 / max(seconds, 1e-9):.1f} | {left / size:.2f} |\n")
    say(f"| all | {whole:.2f} | {size / 1e6 / whole:.1f} | |\n")
    say(f"memory at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10:,} bytes\n")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
