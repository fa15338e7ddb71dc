"""How fast is a tokenizer trained, and text encoded, beside plain `tokenizers` and rustbpe?

Run from the project's root: `python benchmarks/tokenizer.py [--megabytes 50] [--vocab 32768] [--data-root DIR]
[--rustbpe PYTHON]`. PYTHON is an interpreter that has rustbpe. The text: the corpus of --data-root (English and Chinese),
filled up with installed sources and documentation. Each side is a process of its own with one thread; seconds are its
CPU's, for training alone, and memory is its peak. Ours and plain `tokenizers` must learn the same merges; rustbpe cuts
text with its own pattern, so its merges are others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

ENCODED = 2_000_000  # characters that are encoded, spread over the text


def ours(texts: list[str], vocab: int) -> tuple[Any, dict[str, float]]:
    """Count words, then learn from the counts."""
    from alignment.tokenizer import counting, learning

    began = time.process_time()
    words = counting.count(texts).words
    counted = time.process_time()
    encoder = learning.learn_words(words, vocab, "deepseek-llm")
    spent = {"counting": counted - began, "train": time.process_time() - began, "words": len(words)}
    return lambda batch: [e.ids for e in encoder.encode_batch_fast(batch, add_special_tokens=False)], spent


def plain(texts: list[str], vocab: int) -> tuple[Any, dict[str, float]]:
    """The library as its documentation shows it, with the same pre-tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from alignment import tokenizer

    encoder = Tokenizer(models.BPE())
    encoder.pre_tokenizer = tokenizer.pre_tokenizer()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab - tokenizer.SPECIAL, initial_alphabet=alphabet, show_progress=False)
    began = time.process_time()
    encoder.train_from_iterator(texts, trainer)
    return lambda batch: [encoder.encode(text).ids for text in batch], {"train": time.process_time() - began}


def rustbpe(texts: list[str], vocab: int) -> tuple[Any, dict[str, float]]:
    """rustbpe with its own pattern."""
    import rustbpe as peer

    encoder = peer.Tokenizer()
    began = time.process_time()
    encoder.train_from_iterator(iter(texts), vocab)
    return lambda batch: [encoder.encode(text) for text in batch], {"train": time.process_time() - began}


SIDES = {"ours": ours, "plain": plain, "rustbpe": rustbpe}


def side(name: str, file: Path, vocab: int) -> None:
    """Measure one side; the parent reads the line that is printed."""
    texts = json.loads(file.read_text(encoding="utf-8"))
    encode, spent = SIDES[name](texts, vocab)
    some = list(_limited(texts[::7], ENCODED))
    began = time.process_time()
    found = encode(some)
    spent["encode"] = sum(len(text.encode()) for text in some) / 1e6 / (time.process_time() - began)
    spent["bytes_per_token"] = sum(len(text.encode()) for text in some) / sum(map(len, found))
    spent["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if name != "rustbpe":  # to show that both learn the same
        spent["tokens"] = hash(tuple(map(tuple, found)))
    sys.stdout.write(json.dumps(spent) + "\n")


def corpus(root: Path | None, size: int) -> list[str]:
    """Read text up to a size in bytes, half of it at most from the data root."""
    from alignment.corpus import installed, readers

    files = sorted((root / "corpus").glob("*.jsonl*")) if root else []
    if root and not files:
        raise SystemExit(f"{root / 'corpus'}: no .jsonl file there. Point --data-root at the folder above corpus/.")
    texts = [d.text for file in files for d in readers.first(readers.read(file, "web", "x"), size // 2 // len(files))]
    left = size - sum(len(text.encode()) for text in texts)
    for name in ("stdlib", "packages"):
        texts += [document.text for document in installed.documents(name, left // 2)]
    return texts


def _limited(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        characters -= len(text)
        yield text


def main() -> None:
    """Measure each side once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--vocab", type=int, default=32_768)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--rustbpe", type=Path, metavar="PYTHON")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return side(given.side[0], Path(given.side[1]), given.vocab)

    texts = corpus(given.data_root, int(given.megabytes * 1e6))
    say = sys.stdout.write
    say(f"{sum(len(t.encode()) for t in texts) / 1e6:.1f} MB, {len(texts):,} documents, {given.vocab:,} tokens, n = 1\n")
    pythons = {"ours": Path(sys.executable), "plain": Path(sys.executable)} | (
        {"rustbpe": given.rustbpe} if given.rustbpe else {}
    )
    environment = os.environ | {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        for name, python in pythons.items():
            words = [str(python), __file__, "--vocab", str(given.vocab), "--side", name, str(file)]
            done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(done.stdout)
            say(
                f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in found[name].items() if key != "tokens") + "\n"
            )
    if found["ours"]["tokens"] != found["plain"]["tokens"]:
        raise SystemExit("ours and plain tokenizers encode differently: they did not learn the same merges")
    for name in list(found)[1:]:
        say(f"training {found[name]['train'] / found['ours']['train']:.2f} times ours in CPU seconds: {name}\n")
    say(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    return None


if __name__ == "__main__":
    main()
