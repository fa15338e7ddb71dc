"""The corpus stage as processes: killed at any moment it ends with the same bytes; memory does not grow with the text."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("corpus_driver.py")
OUTPUTS = ("documents.jsonl", "heldout.jsonl", "aside.jsonl")
WORDS = [a + b + c for a in "bdfgklmnprst" for b in ("a", "en", "ir", "o", "u") for c in ("la", "mer", "tin", "vo")]
MEMORY = {1: 400 << 20, 2: 1200 << 20}  # by threads


def start(data: Path, out: Path, threads: int, *asked: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(DRIVER), str(data), str(out), str(threads), str(MEMORY[threads]), *asked]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def run(data: Path, out: Path, threads: int, *asked: str) -> dict[str, int]:
    """Run to the end; return what the driver prints last."""
    process = start(data, out, threads, *asked)
    printed = process.communicate()[0]
    assert process.returncode == 0, printed
    found: dict[str, int] = json.loads(printed.splitlines()[-1])
    return found


def write(data: Path, shards: int, documents: int) -> int:
    """Write shards of random text with some duplicates; return the bytes of all texts."""
    data.mkdir()
    draw, size = random.Random(1), 0
    for shard in range(shards):
        with (data / f"{shard:03d}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(documents):
                text = ". ".join(" ".join(draw.choices(WORDS, k=12)) for _ in range(30))
                copies = 2 if number % 20 == 0 else 1
                file.write((json.dumps({"id": f"{shard}-{number}", "text": text}) + "\n") * copies)
                size += len(text) * copies
    return size


def contents(out: Path) -> list[object]:
    ledger = json.loads((out / "ledger.json").read_text(encoding="utf-8"))
    for step in ledger["steps"]:
        del step["seconds"]
    return [ledger, *((out / name).read_bytes() for name in OUTPUTS)]


def test_a_stage_that_is_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "data", 6, 60)
    numbers = run(tmp_path / "data", tmp_path / "whole", 1, "strings")
    assert numbers["exact_duplicates"] == 18
    out = tmp_path / "killed"
    for finished in (0, 4, 10):  # shards that are to be finished before the next kill
        process = start(tmp_path / "data", out, 2, "strings")
        while len([*out.glob("steps/*/?????")]) < finished:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not psutil.wait_procs(workers, timeout=60)[1], "a worker outlived the run"
    run(tmp_path / "data", out, 2, "strings")
    assert contents(out) == contents(tmp_path / "whole")
    assert not [*out.rglob("*.part")]


def test_memory_is_kept_however_much_text_there_is(tmp_path: Path) -> None:
    sizes = [write(tmp_path / f"data-{shards}", shards, 1200) for shards in (2, 32)]
    few, many = (run(tmp_path / f"data-{shards}", tmp_path / f"out-{shards}", 1) for shards in (2, 32))
    assert few["put_aside"] == many["put_aside"] == 0
    assert many["own_bytes"] < MEMORY[1]
    assert many["own_bytes"] - few["own_bytes"] < 0.2 * (sizes[1] - sizes[0])
