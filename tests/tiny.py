"""What the tests of the post-training stages share: a byte-level tokenizer, a start model of a few thousand weights, and
runs that are opened by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignment import chat, run
from alignment.hardware import Hardware
from alignment.models import build
from alignment.models.presets import Shape
from alignment.posttrain import mixture
from alignment.run import Finished, Run

CPU = Hardware("cpu", "cpu", "float32", "test", "sdpa", micro_tokens=512, recompute=False, processes=1, threads=1)


COLUMNS = {  # of metrics.jsonl, in every training stage
    *("step", "tokens", "loss", "bits_per_byte", "learning_rate", "grad_norm"),
    *("tokens_per_second", "mfu", "memory_bytes", "time"),
}
INSTRUCTIONS = [
    {
        "id": str(i),
        "messages": [
            {"role": "user", "content": f"Say {'ab' * (i % 7)}{i}"},
            {"role": "assistant", "content": "yes" if i % 2 else "oh no"},
        ],
        "source": "s",
        "language": "en",
        "domain": "d",
    }
    for i in range(72)
]
PAIRS = [
    {
        "id": str(i),
        "prompt": f"What is {i}?",
        "chosen": f"It is {i}.",
        "rejected": "no" * (1 + i % 3),
        "reason": "test",
        "language": "en",
        "domain": "d",
    }
    for i in range(32)
]


def byte_tokenizer(template: str = "deepseek-llm", merges: Sequence[tuple[str, str]] = ()) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the 256 bytes, a few merges, and a template's marks."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    bos, eos = (chat.BOS, chat.EOS) if template == "deepseek-llm" else ("<|im_start|>", "<|im_end|>")
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=eos, pad_token="<pad>")
    made.chat_template = chat.TEMPLATES[template]
    return made


def write_start(root: Path, *, layers: int = 2, width: int = 32) -> None:
    """Write `model/`: a small random model whose tokens are the 256 bytes and three marks."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(root / "tokenizer")
    shape = Shape(layers, width, 2, 2, 2 * width, vocab=len(tokenizer), max_positions=128, tie=True)
    build.save(build.build(shape, tokenizer, CPU, seed=0, init_std=0.02), root / "tokenizer", root / "model")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSONL file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mixture.save(path, rows)


def opened(root: Path, out: Path, stages: Mapping[str, str], *, resumed: bool = False) -> Run:
    """Open a run whose inputs lie below `root`; `stages` says what wrote each."""
    out.mkdir(parents=True, exist_ok=True)
    return Run(out, {name: finished(root / name, stage) for name, stage in stages.items()}, {}, True, resumed, {})


def finished(path: Path, stage: str) -> Finished:
    """A run as it is read back: its model's files with their hashes."""
    sealed = {f"model/{file.name}": {"sha256": run.sha256(file)} for file in (path / "model").glob("*")}
    return Finished(path, {"stage": stage, "outputs": sealed})


def metrics(out: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
