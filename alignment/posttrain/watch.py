"""Fixed questions, asked while a model learns: how often it stops by itself, and how often it loops instead.

The paper measures repetition after each stage, and adds a second stage of SFT because of it (section 4, Table 12). The
answers are greedy and kept in samples.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from accelerate.utils import gather_object
from peft import PeftModel
from transformers import PreTrainedModel, Trainer

from alignment import chat
from alignment.errors import DataError, HardwareError
from alignment.generate.completion import Completion, Settings
from alignment.generate.engine import Engine
from alignment.generate.library import Library
from alignment.hardware import Hardware, is_sharded
from alignment.posttrain import head, mixture
from alignment.recipe import Watch
from alignment.run import Run, write_text
from alignment.verify import answers

SAMPLES = "samples.jsonl"


def questions(words: Watch, here: Run, tokenizer: Any, hardware: Hardware) -> list[list[int]]:
    """The ids of what will be asked, up to where the model is to speak."""
    if is_sharded(hardware.name):
        raise HardwareError(
            f"watch: profile {hardware.name} shards the model, and a sharded one is not asked. Leave it out."
        )
    asked = [
        chat.encode(tokenizer, [{"role": "user", "content": prompt}], answer=False).input_ids for prompt in words.prompts
    ]
    if words.run:
        path = here.inputs[words.run].path / "validation.jsonl"
        if not path.exists():
            raise DataError(f"watch.run: {path} is missing. Name a run of the stage mixture.")
        mixture.check_tokenizer(path.parent, tokenizer)
        rows = islice(mixture.load(path), words.questions)
        asked += [row["input_ids"][: next(i for i, label in enumerate(row["labels"]) if label != -100)] for row in rows]
    if not asked:
        raise DataError(f"watch: {words.run} kept no validation rows, so there is nothing to ask. Give prompts.")
    return asked


def ask(
    learner: Trainer, tokenizer: Any, here: Run, asked: Sequence[list[int]], most: int, step: int | None = None
) -> dict[str, float]:
    """Ask everything of the model as it is, each rank its part; write the answers down and return the two rates.

    `step`: the update that the model is of, if it is not the latest.
    """
    step = learner.state.global_step if step is None else step
    rank, ranks = learner.accelerator.process_index, learner.accelerator.num_processes
    mine = list(range(rank, len(asked), ranks))
    said = _generate(learner, tokenizer, [asked[i] for i in mine], most) if mine else []
    found: dict[int, Completion] = dict(gather_object(list(zip(mine, said, strict=True))))
    rows = [
        {
            "step": step,
            "prompt": tokenizer.decode(ids),
            "text": found[i].text,
            "finish": found[i].finish,
            "loops": found[i].finish == "length" and answers.loops(found[i].token_ids),
        }
        for i, ids in enumerate(asked)
    ]
    if here.main:
        _keep(here, rows)
    return {
        "stop_rate": sum(row["finish"] == "stop" for row in rows) / len(rows),
        "repetition_ratio": sum(row["loops"] for row in rows) / len(rows),
    }


def _generate(learner: Trainer, tokenizer: Any, asked: Sequence[list[int]], most: int) -> list[Completion]:
    model, adapted = head.bare(learner), isinstance(learner.model, PeftModel)
    with _library_attention(model), learner.accelerator.autocast():
        engine = Engine(Library(model) if adapted else model, tokenizer, name=f"update {learner.state.global_step}")
        return [found[0] for found in engine.generate(list(asked), Settings(max_new_tokens=most))]


@contextmanager
def _library_attention(model: PreTrainedModel) -> Iterator[None]:
    """Training may use an attention for packed rows, or one that wants 16 bits, and its forward ends in the loss."""
    kernel, forward = model.config._attn_implementation, model.__dict__.pop("forward", None)
    model.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = kernel
        if forward is not None:
            model.forward = forward


def _keep(here: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Add the answers to the samples, in place of those of the same update: a resumed training asks again."""
    path = here.path / SAMPLES
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in before if json.loads(line)["step"] != rows[0]["step"]]
    lines = [*kept, *(json.dumps(row, ensure_ascii=False) for row in rows)]
    write_text(path, "".join(f"{line}\n" for line in lines))
