"""How fast, and how rightly, are near-duplicates removed, beside datatrove, text-dedup and a plain loop over rensa?

Run from the project's root: `python benchmarks/dedup.py SAMPLE.jsonl [--rounds N] [--datatrove PYTHON]
[--text-dedup PYTHON] [--gz]`.
SAMPLE is what corpus_sample.py writes; with --gz the sides read and write .gz instead, at level 1. PYTHON is an interpreter
that has datatrove 0.10.1 (with its `processing` extra), or text-dedup 0.4.0. Word 5-grams, 14 bands of 8 rows, J >= 0.8,
the first of a cluster stays. Each side is a process of its own with one thread, from JSON Lines to deduplicated JSON Lines
(text-dedup writes Arrow); its CPU is user and system time with all its children. The sides take turns. What is right is told
by exact Jaccard similarity of a random sample with all documents, over sets of strings made by `ngrams.words`, not by
anything a side computed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SHINGLE, BANDS, ROWS, THRESHOLD = 5, 14, 8, 0.8
SAMPLE = 1000
LEVEL = 1  # of .gz; isal's and zlib's are not the same, both are the quickest


# -- the sides; each runs in a fresh process --------------------------------------------------------------------------


def ours(source: Path, out: Path) -> None:
    """What the corpus stage does for deduplication: sketch every shard, cluster over all, copy what stays."""
    import numpy as np
    import orjson
    from isal import igzip  # as the stage does

    from alignment.corpus import dedup, minhash

    near = {"shingle": SHINGLE, "hashes": BANDS * ROWS, "bands": BANDS, "seed": 0}
    borders = [0]

    def sketches() -> Any:
        texts: list[str] = []
        code: list[bool] = []
        with opened(source, "rb", igzip) as lines:
            for line in lines:
                row = orjson.loads(line)
                texts.append(row["text"])
                code.append(dedup.CODE in row["domain"])
                borders.append(borders[-1] + len(line))
                if len(texts) == 128:
                    yield minhash.sketch(texts, code, **near)
                    texts, code = [], []
        yield minhash.sketch(texts, code, **near)

    stem = out.with_name("sketch")
    minhash.write(stem, sketches())
    store = minhash.Store([stem])
    first = dedup.first_equal(store.digests) == np.arange(len(store))
    clusters = dedup.cluster(store, THRESHOLD, first, scratch=out.parent)
    stays = first & (dedup.survivors(clusters, "first") == np.arange(len(store)))
    if source.suffix == ".gz":
        with opened(source, "rb", igzip) as lines, opened(out, "wb", igzip) as file:
            file.writelines(compress(lines, stays))
        return
    edges = np.flatnonzero(np.diff(stays.astype(np.int8), prepend=0, append=0))
    with source.open("rb") as lines, out.open("wb") as file:
        for begin, end in edges.reshape(-1, 2).tolist():  # runs of lines that stay are copied as they are
            place, left = borders[begin], borders[end] - borders[begin]
            while left:
                copied = os.copy_file_range(lines.fileno(), file.fileno(), left, place)
                place, left = place + copied, left - copied


def rensa_loop(source: Path, out: Path) -> None:
    """The library as its documentation shows it: a document goes if one before it is as similar by signature."""
    from rensa import RMinHash, RMinHashLSH

    word = re.compile(r"\w+")
    index = RMinHashLSH(THRESHOLD, BANDS * ROWS, BANDS)
    kept: list[Any] = []
    with opened(source, "rb") as lines, opened(out, "wb") as file:
        for line in lines:
            words = word.findall(json.loads(line)["text"].lower())
            signature = RMinHash(BANDS * ROWS, 0)
            signature.update([" ".join(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1))])
            if not any(signature.jaccard(kept[other]) >= THRESHOLD for other in index.query(signature)):
                index.insert(len(kept), signature)
                kept.append(signature)
                file.write(line)


def opened(path: Path, mode: str, packer: Any = gzip) -> Any:
    """Open a plain file, or a packed one."""
    return packer.open(path, mode, compresslevel=LEVEL) if path.suffix == ".gz" else path.open(mode)


def datatrove(source: Path, out: Path) -> None:
    """The four steps of its MinHash example, with its defaults."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config = MinhashConfig(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)
    place = out.parent
    read = JsonlReader(str(source.parent), glob_pattern=source.name)
    write = JsonlWriter(str(place / "kept"), out.name, compression="gzip" if out.suffix == ".gz" else None)  # level 9
    signatures, buckets, removed = (str(place / name) for name in ("signatures", "buckets", "removed"))
    steps: list[tuple[int, list[Any]]] = [
        (1, [read, MinhashDedupSignature(signatures, config=config)]),
        (BANDS, [MinhashDedupBuckets(signatures, buckets, config=config)]),
        (1, [MinhashDedupCluster(buckets, removed, config=config)]),
        (1, [read, MinhashDedupFilter(removed), write]),
    ]
    for number, (tasks, pipeline) in enumerate(steps):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(place / f"log{number}")).run()
    os.replace(place / "kept" / out.name, out)


