"""What lm-eval 0.4.13 asks and what a model answers it: the stored half of the parity test of `--protocol lm-eval`.

    PEER/bin/python benchmarks/lm_eval_parity.py --data-root DATA --model MODEL [--items 4] [--out tests/eval/lm_eval]

PEER is an environment of its own with `lm-eval==0.4.13` and this project's torch and transformers; no file of ours is
imported. The tasks are lm-eval's own files with local rows in place of the hub's; of humaneval the metric is left out,
since it is fetched when it is imported. Written are, for the first items of each set (C-Eval: of each subject), their ids
and digests of their prompts, and for a few of them the model's answer and lm-eval's marks. No text of the data.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval.tasks
import yaml
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

PACKAGED = Path(lm_eval.tasks.__file__).parent
PROMPTS = {"gsm8k": 200, "humaneval": 164, "ceval": 5}  # C-Eval: of each subject
ASKED_SUBJECTS = ("law", "high_school_physics")  # of C-Eval, by the model
SHOTS = 5  # of C-Eval


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--data-root", type=Path, required=True)
    words.add_argument("--model", type=Path, required=True)
    words.add_argument("--items", type=int, default=4, help="of each set that the model is asked")
    words.add_argument("--out", type=Path, default=Path("tests/eval/lm_eval"))
    given = words.parse_args()
    assert version("lm_eval") == "0.4.13", f"lm-eval {version('lm_eval')}: the stored outputs are those of 0.4.13"
    model = HFLM(pretrained=str(given.model), device="cpu", dtype="float32", batch_size=1)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, build in (("gsm8k", gsm8k), ("humaneval", humaneval), ("ceval", ceval)):
        began = time.process_time()
        rows = []
        for task, ids, asked in build(given.data_root, given.items):
            rows += answered(model, task, ids[: PROMPTS[name]], asked)
        path = given.out / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        spent = time.process_time() - began
        print(f"{path}: {len(rows)} prompts, {sum('answer' in row for row in rows)} answers, {spent:.0f} CPU s")  # noqa: T201


# -- the tasks --------------------------------------------------------------------------------------------------------


def gsm8k(root: Path, items: int) -> list[tuple[Any, list[str], int]]:
    config = packaged("gsm8k/gsm8k-cot.yaml")
    rows = read(root / "gsm8k/test.jsonl")
    return [(local(config, {"test": rows}), [f"gsm8k/{i}" for i in range(len(rows))], items)]


def humaneval(root: Path, items: int) -> list[tuple[Any, list[str], int]]:
    config = packaged("humaneval/humaneval.yaml")
    config |= {"metric_list": [{"metric": "bypass"}], "filter_list": None, "unsafe_code": False}
    rows = read(root / "humaneval/HumanEval.jsonl.gz")
    return [(local(config, {"test": rows}), [row["task_id"] for row in rows], items)]


def ceval(root: Path, items: int) -> list[tuple[Any, list[str], int]]:
    dev, val = read(root / "ceval/dev.jsonl.gz"), read(root / "ceval/val.jsonl.gz")
    found = []
    for subject in dict.fromkeys(row["subject"] for row in val):
        config = packaged("ceval/_default_ceval_yaml") | packaged(f"ceval/ceval-valid_{subject}.yaml")
        config.pop("include")
        splits = {"dev": of(dev, subject), "val": of(val, subject)}
        ids = [f"ceval/{subject}/{row['id']}" for row in splits["val"]]
        asked = items if subject in ASKED_SUBJECTS else 0
        found.append((local(config | {"num_fewshot": SHOTS}, splits), ids, asked))
    return found


def packaged(name: str) -> dict[str, Any]:
    """A task file of lm-eval's, without the functions that it names."""
    text = (PACKAGED / name).read_text(encoding="utf-8").replace("!function", "")
    return dict(yaml.safe_load(text))


def local(config: dict[str, Any], splits: dict[str, list[dict[str, Any]]]) -> Any:
    """The task on rows of ours."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for split, rows in splits.items():
            path = Path(folder) / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            files[split] = str(path)
        place = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        return ConfigurableTask(config=config | place)


def of(rows: list[dict[str, Any]], subject: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["subject"] == subject]


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


# -- asking -----------------------------------------------------------------------------------------------------------


def answered(model: HFLM, task: Any, ids: list[str], asked: int) -> list[dict[str, Any]]:
    """Build lm-eval's requests, put the first few to the model, and mark them as lm-eval does."""
    task.build_all_requests(limit=len(ids), rank=0, world_size=1)
    by_item: dict[int, list[Any]] = {}
    for request in task.instances:
        by_item.setdefault(request.doc_id, []).append(request)
    rows = [{"id": ids[i], "prompt": digest(requests[0].args[0])} for i, requests in sorted(by_item.items())]
    few = [request for i in range(asked) for request in by_item[i]]
    if not few:
        return rows
    verb = model.loglikelihood if task.OUTPUT_TYPE == "multiple_choice" else model.generate_until
    for request, response in zip(few, verb(few), strict=True):
        request.resps.append(response)
    for i in range(asked):
        rows[i] |= reply(task, by_item[i])
    return rows


def reply(task: Any, requests: list[Any]) -> dict[str, Any]:
    """An item's answer, and what lm-eval read out of it and thought of it."""
    doc = requests[0].doc
    responses = [request.resps[0] for request in requests]
    if task.OUTPUT_TYPE == "multiple_choice":
        weights = dict(zip("ABCD", (round(logprob, 5) for logprob, _ in responses), strict=True))
        marks = task.process_results(doc, responses)
        return {"answer": weights, "read": max(weights, key=lambda letter: weights[letter]), "correct": bool(marks["acc"])}
    if not task.config.filter_list or task.config.task == "humaneval":
        return {"answer": responses[0]}
    read, right = {}, {}
    for steps in task._filters:
        steps.apply(requests)
        read[steps.name] = requests[0].filtered_resps[steps.name]
        right[steps.name] = bool(task.process_results(doc, [read[steps.name]])["exact_match"])
    return {"answer": responses[0], "read": read, "correct": right}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
