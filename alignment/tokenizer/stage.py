"""The stage `tokenizer`: a sample of a corpus -> word counts -> tokenizer/, and a report on what it does to text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from alignment import recipe as words
from alignment.corpus import documents
from alignment.errors import RecipeError
from alignment.hardware import Hardware
from alignment.run import Run, write_text
from alignment.tokenizer import counting, folder, learning, report

MULTIPLE = 16  # rows of the embedding: matrix units work on blocks of this many
Numbers = dict[str, float | int | str]


def train(recipe: words.Tokenizer, here: Run, hardware: Hardware) -> Numbers:  # noqa: ARG001
    """Write tokenizer/, tokenizer-report.json and .md; return bytes per token of held-out text by domain and language."""
    _check(recipe)
    beside = {name: folder.load(Path(place)) for name, place in recipe.beside.items()}
    corpus = here.inputs[recipe.data].path
    sizes: dict[str, int] = {}
    began = time.process_time()

    def texts() -> Iterator[str]:
        for document in counting.sample(documents.read(corpus / "documents.jsonl"), limits, recipe.seed):
            sizes[document.domain] = sizes.get(document.domain, 0) + document.bytes
            yield document.text

    limits = counting.limits(documents.read(corpus / "documents.jsonl"), recipe.sample_bytes, recipe.shares, recipe.seed)
    counts = counting.count(texts(), recipe.digits, recipe.max_words)
    counted = time.process_time()
    here.say(f"learning {recipe.vocab_size:,} tokens from {len(counts.words):,} words")  # one call, which shows nothing
    encoder = learning.learn_words(counts.words, recipe.vocab_size, recipe.template, recipe.digits)
    learnt = time.process_time()
    folder.write(encoder, here.path / "tokenizer", recipe.template, recipe.padded_vocab_size)
    found = report.measure({"ours": encoder, **beside}, documents.read(corpus / "heldout.jsonl"))
    found["training"] = {
        "sample_bytes": sizes,
        "words": len(counts.words),
        "forgotten_share": round(counts.forgotten / max(counts.total, 1), 6),
        "counting_cpu_seconds": round(counted - began, 2),
        "learning_cpu_seconds": round(learnt - counted, 2),
        "special_tokens": learning.SPECIAL,
        "embedding_rows": recipe.padded_vocab_size or recipe.vocab_size,
        **report.usage(encoder, counts.words),
    }
    write_text(here.path / "tokenizer-report.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_text(here.path / "tokenizer-report.md", report.markdown(found))
    measured = found["tokenizers"]["ours"]
    return {
        "vocab_size": encoder.get_vocab_size(),
        "sample_bytes": sum(sizes.values()),
        "seconds": round(learnt - began, 2),
        "bytes_per_token": measured["bytes_per_token"],
        **{f"bytes_per_token_{name}": value for name, value in measured["by_domain"].items()},
    }


def _check(recipe: words.Tokenizer) -> None:
    rows = recipe.padded_vocab_size or recipe.vocab_size
    if rows % MULTIPLE:
        field = "padded_vocab_size" if recipe.padded_vocab_size else "vocab_size"
        raise RecipeError(
            f"{field}: {rows} is not a multiple of {MULTIPLE}, so training would be slow. Choose one, or give a "
            "padded_vocab_size that is: the embedding then has rows in reserve."
        )
    if rows < recipe.vocab_size:
        raise RecipeError(f"padded_vocab_size: {rows} is below vocab_size {recipe.vocab_size}. Raise it, or remove it.")
