"""How many of the matches that decontamination found are leaks?

Run from the project's root: `python benchmarks/decontamination.py RUN/decontamination_sample.jsonl ...`. Copy the file
first, and write `yes` (a leak) or `no` (common text) into `label`; empty labels are left out. Prints precision by kind of
match with Wilson's 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from alignment.corpus import spans


def main() -> None:
    """Read the labels and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    if absent := [file for file in given.files if not file.is_file()]:
        parser.error(f"{absent[0]}: no such file. A corpus run that decontaminates writes decontamination_sample.jsonl")
    rows = [json.loads(line) for file in given.files for line in file.read_text(encoding="utf-8").splitlines()]
    say = sys.stdout.write
    say("| pieces | match | rows | labelled | leaks | precision [95 %] |\n|---|---|---|---|---|---|\n")
    for entry in spans.precision(rows):
        found = f"{entry['precision']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" if entry["labelled"] else "no label"
        match = "whole item" if entry["whole"] else "run"
        say(f"| {entry['kind']} | {match} | {entry['rows']} | {entry['labelled']} | {entry['leaks']} | {found} |\n")


if __name__ == "__main__":
    main()
