"""Run the corpus stage over a folder of files, as a process of its own: DATA OUT THREADS MEMORY_BYTES [strings]."""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

from alignment.corpus import build, carrier
from alignment.data_card import Card, Opened
from alignment.hardware import Hardware
from alignment.recipe import Corpus
from alignment.run import Run

CARD = {
    "name": "made",
    "origin": "a test",
    "hub": None,
    "licence": "none",
    "language": "en",
    "domain": "made",
    "reader": "documents",
    "columns": ["text"],
    "splits": {"all": {"role": "train", "files": ["*"], "seen": False}},
}


def main(data: Path, out: Path, threads: int, memory_bytes: int, *asked: str) -> None:
    """Build, and print the largest memory that this process and its workers held, in bytes."""
    words = {
        "stage": "corpus",
        "data": [{"card": "made"}],
        "shares": {"made": 1.0},
        "bytes": 10**12,
        "held_out": 0.1,
        "filters": {"max_characters": 10**8},  # the largest documents pass through everything
        "strings": {"run_tokens": 20} if "strings" in asked else None,
        "memory_bytes": memory_bytes,
    }
    carrier.SOON_SECONDS = 0  # workers, however small the corpus
    out.mkdir(parents=True, exist_ok=True)
    card = Opened(Card.model_validate(CARD), tuple(sorted(data.iterdir())), "digest")
    here = Run(out, {}, {"made": card}, True, False, {})
    machine = Hardware("cpu", "cpu", "float32", "test", "sdpa", 512, False, 1, threads)
    numbers = build.build(Corpus.model_validate(words), here, machine)
    held = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage's begins with what the parent held
    own = int(re.search(r"VmHWM:\s+(\d+) kB", held)[1]) << 10
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    sys.stdout.write(json.dumps({**numbers, "own_bytes": own, "worker_bytes": workers}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
