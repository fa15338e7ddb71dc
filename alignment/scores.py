"""What an evaluation beside a run says of its model, and the same in the two formats of the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment import data_card
from alignment.errors import RunError
from alignment.recipe import UNPINNED
from alignment.run import Finished


@dataclass(frozen=True)
class Score:
    """What a model got on one task, and what its parents in the chain got on it."""

    task: str
    n: int
    score: float
    low: float
    high: float
    how: str  # shots, form, average, interval
    unread: int
    before: dict[str, float]

    @property
    def text(self) -> str:
        """Per cent with the interval."""
        return f"{100 * self.score:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def read(chain: Sequence[Finished]) -> list[Score]:
    """Read the evaluation beside the last run, and its parents' scores on the same tasks.

    Raises RunError for results of another model: `eval/` is not sealed.
    """
    reports = {run.path.name: report["tasks"] for run in chain if (report := _report(run))}
    found = []
    for name, task in reports.pop(chain[-1].path.name, {}).items():
        least, most = task["shots"]["least"], task["shots"]["most"]
        shots = f"{most}-shot" if least == most else f"{least} to {most} shots"
        how = f"{shots}, {task['form']}, {task['protocol']}; {task['average']}, {task['interval_kind']}"
        before = {other: tasks[name]["score"] for other, tasks in reports.items() if name in tasks}
        low, high = task["interval"]
        found.append(Score(name, task["n"], task["score"], low, high, how, task["unread"], before))
    return found


def _report(run: Finished) -> dict[str, Any] | None:
    file = run.path / "eval" / "report.json"
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if found["model"] != identity(run):
        raise RunError(f"{file}: the results of another model. Evaluate this one, or move the file away.")
    return found


def identity(run: Finished) -> str:
    """How an evaluation names a run's model: a hash of its files' hashes, as in eval/evaluate.py."""
    sealed = {name: seal["sha256"] for name, seal in run.manifest["outputs"].items() if name.startswith("model/")}
    return hashlib.sha256(json.dumps(sealed, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def files(found: Sequence[Score]) -> dict[str, bytes]:
    """Write `.eval_results/TASK.yaml` for every task whose items are a data set of the hub."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    written = {}
    for score in found:
        hub = _benchmark(score.task)
        if hub is None:
            continue
        entry = EvalResultEntry(
            dataset_id=hub[0],
            task_id=score.task,
            value=round(100 * score.score, 2),
            dataset_revision=hub[1],
            notes=f"n = {score.n}, 95 % {100 * score.low:.1f} to {100 * score.high:.1f}; {score.how}; unread {score.unread}",
        )
        written[f".eval_results/{score.task}.yaml"] = yaml.safe_dump(
            eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True
        ).encode()
    return written


def _benchmark(task: str) -> tuple[str, str | None] | None:
    """The data set of the hub whose items a task asks, and its pinned revision."""
    if not (data_card.CARDS / f"{task}.md").exists():
        return None
    card = data_card.load(task)
    pinned = None if card.revision == UNPINNED else card.revision
    return (card.hub, pinned) if card.hub else None


def index(score: Score) -> Any:
    """A score for `model-index`."""
    from huggingface_hub import EvalResult

    hub = _benchmark(score.task)
    return EvalResult(
        task_type="text-generation",
        dataset_type=hub[0] if hub else score.task,
        dataset_name=score.task,
        metric_type="accuracy",
        metric_name=f"per cent right, n = {score.n}, 95 % {100 * score.low:.1f} to {100 * score.high:.1f}, {score.how}",
        metric_value=round(100 * score.score, 2),
    )
