"""Write a sample of bilingual text with near-duplicates of every degree, the same bytes on every run, and say its digest.

Run from the project's root: `python benchmarks/corpus_sample.py --data-root DIR --out sample.jsonl [--megabytes 90]`.
A base of real documents (the corpora of DIR, a tenth of Python's standard library; long ones cut at paragraphs) is
filled up with copies of themselves in which a share of the tokens, drawn from SHARES, is replaced, left out or followed by
another: words in spaced text, characters in Chinese. The rows say which document a copy is of and what share was edited.
Copies come without end, so cost can be followed to gigabytes at one mix of text.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from alignment.corpus import installed, ngrams

SHARES = (0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.06, 0.1)  # 5-grams: J = 0.8 at 0.022
LONGEST = 20_000  # characters
CODE_BYTES = 4_000_000
PIECES = re.compile(rf"[{ngrams.CJK}]|[^\W{ngrams.CJK}]+|\s+|[^\w\s]")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def base(root: Path) -> list[dict[str, Any]]:
    """Read the real documents, in the order of their files."""
    files = sorted([*(root / "corpus").glob("*.jsonl*"), *(root / "corpus").glob("*.txt")])
    if not files:
        raise SystemExit(f"{root / 'corpus'}: no .jsonl or .txt file there. Point --data-root at the folder above corpus/.")
    found = []
    for file in files:
        for number, whole in enumerate(texts(file)):
            found += [(f"{file.name}/{number}.{part}", "prose", text) for part, text in enumerate(cut(whole))]
    for document in installed.documents("stdlib", CODE_BYTES):
        found += [(f"{document.id}.{part}", "code", text) for part, text in enumerate(cut(document.text))]
    return [row(name, text, domain) for name, domain, text in found]


def texts(file: Path) -> Iterator[str]:
    """Read the texts of a corpus file; each paragraph of a plain one is a text."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for line in lines:
            yield line if file.suffix == ".txt" else json.loads(line)["text"]


def cut(text: str) -> Iterator[str]:
    """Cut a text between its lines, so that no part is much longer than LONGEST."""
    held, size = list[str](), 0
    for line in text.splitlines(keepends=True):
        held.append(line)
        size += len(line)
        if size > LONGEST:
            yield "".join(held)
            held, size = [], 0
    if "".join(held).strip():
        yield "".join(held)


def row(name: str, text: str, domain: str, **said: Any) -> dict[str, Any]:
    """A document as the readers of all sides take it."""
    chinese = len(CHINESE.findall(text)) > 0.1 * len(text)
    return {"id": name, "text": text, "domain": domain, "language": "zh" if chinese else "en", "dump": "sample", **said}


def edited(text: str, share: float, draw: random.Random) -> str:
    """Change this share of the tokens: replace, leave out, or add one of the same text."""
    pieces = PIECES.findall(text)
    spoken = [place for place, piece in enumerate(pieces) if not piece.isspace()]
    for place in draw.sample(spoken, round(share * len(spoken))):
        other = pieces[draw.choice(spoken)]
        space = "" if CHINESE.match(other) else " "
        pieces[place] = draw.choice(("", other, pieces[place] + space + other))
    return "".join(pieces)


def rows(real: list[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """The documents of the base in a random order, then copies without end."""
    draw = random.Random(seed)
    draw.shuffle(real)
    yield from real
    number = 0
    while True:
        origin, share = draw.choice(real), draw.choice(SHARES)
        text = edited(origin["text"], share, draw)
        yield row(f"copy-{number}", text, origin["domain"], of=origin["id"], edited=share)
        number += 1


def main() -> None:
    """Write the sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--megabytes", type=float, default=90)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    real = base(given.data_root)
    left, digest, bytes_by, documents = given.megabytes * 1e6, hashlib.sha256(), Counter[str](), 0
    with given.out.open("wb") as out:
        for document in rows(real, given.seed):
            line = json.dumps(document, ensure_ascii=False).encode() + b"\n"
            left -= len(line)
            if left < 0:
                break
            out.write(line)
            digest.update(line)
            documents += 1
            bytes_by[document["domain"] if document["domain"] == "code" else document["language"]] += len(line)
    shares = ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in sorted(bytes_by.items()))
    sys.stdout.write(f"{given.out.stat().st_size / 1e6:.1f} MB, {documents:,} documents ({shares})\n")
    sys.stdout.write(f"sha256 {digest.hexdigest()}\n")


if __name__ == "__main__":
    main()