def text_dedup(source: Path, out: Path) -> None:
    """Its command line. Its reader asks for the same fields in every row, so it gets id and text alone."""
    plain = out.with_name("plain.jsonl")
    with source.open("rb") as lines, plain.open("w", encoding="utf-8") as file:
        for row in map(json.loads, lines):
            file.write(json.dumps({"id": row["id"], "text": row["text"]}) + "\n")
    options = {
        "--path": "json", "--data_files": str(plain), "--split": "train", "--column": "text", "--ngram": str(SHINGLE),
        "--num_perm": str(BANDS * ROWS), "--b": str(BANDS), "--r": str(ROWS), "--threshold": str(THRESHOLD),
        "--output": str(out.parent / "arrow"), "--cache_dir": str(out.parent / "cache"), "--num_proc": "1",
        "--batch_size": "10000",
    }  # fmt: skip
    words = [sys.executable, "-m", "text_dedup.minhash", "--no-local"]
    subprocess.run([*words, *(word for pair in options.items() for word in pair)], check=True, stdout=sys.stderr)
    from datasets import load_from_disk

    load_from_disk(str(out.parent / "arrow")).select_columns(["id"]).to_json(str(out))


SIDES: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours, "rensa": rensa_loop, "datatrove": datatrove, "text-dedup": text_dedup,
}  # fmt: skip


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(name: str, python: Path, source: Path) -> tuple[dict[str, float], set[str]]:
    """Run one side; return its CPU and wall seconds and peak memory, and the ids of what it kept."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / f"kept{''.join(source.suffixes)}"
        single = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [str(python), __file__, str(source), "--side", name, str(out)],
            env=os.environ | single, check=True, capture_output=True, text=True,
        )  # fmt: skip
        spent = json.loads(done.stdout.splitlines()[-1])
        with opened(out, "rb") as lines:
            return spent, {json.loads(line)["id"] for line in lines}


def side(name: str, source: Path, out: Path) -> None:
    """Run one side here; the parent reads the line that is printed."""
    began = time.perf_counter()
    SIDES[name](source, out)
    wall = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])  # without what the parent held
    peak = max(peak, used[1].ru_maxrss) / 1024
    sys.stdout.write("\n" + json.dumps({"cpu": cpu, "wall": wall, "peak": peak}) + "\n")


class Truth:
    """The sets of all documents by the slow rule: strings from a regular expression, numbered by Python's dict."""

    def __init__(self, source: Path) -> None:
        import numpy as np

        from alignment.corpus import dedup, ngrams

        numbers: dict[tuple[str, ...], int] = {}
        self.ids, self.languages, self.sets = [], [], []
        for line in source.open("rb"):
            row = json.loads(line)
            words = ngrams.words(row["text"], marks=dedup.CODE in row["domain"])
            grams = {tuple(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, min(len(words), 1)))}
            self.sets.append(np.array(sorted(numbers.setdefault(gram, len(numbers)) for gram in grams), np.uint64))
            self.ids.append(row["id"])
            self.languages.append(row["domain"] if row["domain"] == "code" else row["language"])
        self.counts = np.array([len(grams) for grams in self.sets])
        self.sets = [grams * np.uint64(0x9E3779B97F4A7C15) for grams in self.sets]  # spread over 64 bits, one to one

    def grams(self, position: int) -> Any:
        """The set of one document, sorted."""
        import numpy as np

        return np.sort(self.sets[position])


