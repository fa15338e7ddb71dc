"""Several processes, stood for by threads: what is asked, what is saved, and that the report is that of one process."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from alignment.errors import DataError, RunError
from alignment.generate.engine import Completion
from alignment.hardware import Hardware
from eval import harness, journal
from eval.harness import Judged
from eval.ranks import ALONE, Ranks, placed
from eval.samples import Asked
from eval.tasks import TASKS, named

ITEMS = 11
CPU = Hardware("cpu", "cpu", "float32", "tests", "sdpa", 4096, False, 1, 1)


@dataclass(frozen=True)
class Threaded(Ranks):
    """A process that is a thread: answers cross where the others wait."""

    meeting: Any = None
    table: dict[int, dict[str, Any]] = field(default_factory=dict)

    def together(self, rows: dict[str, Any]) -> dict[str, Any]:
        self.table[self.number] = rows
        self.meeting.wait(timeout=60)
        found = {key: row for number in sorted(self.table) for key, row in self.table[number].items()}
        self.meeting.wait(timeout=60)
        return found


@pytest.fixture
def root(tmp_path):
    asked = [{"question": f"What is {i % 8}?", "answer": f"#### {i % 8}", "language": "en"} for i in range(ITEMS)]
    choice = {"question": "pick", "answer": "B", "language": "en", "subject": "s"} | dict(zip("ABCD", "wxyz", strict=True))
    files = {"mini-gsm8k/train": asked[:4], "mini-gsm8k/test": asked, "mini-ceval/dev": [choice], "mini-ceval/val": [choice]}
    for name, rows in files.items():
        path = tmp_path / f"data/{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


@pytest.fixture
def drawing(scripted):
    """An engine that draws as ours does: a prompt that came before in the same call gets other answers."""

    class Drawing(scripted):
        def generate(self, prompts: Any, settings: Any, done: Any) -> None:
            seen = Counter[str]()
            for i, prompt in enumerate(prompts):
                if self.fail_after is not None and len(self.asked) >= self.fail_after:
                    raise RuntimeError("the sampler broke")
                self.asked.append(prompt)
                asked = prompt.rsplit("What is ", 1)[1][0]
                said = [f"The answer is {asked}{seen[prompt] or ''}. {n}" for n in range(settings.samples)]
                seen[prompt] += 1
                done(i, [Completion(text, [1], None, "stop") for text in said])

    return lambda fail_after=None: Drawing(None, fail_after=fail_after)


def judge(engine, **words):
    return Judged(engine, "model", "completion", **{"samples": 3} | words)


def evaluate(engines, root, out):
    """One thread an engine; return the error of each that stopped."""
    meeting, table = threading.Barrier(len(engines)), {}
    errors: list[Exception] = []

    def process(number: int) -> None:
        ranks = Threaded(number, len(engines), meeting, table)
        try:
            harness.evaluate(judge(engines[number]), named(["mini-gsm8k"]), root, out, ranks=ranks)
        except Exception as error:  # noqa: BLE001 (it is asserted on; the others must not wait for this one)
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=process, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def files(out):
    kept = {name: (out / name).read_text() for name in ("report.json", "samples/mini-gsm8k.jsonl")}
    return kept | {"answers": sorted((out / "answers/mini-gsm8k.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_every_item_has_one_process_and_equal_prompts_the_same_one(count):
    waiting = [Asked(None, "", 0, "", [i % 7, i % 3], f"key {i}") for i in range(30)]  # each of 21 prompts, 9 of them twice
    parts = [Ranks(number, count).share(waiting) for number in range(count)]
    assert sorted(a.key for part in parts for a in part) == sorted(a.key for a in waiting)
    owners = {(tuple(a.ids), number) for number, part in enumerate(parts) for a in part}
    assert len(owners) == 21
    sizes = [len({tuple(a.ids) for a in part}) for part in parts]
    assert max(sizes) - min(sizes) <= 1, "each reads as many prompts"


@pytest.mark.parametrize("count", [2, 3, 9])
def test_several_processes_give_the_report_of_one(drawing, root, tmp_path, count):
    harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, tmp_path / "one")
    engines = [drawing() for _ in range(count)]
    assert evaluate(engines, root, tmp_path / "several") == []
    assert files(tmp_path / "several") == files(tmp_path / "one")
    assert not list((tmp_path / "several/answers").glob("*.rank*"))
    assert sum(len(engine.asked) for engine in engines) == ITEMS
    assert sum(bool(engine.asked) for engine in engines) == min(count, 8), "there are eight prompts"


@pytest.mark.parametrize("then", [1, 2, 3])
def test_what_processes_saved_before_they_died_is_continued_by_any_number(drawing, root, tmp_path, then):
    harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, tmp_path / "one")
    out = tmp_path / "out"
    errors = evaluate([drawing(), drawing(fail_after=2)], root, out)
    assert any("the sampler broke" in str(error) for error in errors)
    assert not (out / "report.json").exists()
    part = out / "answers/mini-gsm8k.rank1.jsonl"
    saved = len(journal.read_rows(part)) + len(journal.read_rows(out / "answers/mini-gsm8k.jsonl"))
    assert len(journal.read_rows(part)) == 2
    part.write_text(part.read_text() + '{"key": "cut off in the mid')
    engines = [drawing() for _ in range(then)]
    assert evaluate(engines, root, out) == []
    assert files(out) == files(tmp_path / "one")
    assert not part.exists()
    assert sum(len(engine.asked) for engine in engines) <= ITEMS - saved + 3, "again only what shares its prompt"


def test_a_prompt_that_comes_twice_is_drawn_alike_wherever_an_evaluation_was_interrupted(drawing, root, tmp_path):
    """Items 8, 9 and 10 ask what 0, 1 and 2 ask."""
    harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, tmp_path / "whole")
    for saved in range(1, ITEMS):
        out = tmp_path / f"out{saved}"
        with pytest.raises(RuntimeError, match="sampler broke"):
            harness.evaluate(judge(drawing(fail_after=saved)), named(["mini-gsm8k"]), root, out)
        assert len(journal.read_rows(out / "answers/mini-gsm8k.jsonl")) == saved
        harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, out)
        assert files(out) == files(tmp_path / "whole"), saved


def test_an_item_is_not_drawn_as_the_first_when_it_was_first_only_by_a_limit(drawing, root, tmp_path):
    whole = harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, tmp_path / "whole")
    items = TASKS["mini-gsm8k"].items(root)
    keys = [a.key for a in harness.ask(judge(drawing()), TASKS["mini-gsm8k"], items, 0)]
    assert harness.ask(judge(drawing()), TASKS["mini-gsm8k"], items[8:], 0)[0].key not in keys
    greedy = judge(drawing(), samples=1)
    assert harness.ask(greedy, TASKS["mini-gsm8k"], items[8:], 0)[0].key == harness.ask(
        greedy, TASKS["mini-gsm8k"], items, 0
    )[8].key, "greedy answers do not depend on it"  # fmt: skip
    harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, tmp_path / "out", limit=3)
    assert harness.evaluate(judge(drawing()), named(["mini-gsm8k"]), root, tmp_path / "out") == whole


def test_a_second_evaluation_of_the_same_place_is_refused(tmp_path):
    with journal.held(tmp_path):
        with pytest.raises(RunError, match=r"another evaluation writes there\. Wait for it"), journal.held(tmp_path):
            pass
        with journal.held(tmp_path, Ranks(1, 2)):
            pass  # the first process holds it for all
    with journal.held(tmp_path):
        pass


def test_alone_there_is_nothing_to_exchange():
    rows = {"key": {"key": "key"}}
    assert ALONE.first
    assert ALONE.together(rows) is rows


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert placed(replace(CPU, device="cuda", processes=8)).device == "cuda:3"
    for alone in (CPU, replace(CPU, processes=2), replace(CPU, device="cuda")):
        assert placed(alone) == alone


# -- how answers are drawn --------------------------------------------------------------------------------------------


def keys(engine, root, **words):
    return {a.key for a in harness.ask(judge(engine, **words), TASKS["mini-gsm8k"], TASKS["mini-gsm8k"].items(root), 0)}


def test_answers_drawn_otherwise_never_mix(drawing, root, tmp_path):
    ways = [{}, {"temperature": 1.0}, {"top_p": 0.9}, {"samples": 1}, {"samples": 1, "temperature": 1.0}]
    found = [keys(drawing(), root, **way) for way in ways]
    assert not any(one & other for i, one in enumerate(found) for other in found[:i])
    assert keys(drawing(), root, temperature=0.6, top_p=0.95) == found[0], "said or left out, it is the same"
    assert keys(drawing(), root, samples=1, temperature=0.0) == found[3]
    engine = drawing()
    for temperature in (0.6, 1.0, 0.6):
        report = harness.evaluate(judge(engine, temperature=temperature), named(["mini-gsm8k"]), root, tmp_path)
        assert (report["tasks"]["mini-gsm8k"]["temperature"], report["tasks"]["mini-gsm8k"]["top_p"]) == (temperature, 0.95)
    assert len(engine.asked) == 2 * ITEMS


@pytest.mark.parametrize(
    ("task", "words", "complaint"),
    [
        ("mini-ceval", {"samples": 1, "temperature": 0.5}, "--temperature 0.5, but its options are weighed"),
        ("mini-ceval", {"samples": 1, "top_p": 0.5}, "--top-p 0.5, but its options are weighed"),
        ("mini-gsm8k", {"temperature": 0.0}, "--samples 3, --temperature 0, but at temperature 0 nothing is drawn"),
        ("mini-gsm8k", {"samples": 1, "top_p": 0.5}, "--top-p 0.5, but at temperature 0 nothing is drawn"),
    ],
)
def test_words_about_drawing_where_nothing_is_drawn_are_refused(drawing, root, task, words, complaint):
    with pytest.raises(DataError, match=f"{task}: {complaint}"):
        harness.ask(judge(drawing(), **words), TASKS[task], TASKS[task].items(root), 0)
