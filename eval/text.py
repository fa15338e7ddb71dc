"""How well a model predicts text: `python -m eval text MODEL FILE...`, in bits per byte.

Protocol: -log2 of the text's probability over its length in UTF-8 bytes (DeepSeek LLM, section 5.1, for Pile-test), so that
tokenizers can be compared. Documents are cut into windows that overlap by one token, as lm-eval's rolling likelihood; the
first token of a document is predicted from the token that opens or ends one. The interval is a bootstrap of windows.

Files: .txt (one document), .jsonl or .jsonl.gz with `text`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from alignment import hardware, run, terminal
from alignment.corpus import readers
from alignment.errors import DataError
from eval.evaluate import identity
from eval.statistics import RESAMPLES

if TYPE_CHECKING:
    from alignment.generate.engine import Engine

WINDOW = 2048  # tokens that are predicted at a time, where the model can see as many
FEWEST = 5  # windows, under which no interval is given

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="A run directory, a model folder, or ORG/NAME@REVISION.")],
    files: Annotated[list[Path], typer.Argument(help="Text files: .txt, .jsonl, .jsonl.gz.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Documents a file, from its beginning.")] = None,
    window: Annotated[int, typer.Option(min=2, help="Tokens predicted at a time.")] = WINDOW,
    out: Annotated[Path | None, typer.Option(help="A JSON file to write the numbers to.")] = None,
    on: Annotated[str, typer.Option(help="Hardware profile.")] = "cpu",
) -> None:
    """Measure the bits per byte that a model needs for text files."""
    texts = {path: _texts(path, limit) for path in files}
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)  # a text may be long: it is cut
    machine = hardware.prepare(on)
    if machine.processes > 1:
        raise DataError(f"--on {on}: starts {machine.processes} processes, text takes one. Use --on cpu, or a GPU's.")
    from alignment.generate import engine

    loaded = engine.load(model, machine)
    found: dict[str, Any] = {"model": identity(model), "engine": loaded.facts, "versions": run.versions(), "texts": {}}
    for path, documents in texts.items():
        found["texts"][str(path)] = measured = bits_per_byte(loaded, documents, window)
        low, high = measured["interval"] or (None, None)
        ends = f" (95 % {low:.3f} to {high:.3f})" if low is not None else ""
        said = f"{path}: {measured['bits_per_byte']:.3f} bits per byte{ends}, {measured['bytes']:,} bytes"
        terminal.console().print(said, markup=False, soft_wrap=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        run.write_text(out, json.dumps(found, indent=1, ensure_ascii=False))


def bits_per_byte(engine: Engine, documents: Sequence[str], window: int = WINDOW) -> dict[str, Any]:
    """Bits per UTF-8 byte of documents, with its interval (None for fewer than five windows) and what it rests on."""
    width = min(window, engine.context)
    pieces = [piece for text in documents for piece in windows(_ids(engine, text), opening(engine), width)]
    scores = [found[0] for found in engine.score([before for before, _ in pieces], [[after] for _, after in pieces])]
    bits = np.array([-score.logprob / log(2) for score in scores])
    size = sum(len(text.encode()) for text in documents)
    weights = np.array([score.bytes for score in scores], dtype=np.float64)
    weights *= size / weights.sum()  # a window may end inside a character
    return {
        "bits_per_byte": float(bits.sum()) / size,
        "interval": _interval(bits, weights) if len(bits) >= FEWEST else None,
        "bytes": size,
        "tokens": sum(score.tokens for score in scores),
        "documents": len(documents),
        "windows": len(bits),
        "window": width,
    }


def windows(ids: Sequence[int], first: Sequence[int], width: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut a document into (context, tokens to predict); every token is predicted once, the last ones from a full window."""
    for start in range(0, len(ids), width):
        end = min(start + width, len(ids))
        before = list(ids[max(0, end - width - 1) : start]) if start else list(first)
        yield before, list(ids[start:end])


def opening(engine: Engine) -> list[int]:
    """What stands before a document: the model's own opening token, or else the one that ends the document before."""
    found = engine.opening or [engine.tokenizer.eos_token_id]
    if None in found:
        raise DataError("the tokenizer has neither an opening nor an end token, so a first token cannot be predicted.")
    return list(found)


def _ids(engine: Engine, text: str) -> list[int]:
    encode: Callable[[str], list[int]] = engine.encode
    return encode(text)[len(engine.opening) :]


def _texts(path: Path, limit: int | None) -> list[str]:
    found = [document.text for document in readers.whole(path)][:limit]
    if not any(text.strip() for text in found):
        raise DataError(f"{path}: holds no text. Nothing can be measured.")
    return [text for text in found if text]


def _interval(bits: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> list[float]:
    picks = np.random.default_rng(0).multinomial(len(bits), np.full(len(bits), 1 / len(bits)), RESAMPLES)
    low, high = np.quantile((picks @ bits) / (picks @ weights), [0.025, 0.975])
    return [float(low), float(high)]
