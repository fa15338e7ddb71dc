"""Does a document cost the same in 10 MB as in 2 GB, and does memory stay bounded?

Run from the project's root: `python benchmarks/corpus_growth.py --data-root DIR [--megabytes 10 100 500 2000] [--whole
[--strings]]`.
The text has one mix at every size: pieces of real documents (those of corpus_sample.py, by language) put together anew, and
every third document one of the last thousand with some pieces exchanged. No two are equal. Measured is what dedup.py calls
ours, or the whole stage with its default rules (and what documents repeat) in files of 25 MB and memory_bytes of 512 MiB;
each size in a process of its own with one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import corpus  # noqa: E402
import corpus_sample  # noqa: E402

MEMORY_BYTES = 512 << 20
FILE_BYTES = 25_000_000
PIECE = 16  # words, characters in Chinese, or marks, with the white space between them
PIECES = (60, 300)  # of a document, fewest and most
EXCHANGED = (0.005, 0.01, 0.02, 0.04, 0.08)  # share of the pieces of a copy
EVERY, LAST = 3, 1000
STEPS = ("read", "duplicates", "sift", "order", "deal")
STRINGS = ("windows", "shared", "runs", "strings")


def pieces(root: Path) -> dict[str, list[str]]:
    """Cut real documents into pieces, by language, code apart."""
    found: dict[str, list[str]] = {}
    for row in corpus_sample.base(root):
        kind = row["domain"] if row["domain"] == "code" else row["language"]
        words = corpus_sample.PIECES.findall(row["text"])
        found.setdefault(kind, []).extend("".join(words[i : i + PIECE]) for i in range(0, len(words), PIECE))
    return found


def rows(pools: dict[str, list[str]], seed: int) -> Iterator[bytes]:
    """Documents without end, as lines of JSON; no two with the same text."""
    draw = random.Random(seed)
    kinds = sorted(pools)
    before: deque[tuple[str, list[str]]] = deque(maxlen=LAST)
    seen = set[int]()
    number = 0
    while True:
        if before and number % EVERY == 0:
            kind, text = draw.choice(before)
            text = text.copy()
            for place in draw.sample(range(len(text)), max(round(draw.choice(EXCHANGED) * len(text)), 1)):
                text[place] = draw.choice(pools[kind])
        else:
            kind = draw.choice(kinds)
            text = draw.choices(pools[kind], k=draw.randint(*PIECES))
            before.append((kind, text))
        if (known := hash(tuple(text))) not in seen:
            seen.add(known)
            said = {"domain": "code"} if kind == "code" else {"domain": "prose", "language": kind}
            yield json.dumps({"id": str(number), "text": "".join(text), **said}, ensure_ascii=False).encode() + b"\n"
        number += 1


def write(pools: dict[str, list[str]], folder: Path, size: int, each: int) -> int:
    """Write so many bytes in files of `each`; return how many documents."""
    folder.mkdir()
    documents = written = 0
    file = None
    for line in rows(pools, 0):
        if written + len(line) > size:
            break
        if file is None or file.tell() > each:
            file = (folder / f"{documents:08d}.jsonl").open("wb")
        file.write(line)
        written, documents = written + len(line), documents + 1
    return documents


def side(place: Path, strings: bool) -> None:
    """Build the corpus here; the parent reads the line that is printed."""
    asked = {"memory_bytes": MEMORY_BYTES, "strings": {} if strings else None}
    numbers, costs, cpu = corpus.build_from(list((place / "data").iterdir()), place / "corpus", **asked)
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10  # not what the parent held
    steps = {step: seconds for step, (seconds, _) in costs.items()}
    sys.stdout.write("\n" + json.dumps({"cpu": cpu, "peak": peak, "steps": steps, "numbers": numbers}) + "\n")


def whole(folder: Path, documents: int, names: Sequence[str]) -> list[str]:
    """Run the stage; the cells of its row."""
    command = [sys.executable, __file__, "--side", str(folder), *(["--strings"] if set(STRINGS) <= set(names) else [])]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    each = ", ".join(f"{1000 * done['steps'][step] / documents:.3f}" for step in names)
    steps = sum(done["steps"].values())
    beside = done["cpu"] - steps
    return [
        f"{done['numbers']['near_duplicates']:,}",
        each,
        f"{beside:.2f}",
        *per(steps, done["peak"] / 1e6, folder, documents),
    ]


def deduplication(folder: Path, documents: int) -> list[str]:
    """Run our side of dedup.py; the cells of its row."""
    (file,) = (folder / "data").iterdir()
    out = folder / "kept.jsonl"
    command = [sys.executable, str(Path(__file__).with_name("dedup.py")), str(file), "--side", "ours", str(out)]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    with out.open("rb") as lines:
        gone = documents - sum(1 for _ in lines)
    return [f"{gone:,}", *per(done["cpu"], done["peak"], folder, documents)]


def per(seconds: float, peak: float, folder: Path, documents: int) -> list[str]:
    """CPU milliseconds a document, seconds a megabyte, and megabytes of memory."""
    size = sum(file.stat().st_size for file in (folder / "data").iterdir()) / 1e6
    return [f"{1000 * seconds / documents:.3f}", f"{seconds / size:.4f}", f"{peak:.0f}"]


def main() -> None:
    """Take each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 500, 2000])
    parser.add_argument("--whole", action="store_true", help="the whole stage")
    parser.add_argument("--strings", action="store_true", help="with --whole: also lines and long runs that repeat")
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return side(given.side, given.strings)
    if not given.data_root:
        parser.error("give --data-root")
    if given.strings and not given.whole:
        parser.error("--strings belongs to --whole")
    say = sys.stdout.write
    head = ["MB", "documents", "went as near duplicates"]
    names = (*STEPS, *(STRINGS if given.strings else ()))
    if given.whole:
        head += [f"CPU ms a document in {', '.join(names)}", "beside the steps, CPU s"]
    head += ["CPU ms a document", "CPU s a MB", "peak memory, MB"]
    say(f"{platform.machine()}, Python {platform.python_version()}; n = 1\n")
    say(f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n")
    pools = pieces(given.data_root)
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            documents = write(pools, folder / "data", megabytes * 1_000_000, FILE_BYTES if given.whole else sys.maxsize)
            cells = whole(folder, documents, names) if given.whole else deduplication(folder, documents)
        say(f"| {' | '.join([f'{megabytes:,}', f'{documents:,}', *cells])} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
