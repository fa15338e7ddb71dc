"""What a tokenizer does to text: bytes per token by domain and language, digits, unknown and unused tokens, time.

Several are measured on the same held-out text, side by side. Bytes per token compare vocabularies of any size; seconds
are those of the processor, over all threads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from tokenizers import Tokenizer as Encoder

from alignment.corpus.documents import Document
from alignment.errors import DataError

BATCH = 500  # documents encoded at once, over all threads
NUMBERS = [str(number) for number in (*range(0, 1000, 7), *range(1000, 100_000, 997), *range(10**6, 10**9, 10**7 - 1))]
RARE = 100  # occurrences in the sample below which a token's embedding hardly learns (our choice)


def measure(encoders: Mapping[str, Encoder], found: Iterable[Document]) -> dict[str, Any]:
    """Measure each tokenizer on the documents. Raises DataError where there are none."""
    tallies = {name: Counter[tuple[str, str]]() for name in encoders}
    sizes = Counter[tuple[str, str]]()
    used: dict[str, set[int]] = {name: set() for name in encoders}
    documents = 0
    for batch in _batches(found):
        documents += len(batch)
        for document in batch:
            sizes.update(dict.fromkeys(_keys(document), document.bytes))
        for name, encoder in encoders.items():
            _tally(encoder, batch, tallies[name], used[name])
    if not documents:
        raise DataError("no held-out text to measure the tokenizer on. Raise held_out of the corpus.")
    return {
        "documents": documents,
        "bytes": sizes["all", ""],
        "tokenizers": {name: _summary(encoders[name], sizes, tallies[name], used[name]) for name in encoders},
    }


def usage(encoder: Encoder, words: Mapping[str, int]) -> dict[str, int | float]:
    """Count the conventional tokens that the words it was trained on never use, or hardly."""
    used: Counter[int] = Counter()
    for word, number in words.items():
        for token in encoder.model.tokenize(word):
            used[token.id] += number
    tokens = encoder.get_vocab_size(with_added_tokens=False)
    letters = sum(len(word) * number for word, number in words.items())  # one symbol of a word is one byte
    return {
        "conventional_tokens": tokens,
        "unused_tokens": sum(not used[number] for number in range(tokens)),
        "rare_tokens": sum(0 < used[number] < RARE for number in range(tokens)),
        "bytes_per_token": round(letters / max(used.total(), 1), 4),
    }


def digits_per_token(encoder: Encoder) -> float:
    """Say how numbers of one to nine digits are cut: 1 is every digit alone."""
    tokens = sum(len(encoding.ids) for encoding in encoder.encode_batch(NUMBERS, add_special_tokens=False))
    return round(sum(map(len, NUMBERS)) / tokens, 4)


def markdown(found: Mapping[str, Any]) -> str:
    """Write the report as a page."""
    named = found["tokenizers"]
    lines = [
        "# Tokenizer",
        "",
        f"Held-out text: {found['documents']:,} documents, {found['bytes']:,} bytes. Seconds are the processor's.",
        "",
        *_table(["", *named], [_row(named, title, field) for title, field in FIELDS]),
    ]
    for title, field in (("domain", "by_domain"), ("language", "by_language")):
        names = sorted({name for about in named.values() for name in about[field]})
        rows = [[name, *(f"{about[field][name]:.3f}" for about in named.values())] for name in names]
        lines += ["", f"## Bytes per token by {title}", "", *_table([title, *named], rows)]
    if training := found.get("training"):
        rows = [[name.replace("_", " "), f"{value:,}"] for name, value in training.items() if name != "sample_bytes"]
        sample = [[f"sample, {domain}: bytes", f"{size:,}"] for domain, size in training["sample_bytes"].items()]
        lines += ["", "## Training", "", *_table(["", ""], sample + rows)]
    return "\n".join(lines) + "\n"


FIELDS = (
    ("tokens in the vocabulary", "vocab_size"),
    ("bytes per token", "bytes_per_token"),
    ("digits per token (1: each alone)", "digits_per_token"),
    ("unknown tokens", "unknown"),
    ("documents that do not come back unchanged", "changed"),
    ("tokens that the held-out text uses", "used"),
    ("seconds for encoding", "cpu_seconds"),
)


def _tally(encoder: Encoder, batch: list[Document], tally: Counter[tuple[str, str]], used: set[int]) -> None:
    began = time.process_time()
    encodings = encoder.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
    tally["microseconds", ""] += round((time.process_time() - began) * 1e6)
    unknown = getattr(encoder.model, "unk_token", None)
    lost = encoder.token_to_id(unknown) if unknown else None
    texts = encoder.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
    for document, encoding, text in zip(batch, encodings, texts, strict=True):
        tally.update(dict.fromkeys(_keys(document), len(encoding.ids)))
        tally["unknown", ""] += encoding.ids.count(lost) if lost is not None else 0
        tally["changed", ""] += text != document.text
        used.update(encoding.ids)


def _summary(
    encoder: Encoder, sizes: Counter[tuple[str, str]], tally: Counter[tuple[str, str]], used: set[int]
) -> dict[str, Any]:
    ratio = {key: round(size / max(tally[key], 1), 4) for key, size in sorted(sizes.items())}
    return {
        "vocab_size": encoder.get_vocab_size(),
        "bytes_per_token": ratio["all", ""],
        "by_domain": {name: value for (kind, name), value in ratio.items() if kind == "domain"},
        "by_language": {name: value for (kind, name), value in ratio.items() if kind == "language"},
        "digits_per_token": digits_per_token(encoder),
        "unknown": tally["unknown", ""],
        "changed": tally["changed", ""],
        "used": len(used),
        "cpu_seconds": round(tally["microseconds", ""] / 1e6, 3),
    }


def _keys(document: Document) -> list[tuple[str, str]]:
    return [("all", ""), ("domain", document.domain), ("language", document.language)]


def _row(named: Mapping[str, Any], title: str, field: str) -> list[str]:
    return [title, *(f"{about[field]:,}" for about in named.values())]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    rest = iter(found)
    while batch := list(islice(rest, BATCH)):
        yield batch