def judge(source: Path, kept: dict[str, set[str]]) -> None:
    """Print recall and precision of each side against exact similarity, in all and by language."""
    import numpy as np

    from alignment.corpus import audit

    truth = Truth(source)
    places = audit.sample(truth, 0, SAMPLE)
    pairs = audit.join(truth, places, 0.7)
    languages = np.array(truth.languages)
    say = sys.stdout.write
    say(f"\n{len(places):,} sampled documents, each compared with all {len(truth.ids):,}, exactly; 95 % intervals\n\n")
    say("| | text | removed | recall at J >= 0.8 | precision at J >= 0.8 | went of pairs at 0.7 to 0.8 | ")
    say("precision at J >= 0.7 |\n|---|---|---|---|---|---|---|\n")
    for name, ids in kept.items():
        gone = np.array([identity not in ids for identity in truth.ids])
        for language in ("all", *sorted(set(truth.languages))):
            of = places if language == "all" else places[languages[places] == language]
            mine = np.isin(pairs.sampled, of)
            some = audit.Pairs(pairs.sampled[mine], pairs.other[mine], pairs.similarity[mine])
            strict, loose = (audit.judge(some, of, gone, threshold) for threshold in (0.8, 0.7))
            between = some.similarity < 0.8
            went = int((gone[some.sampled] | gone[some.other])[between].sum())
            cells = [
                _cell(strict["recall"]),
                _cell(strict["precision"]),
                f"{went} of {int(between.sum())}",
                _cell(loose["precision"]),
            ]
            say(f"| {name} | {language} | {int(gone[of].sum())} | " + " | ".join(cells) + " |\n")


def _cell(part: dict[str, Any]) -> str:
    if part["share"] is None:
        return "-"
    return f"{part['share']:.4f} ({part['low']:.4f} to {part['high']:.4f}), {part['hits']} of {part['of']}"


def main() -> None:
    """Run the sides in turn and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sample", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--datatrove", type=Path, metavar="PYTHON")
    parser.add_argument("--text-dedup", type=Path, metavar="PYTHON")
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds of datatrove and text-dedup")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--gz", action="store_true", help=f".gz in and out, level {LEVEL}")
    given = parser.parse_args()
    if given.side:
        return side(given.side[0], given.sample.resolve(), Path(given.side[1]))

    pythons = {"ours": Path(sys.executable), "rensa": Path(sys.executable)}
    pythons |= {n: p for n, p in (("datatrove", given.datatrove), ("text-dedup", given.text_dedup)) if p}
    source = given.sample.resolve()
    if given.gz:
        source = Path(tempfile.mkdtemp()) / f"{given.sample.name}.gz"
        with given.sample.open("rb") as plain, opened(source, "wb") as file:
            shutil.copyfileobj(plain, file)
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    kept: dict[str, set[str]] = {}
    for turn in range(given.rounds):
        for name, python in pythons.items():
            if name in ("ours", "rensa") or turn < given.slow_rounds:
                seconds, kept[name] = measure(name, python, source)
                spent[name].append(seconds)
    megabytes = given.sample.stat().st_size / 1e6
    say = sys.stdout.write
    packed = f" in .gz, level {LEVEL}" if given.gz else ""
    say(f"{megabytes:.1f} MB{packed}, {platform.machine()}, Python {platform.python_version()}\n\n")
    say("| | n | CPU seconds | wall (median) | MB a CPU second | peak memory, MB | CPU of ours (least to most) |\n")
    say("|---|---|---|---|---|---|---|\n")
    for name, runs in spent.items():
        cpu = [run["cpu"] for run in runs]
        ratios = [each / mine["cpu"] for each, mine in zip(cpu, spent["ours"], strict=False)]
        middle = statistics.median(cpu)
        wall, peak = statistics.median(run["wall"] for run in runs), max(run["peak"] for run in runs)
        cells = [name, str(len(runs)), ", ".join(f"{each:.2f}" for each in cpu), f"{wall:.1f}", f"{megabytes / middle:.1f}"]
        cells += [f"{peak:.0f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        say(f"| {' | '.join(cells)} |\n")
    if given.gz:
        shutil.rmtree(source.parent)
    return judge(given.sample, kept)


if __name__ == "__main__":
    main()
