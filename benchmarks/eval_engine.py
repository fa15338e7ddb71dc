"""How much faster is our engine than lm-evaluation-harness on its Hugging Face backend, at the same answers?

Run from the project's root, with the python of an environment that holds lm-eval 0.4.13 (it needs other pins than ours):

    python benchmarks/eval_engine.py compare MODEL DATA_ROOT --peer-python PYTHON [--pairs N] [--tasks gsm8k,ceval,humaneval]

lm-eval first answers about 16 items at batch sizes 1, 8 and 16; its fastest is then measured against us, in turn. Both
are whole processes on one thread in float32, and both read the same prompts: lm-eval's own, from its sample log. GSM8K
and C-Eval are lm-eval's task files over local JSON; HumanEval's file imports a metric from a hub, so its prompt and
stops are given here. Printed are the ratios of CPU and of wall seconds, and how many answers are equal.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", TOKENIZERS_PARALLELISM="false")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

import typer  # noqa: E402

SUBJECTS = ("law", "accountant", "high_school_physics")
TRIED = 16  # items that choose lm-eval's batch size
HUMANEVAL = {  # lm-eval 0.4.13, tasks/humaneval/humaneval.yaml: prompt, stops and length; any metric will do
    "task": "humaneval",
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{canonical_solution}}",
    "num_fewshot": 0,
    "generation_kwargs": {
        "until": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
        "max_gen_toks": 1024,
        "do_sample": False,
    },
    "metric_list": [{"metric": "exact_match"}],
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Took:
    """What a process cost, in seconds."""

    cpu: float
    wall: float


@app.command()
def compare(
    model: Annotated[Path, typer.Argument(help="A model folder, such as SmolLM2-135M-Instruct's.")],
    data_root: Annotated[Path, typer.Argument(help="The folder that holds gsm8k/, ceval/ and humaneval/.")],
    peer_python: Annotated[str, typer.Option(help="A python with lm-eval 0.4.13.")],
    pairs: Annotated[int, typer.Option(min=1)] = 3,
    tasks: str = "gsm8k,ceval,humaneval",
    items: Annotated[int, typer.Option(help="GSM8K items; HumanEval problems are half as many.")] = 32,
    peer_batches: Annotated[str, typer.Option(help="Batch sizes that lm-eval may choose from.")] = "1,8,16",
) -> None:
    """Measure both, in turn, and print the ratios."""
    chosen = [int(size) for size in peer_batches.split(",")]
    typer.echo(f"{_processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; one thread, float32")
    typer.echo(f"lm-eval: {_versions(peer_python, ['lm_eval', 'torch', 'transformers'])}")
    typer.echo(f"ours: {_versions(sys.executable, ['torch', 'transformers'])}")
    for task in tasks.split(","):
        with tempfile.TemporaryDirectory() as place:
            _race(task, model, data_root, peer_python, Path(place), pairs, items, chosen)


@app.command()
def answer(model: Path, asked: Path, out: Path) -> None:
    """Our side: answer a file of prompts."""
    import torch

    torch.set_num_threads(1)
    from alignment.generate import engine
    from alignment.hardware import Hardware

    rows = json.loads(asked.read_text(encoding="utf-8"))
    speaker = engine.load(model, Hardware("cpu", "cpu", "float32", "benchmark", "sdpa", 1, False, 1, 1))
    prompts = [row["prompt"] for row in rows]
    found: list[Any]
    if "options" in rows[0]:
        scores = speaker.score(prompts, [row["options"] for row in rows])
        found = [[score.logprob for score in row] for row in scores]
    else:
        settings = engine.Settings(max_new_tokens=rows[0]["length"], stop=tuple(rows[0]["stop"]))
        found = [completion.text for [completion] in speaker.generate(prompts, settings)]
    out.write_text(json.dumps(found), encoding="utf-8")


def _race(
    task: str, model: Path, root: Path, peer: str, place: Path, pairs: int, items: int, batches: Sequence[int]
) -> None:
    names = _write_task(task, root, place, peer, items)
    tries = {size: _peer(model, names, place, peer, size, -(-TRIED // len(names))) for size in batches}
    fastest = min(tries, key=lambda size: tries[size].cpu)
    said = ", ".join(f"batch {size}: {took.cpu:.0f}" for size, took in tries.items())
    typer.echo(f"\n{task}. lm-eval, CPU seconds of a few items by batch size: {said}")
    rows = []
    for _ in range(pairs):
        them = _peer(model, names, place, peer, fastest)
        asked, theirs = _read_log(place, names)
        (place / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        us = _timed([sys.executable, __file__, "answer", str(model), str(place / "asked.json"), str(place / "ours.json")])
        rows.append((them, us))
        typer.echo(f"{len(asked)} items: lm-eval {them.cpu:.1f} CPU seconds, ours {us.cpu:.1f}")
    ours = json.loads((place / "ours.json").read_text(encoding="utf-8"))
    for unit in ("cpu", "wall"):
        sides = [[getattr(side, unit) for side in row] for row in rows]
        ratios = sorted(them / us for them, us in sides)
        them, us = (sorted(column)[len(column) // 2] for column in zip(*sides, strict=True))
        typer.echo(
            f"{unit:>5} seconds: lm-eval (batch {fastest}) {them:.1f}, ours {us:.1f}; ratio: median "
            f"{ratios[len(ratios) // 2]:.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}, n = {pairs} pairs"
        )
    _compare_answers(asked, theirs, ours)


def _compare_answers(asked: Sequence[dict[str, Any]], theirs: Sequence[Any], ours: Sequence[Any]) -> None:
    if "options" in asked[0]:
        choices = [[max(range(len(row)), key=row.__getitem__) for row in side] for side in (theirs, ours)]
        equal = sum(a == b for a, b in zip(*choices, strict=True))
        far = max(abs(a - b) for them, us in zip(theirs, ours, strict=True) for a, b in zip(them, us, strict=True))
        typer.echo(f"equal choices: {equal} of {len(asked)}; largest difference of a log-likelihood: {far:.1e}")
    else:
        differing = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b]
        typer.echo(f"equal texts: {len(asked) - len(differing)} of {len(asked)}; others: {differing or 'none'}")


# -- lm-eval's side ---------------------------------------------------------------------------------------------------


def _write_task(task: str, root: Path, place: Path, peer: str, items: int) -> list[str]:
    """Write lm-eval's task files over local JSON; return their names."""
    tasks = Path(_say(peer, "from importlib.util import find_spec; print(find_spec('lm_eval').origin)")).parent / "tasks"
    if task == "gsm8k":
        _save(place / "test.json", _rows(root / "gsm8k/test.jsonl")[:items])
        yaml = {"include": str(tasks / "gsm8k/gsm8k-cot.yaml"), "task": "bench_gsm8k"}
        return [_save_task(place, yaml, {"test": "test.json"})]
    if task == "humaneval":
        _save(place / "test.json", _rows(root / "humaneval/HumanEval.jsonl")[: items // 2])
        return [_save_task(place, HUMANEVAL | {"task": "bench_humaneval", "test_split": "test"}, {"test": "test.json"})]
    names = []
    for subject in SUBJECTS:
        for split in ("dev", "val"):
            rows = [row for row in _rows(root / f"ceval/{split}.jsonl") if row["subject"] == subject]
            _save(place / f"{subject}-{split}.json", rows)
        yaml = {"include": str(tasks / f"ceval/ceval-valid_{subject}.yaml"), "task": f"bench_{subject}"}
        files = {split: f"{subject}-{split}.json" for split in ("dev", "val")}
        names.append(_save_task(place, yaml, files))
    return names


def _save_task(place: Path, task: dict[str, Any], files: dict[str, str]) -> str:
    found = {split: str(place / name) for split, name in files.items()}
    task = task | {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": found}}
    _save(place / f"{task['task']}.yaml", task)  # JSON is YAML
    return str(task["task"])


def _peer(model: Path, names: Sequence[str], place: Path, peer: str, batch_size: int, limit: int | None = None) -> Took:
    few = ["--limit", str(limit)] if limit else []
    shots = ["--num_fewshot", "5"] if len(names) == len(SUBJECTS) else []
    return _timed([
        peer, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32",
        "--tasks", ",".join(names), "--include_path", str(place), "--device", "cpu", "--batch_size", str(batch_size),
        "--output_path", str(place / "log"), "--log_samples", *shots, *few,
    ])  # fmt: skip


def _read_log(place: Path, names: Sequence[str]) -> tuple[list[dict[str, Any]], list[Any]]:
    """What lm-eval asked and answered, item by item, out of its newest sample log."""
    asked: list[dict[str, Any]] = []
    answers: list[Any] = []
    for name in names:
        log = max((place / "log").rglob(f"samples_{name}_*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        rows = {row["doc_id"]: row for row in _rows(log)}  # one row per filter: the answers are the same
        for _, row in sorted(rows.items()):
            calls = [row["arguments"][key] for key in sorted(row["arguments"])]
            if isinstance(calls[0]["arg_1"], str):
                asked.append({"prompt": calls[0]["arg_0"], "options": [call["arg_1"] for call in calls]})
                answers.append([float(reply[0][0]) for reply in row["resps"]])
            else:
                how = calls[0]["arg_1"]
                asked.append({"prompt": calls[0]["arg_0"], "stop": how["until"], "length": how.get("max_gen_toks", 256)})
                answers.append(row["resps"][0][0])
    return asked, answers


# -- both -------------------------------------------------------------------------------------------------------------


def _timed(command: list[str]) -> Took:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=os.environ | OFFLINE, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(cpu, time.perf_counter() - began)


def _versions(python: str, packages: Sequence[str]) -> str:
    return _say(python, f"from importlib.metadata import version as v; print({{p: v(p) for p in {packages!r}}})")


def _processor() -> str:
    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return found[0].partition(":")[2].strip()


def _say(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _rows(path: Path) -> list[dict[str, Any]]:
    packed = path.with_name(path.name + ".gz")
    text = path.read_text(encoding="utf-8") if path.exists() else gzip.decompress(packed.read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines() if line]


def _save(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    app()
