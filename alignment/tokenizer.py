"""Train the family's byte-level BPE (paper 2.1), load it, and say how well it compresses.

The pre-tokenizer keeps merges inside one class of characters: a newline stands alone, a word or a run of marks takes
at most one space before it, Chinese, Japanese and Korean are cut from the rest, every digit is a token of its own. All
256 bytes are in the alphabet, so any text comes back unchanged; the family learnt its alphabet from data instead and
filled 13 of its 15 special places with the bytes that UTF-8 never uses (a departure, listed in the README). Here those
places are a pad token and a reserve. As in the family, special tokens stand above the conventional ones.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Encoder
from xxhash import xxh3_64_intdigest

from alignment import chat
from alignment import recipe as words
from alignment.chat import BOS, EOS
from alignment.corpus import documents
from alignment.corpus.documents import Document
from alignment.errors import DataError, ModelError, RecipeError
from alignment.hardware import Hardware
from alignment.run import Run

PAD = "<\uff5cpad\u2581token\uff5c>"
SPECIAL = 15  # paper 2.1: BOS, EOS, and 13 more
MULTIPLE = 16  # rows of the embedding: matrix units work on blocks of this many
BATCH = 500

# Cased scripts only, 2,729 code points. In escapes on purpose: any Unicode normalisation of the characters themselves
# breaks the ranges, partly without an error.
LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
SPLITS = (
    r"[\r\n]",
    rf"\s?[{LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
)


def pre_tokenizer() -> pre_tokenizers.Sequence:
    """Build the pre-tokenizer of the family's tokenizer.json."""
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in SPLITS]
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([*splits, digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def special_tokens(template: str) -> list[str]:
    """Name the 15 special tokens in the order of their ids; ChatML's marks take two of the reserve."""
    marks = ["<|im_start|>", "<|im_end|>"] if template == "chatml" else []
    reserve = [f"<\uff5creserved\u2581{number}\uff5c>" for number in range(SPECIAL - 3 - len(marks))]
    return [BOS, EOS, PAD, *marks, *reserve]


def train(recipe: words.Tokenizer, here: Run, hardware: Hardware) -> dict[str, float | int | str]:  # noqa: ARG001
    """Train on a sample of a corpus and write tokenizer/; return bytes per token of held-out text by domain."""
    if recipe.vocab_size % MULTIPLE:
        raise RecipeError(f"vocab_size: {recipe.vocab_size} is not a multiple of {MULTIPLE}, so training would be slow.")
    corpus = here.inputs[recipe.data].path
    sample = stratified(list(documents.read(corpus / "documents.jsonl")), recipe.sample_bytes, recipe.seed)
    here.say(f"learning {recipe.vocab_size:,} tokens from {len(sample):,} documents")  # one call, which shows nothing
    began = time.monotonic()
    encoder = learn((document.text for document in sample), recipe.vocab_size, recipe.template)
    seconds = time.monotonic() - began
    write(encoder, here.path / "tokenizer", recipe.template)
    numbers: dict[str, float | int | str] = {
        "vocab_size": encoder.get_vocab_size(),
        "sample_bytes": sum(document.bytes for document in sample),
        "seconds": round(seconds, 2),
    }
    return numbers | bytes_per_token(encoder, documents.read(corpus / "heldout.jsonl"))


def stratified(found: list[Document], sample_bytes: int, seed: int) -> list[Document]:
    """Take each domain's share of the corpus, in an order that only the seed and the ids decide."""
    whole = sum(document.bytes for document in found)
    domains: dict[str, list[Document]] = {}
    for document in sorted(found, key=lambda document: xxh3_64_intdigest(f"{seed}/{document.dump}/{document.id}".encode())):
        domains.setdefault(document.domain, []).append(document)
    sample = []
    for _, members in sorted(domains.items()):
        left = sample_bytes * sum(document.bytes for document in members) / whole
        for document in members:
            if left <= 0:
                break
            sample.append(document)
            left -= document.bytes
    return sample


def learn(texts: Iterable[str], vocab_size: int, template: str) -> Encoder:
    """Learn the merges. Raises DataError when the texts are too few for a vocabulary of this size."""
    encoder = Encoder(models.BPE())
    encoder.pre_tokenizer = pre_tokenizer()
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    encoder.train_from_iterator(_batches(texts), trainer)
    if (found := encoder.get_vocab_size() + SPECIAL) != vocab_size:
        raise DataError(f"vocab_size: the sample gives {found} tokens, not {vocab_size}. Raise sample_bytes.")
    encoder.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens(template)])
    encoder.encode_special_tokens = True
    return encoder


def write(encoder: Encoder, folder: Path, template: str) -> None:
    """Write what AutoTokenizer reads. BOS is not added by the tokenizer: stages that want it put it there."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # LlamaTokenizerFast would replace the pre-tokenizer
        "bos_token": BOS,
        "eos_token": "<|im_end|>" if template == "chatml" else EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat.TEMPLATES[template], encoding="utf-8")


def load(folder: Path) -> Encoder:
    """Load tokenizer.json for text that is not ours: a control token spelt in it stays text."""
    try:
        encoder = Encoder.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise ModelError(f"{folder}: no usable tokenizer.json ({error}). Run the `tokenizer` stage first.") from None
    encoder.encode_special_tokens = True
    return encoder


def digest(encoder: Encoder) -> str:
    """Identify a tokenizer by its contents."""
    return hashlib.sha256(encoder.to_str().encode()).hexdigest()


def bytes_per_token(encoder: Encoder, found: Iterable[Document]) -> dict[str, float]:
    """Measure compression by domain, and over all of them."""
    sizes: dict[str, list[int]] = {}
    for batch in _batches(found):
        encodings = encoder.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            for name in ("bytes_per_token", f"bytes_per_token_{document.domain}"):
                size = sizes.setdefault(name, [0, 0])
                size[0] += document.bytes
                size[1] += len(encoding.ids)
    return {name: round(total / max(tokens, 1), 4) for name, (total, tokens) in sorted(sizes.items())}


def _batches(found: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(found)
    while batch := list(islice(rest, BATCH)):
        yield batch
