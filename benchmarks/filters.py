"""How fast are the filters beside datatrove's, and do they decide the same?

Run from the project's root: `python benchmarks/filters.py --data-root DIR --datatrove PYTHON [--megabytes 4]`. PYTHON is
an interpreter that has datatrove 0.10.1 with spaCy and jieba. The text: English and Chinese documents of DIR/corpus, by
turns from each file. Each side is a process of its own with one thread; seconds are its CPU's, for filtering alone, after
a first document that loads the tables. `together` is what a corpus run does: Gopher's two sets and FineWeb's rules in one
pass, each document until a rule takes it. In the other rows each set is alone. Differences are counted by what took.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

OFF = {"min_characters": 1, "max_characters": 10**9, "max_symbol_share": 1.0, "max_repeated_line_share": 1.0}
OFF |= {"min_letter_share": 0.0, "robots": False}
SETS: dict[str, dict[str, Any]] = {
    "gopher quality": {
        **{"min_words": 50, "max_words": 100_000, "min_word_length": 3, "max_word_length": 10, "max_hash_ratio": 0.1},
        **{"max_ellipsis_ratio": 0.1, "max_bullet_lines": 0.9, "max_ellipsis_lines": 0.3, "min_alphabetic_words": 0.8},
        "min_stop_words": 2,
    },
    "gopher repetition": {
        **{"max_duplicate_paragraphs": 0.3, "max_duplicate_paragraph_characters": 0.2, "max_duplicate_lines": 0.3},
        **{"max_duplicate_line_characters": 0.2, "max_top_grams": {2: 0.2, 3: 0.18, 4: 0.16}},
        "max_duplicate_grams": {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1},
    },
    "fineweb": {
        **{"min_finished_lines": 0.12, "max_short_lines": 0.67, "max_duplicate_line_characters": 0.01},
        "max_newline_ratio": 0.3,
    },
    "c4": {
        "cut_lines": ("unfinished", "short", "javascript", "policy"),
        **{"forbidden": ("lorem ipsum", "{"), "min_sentences": 5},
    },
}
TOGETHER = ("gopher quality", "gopher repetition", "fineweb")


def ours(name: str, language: str) -> Callable[[str], str | None]:  # noqa: ARG001  # told from the text
    """Our rules of one set, or of all."""
    from alignment.corpus import filters, redact
    from alignment.corpus.documents import Document
    from alignment.sieve import Filters

    sets = TOGETHER if name == "together" else (name,)
    words = Filters(**OFF | dict(chain.from_iterable(SETS[one].items() for one in sets)))
    edit, rules = redact.editor(words), filters.rules(words)
    return lambda text: filters.refused(edit(Document("", text, "", "", ""))[0], rules)


def theirs(name: str, language: str) -> Callable[[str], str | None]:
    """datatrove's filters with their defaults; of C4 without what ours has not (citations, words of 1,000 characters)."""
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter
    from datatrove.utils.typeshelper import Languages

    spoken = {"en": Languages.english, "zh": Languages.mandarin_chinese}[language]
    known: dict[str, Callable[[], Any]] = {
        "gopher quality": lambda: filters.GopherQualityFilter(language=spoken),
        "gopher repetition": lambda: filters.GopherRepetitionFilter(language=spoken),
        "fineweb": lambda: filters.FineWebQualityFilter(language=spoken),
        "c4": lambda: C4QualityFilter(language=spoken, remove_citations=False, max_word_length=-1),
    }
    steps = [known[one]() for one in (TOGETHER if name == "together" else (name,))]

    def check(text: str) -> str | None:
        document = Document(text=text, id="")
        for step in steps:
            found = step.filter(document)
            if found is not True:
                return str(found[1]) if isinstance(found, tuple) else "refused"
        return None

    return check


def side(name: str, file: Path) -> None:
    """Measure one side; the parent reads the line that is printed."""
    result: dict[str, Any] = {}
    for language, texts in json.loads(file.read_text(encoding="utf-8")).items():
        for one in ("together", *SETS):
            check = {"ours": ours, "datatrove": theirs}[name](one, language)
            check(texts[0])
            began = time.process_time()
            reasons = [check(text) for text in texts]
            result[f"{language}/{one}"] = {"seconds": time.process_time() - began, "reasons": reasons}
    sys.stdout.write(json.dumps(result) + "\n")


def corpus(root: Path, size: int) -> dict[str, list[str]]:
    """Read so many bytes of each language, a document of each file by turns."""

    def rows(file: Path, language: str) -> Iterator[str]:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row["lang"] == language and row["text"].strip():
                    yield row["text"]

    def some(language: str) -> Iterator[str]:
        left = size
        files = sorted((root / "corpus").glob("*.jsonl.gz"))
        for text in filter(None, chain.from_iterable(zip_longest(*(rows(file, language) for file in files)))):
            left -= len(text.encode())
            if left < 0:
                return
            yield text

    return {language: list(some(language)) for language in ("en", "zh")}


def main() -> None:
    """Measure both sides once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=4, help="of each language")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--datatrove", type=Path, metavar="PYTHON")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return side(given.side[0], Path(given.side[1]))
    if not (given.data_root and given.datatrove):
        parser.error("give --data-root and --datatrove")

    texts = corpus(given.data_root, int(given.megabytes * 1e6))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        found = {}
        for name, python in (("ours", Path(sys.executable)), ("datatrove", given.datatrove)):
            command = [str(python), __file__, "--side", name, str(file)]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    say = sys.stdout.write
    say(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, n = 1\n")
    for language, of in texts.items():
        say(f"{language}: {len(of):,} documents, {sum(len(text.encode()) for text in of) / 1e6:.2f} MB\n")
    say("| rules | datatrove, CPU s | ours, CPU s | ratio | ours, MB/s | same decision |\n|---|---|---|---|---|---|\n")
    for key, mine in found["ours"].items():
        other, language = found["datatrove"][key], key.split("/")[0]
        size = sum(len(text.encode()) for text in texts[language]) / 1e6
        pairs = list(zip(other["reasons"], mine["reasons"], strict=True))
        same = sum((a is None) == (b is None) for a, b in pairs)
        times = f"{other['seconds']:.2f} | {mine['seconds']:.3f} | {other['seconds'] / mine['seconds']:.1f}"
        say(f"| {key} | {times} | {size / mine['seconds']:.1f} | {same} of {len(pairs)} |\n")
    say("\nDifferences (datatrove's reason / ours: documents):\n")
    for key, mine in found["ours"].items():
        pairs = zip(found["datatrove"][key]["reasons"], mine["reasons"], strict=True)
        apart = Counter(f"{a or 'keeps'} / {b or 'keeps'}" for a, b in pairs if (a is None) != (b is None))
        say(f"{key}: {dict(apart.most_common(6))}\n")


if __name__ == "__main__":
    main()
