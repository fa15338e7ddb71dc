"""Who wins where no rule knows: a verdict counts if it stands with the answers swapped; what is no pair is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alignment import recipe
from alignment.errors import DataError, HubError, ModelError, RecipeError
from alignment.posttrain import preferences, winner
from alignment.recipe import Start
from alignment.run import Run
from tests import tiny
from tests.tiny import CPU


def preferred(text: str) -> str:
    """The shorter answer, whatever its place."""
    first, second = text.split("[Answer A]\n")[1].split("\n\nBegin")[0].split("\n\n[Answer B]\n")
    return "TIE" if len(first) == len(second) else "A." if len(first) < len(second) else "B, it is shorter"


def shorter(questions: Sequence[str], keep: winner.Keep) -> None:
    """A judge that likes the shorter answer."""
    for text in questions:
        keep(text, preferred(text))


def test_a_judge_is_asked_in_both_orders(tmp_path: Path) -> None:
    record = winner.Record(tmp_path / "verdicts.jsonl")
    found = winner.judge(shorter, [("Why?", "so", "because"), ("Why?", "because", "so"), ("Why?", "aa", "bb")], record)
    assert found == [(True, ""), (False, ""), (None, winner.TIE)]

    def first(questions: Sequence[str], keep: winner.Keep) -> None:
        for text in questions:
            keep(text, "A")

    assert winner.judge(first, [("Who?", "so", "because")], record) == [(None, winner.PLACE)]


def test_what_a_judge_said_outlives_a_question_that_fails_and_is_never_asked_again(tmp_path: Path) -> None:
    couples = [("Why?", "so", "because"), ("Why?", "aa", "bb"), ("How?", "because", "so")]
    path, asked = tmp_path / "verdicts.jsonl", []

    def failing(questions: Sequence[str], keep: winner.Keep) -> None:
        for number, text in enumerate(questions):
            if number == 4:
                raise HubError("no answer")
            asked.append(text)
            keep(text, preferred(text))

    with pytest.raises(HubError):
        winner.judge(failing, couples, winner.Record(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["asked"] for line in lines] == asked
    assert len({line["question"] for line in lines}) == len(asked) == 4
    with path.open("a") as file:
        file.write('{"question": "of a run that was ki')
    record = winner.Record(path)
    assert winner.judge(failing, couples, record) == [(True, ""), (None, winner.TIE), (False, "")]
    assert len(asked) == len(set(asked)) == 6
    assert winner.Record(path).said == record.said
    path.write_text("no verdict\n")
    with pytest.raises(DataError, match="Remove it"):
        winner.Record(path)


@pytest.mark.parametrize(
    ("straight", "swapped", "read"),
    [
        ("A", "B", (True, "")),
        ("b", "**A**", (False, "")),
        ("Answer A", "B", (None, winner.UNREAD)),
        ("A tie: both are fine", "B", (None, winner.UNREAD)),
        ("A close call, but B", "B", (None, winner.UNREAD)),
        ("a word on both", "B", (None, winner.UNREAD)),
        ("A: it is shorter", "[B]\nIt is shorter.", (True, "")),
        ("A", "TIE", (None, winner.TIE)),
        ("Absolutely B", "A", (None, winner.UNREAD)),
    ],
)
def test_a_verdict_stands_first_or_is_not_read(straight: str, swapped: str, read: tuple[Any, str]) -> None:
    assert winner.verdict(straight, swapped) == read


def test_likeness_and_length_make_no_pair() -> None:
    assert winner.unfit("The answer is 4, of course.", "The answer is 5, of course.", 0.5, None) == "nearly the same text"
    assert winner.unfit("The answer is 4.", "I cannot say.", 0.5, 2.0) is None
    assert winner.unfit("no", "no, since it is not so", None, 2.0) == "of very unequal length"
    assert winner.unfit("今天天气很好。", "今天天气很好！", 0.4, None) == "nearly the same text"
    assert winner.likeness("same", "same") == 1


class Replies(BaseHTTPRequestHandler):
    """An endpoint that is busy at first."""

    seen: list[dict[str, Any]] = []  # noqa: RUF012 (one server, one test)
    busy = 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).busy:
            type(self).busy -= 1
            self.send_error(503)
            return
        if self.headers["Authorization"] != "Bearer secret":
            self.send_error(401)
            return
        asked = body["messages"][0]["content"]
        if "Broken?" in asked:
            self.send_error(400)
            return
        self.seen.append(body)
        said = preferred(asked)
        reply = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replies)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_asked_again_while_it_is_busy(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replies, "seen", [])
    monkeypatch.setattr(Replies, "busy", 1)
    monkeypatch.setenv(winner.KEY, "secret")
    ask, record = winner.Endpoint(url, "judge-1", 16, pause_seconds=0.01), winner.Record(tmp_path / "verdicts.jsonl")
    assert winner.judge(ask, [("Why?", "because", "so")], record) == [(False, "")]
    assert [body["model"] for body in Replies.seen] == ["judge-1"] * 2
    monkeypatch.setenv(winner.KEY, "wrong")
    with pytest.raises(HubError, match=f"401.*{winner.KEY}.*--resume") as refused:
        ask(["?"], record.keep)
    assert "wrong" not in str(refused.value)


def test_an_endpoints_answers_are_kept_where_one_question_fails(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replies, "seen", [])
    monkeypatch.setenv(winner.KEY, "secret")
    ask, record = winner.Endpoint(url, "judge-1", 16, pause_seconds=0.01), winner.Record(tmp_path / "verdicts.jsonl")
    good = [(f"Why {i}?", "because", "so") for i in range(3)]
    with pytest.raises(HubError, match=r"400.*--resume"):
        winner.judge(ask, [*good, ("Broken?", "because", "so")], record)
    assert len(Replies.seen) == 6
    again = winner.Record(tmp_path / "verdicts.jsonl")
    assert winner.judge(ask, good, again) == [(False, "")] * 3
    assert len(Replies.seen) == 6


def opened(root: Path, **words: Any) -> tuple[Any, Run]:
    raw = {"stage": "preferences", "start": {"run": "start"}, "data": "data", "max_new_tokens": 8, **words}
    return recipe.validate(raw, "t"), tiny.opened(root, root / "out", {"start": "sft", "data": "curriculum"})


QUESTION = {"id": "q", "prompt": "Why?", "kind": "open", "language": "en", "domain": "d", "split": "train"}


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"problem": "q", "answer": text, "correct": None, "cut": text == "cut", "why": ""} for text in texts]


def test_a_judges_pairs_are_those_that_it_can_tell_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winner, "open_judge", lambda *_: shorter)
    judge = {"endpoint": "https://example.org/v1", "model": "m"}
    words, here = opened(tmp_path, winner="judge", judge=judge, alike=0.8, longer=4.0, pairs_per_problem=2)
    answers = [said("it is so", "it is so, since", "cut"), said("aa bb", "cc dd"), said("x", "x" * 9), said("one")]
    found = list(preferences.by_judge(words, here, CPU, [QUESTION] * 4, answers))
    assert [[(one["chosen"], one["rejected"]) for one in made] for made, _ in found] == [
        [("it is so", "it is so, since")], [], [], []
    ]  # fmt: skip
    assert [word for _, word in found] == ["paired", winner.TIE, "of very unequal length", "no two whole answers"]


def test_a_reward_model_ranks_answers_and_a_language_model_is_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny.byte_tokenizer()
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=1.0, **shape)
    for name, kind in (("reward", LlamaForSequenceClassification), ("start", LlamaForCausalLM)):
        kind(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    words, here = opened(tmp_path, winner="reward", reward={"folder": str(tmp_path / "reward")}, pairs_per_problem=2)
    ((made, word),) = preferences.by_reward(words, here, CPU, [QUESTION], [answers := said("a", "bb", "ccc", "d", "cut")])
    given = {one["answer"]: one.get("reward") for one in answers}
    ranked = sorted((text for text in given if text != "cut"), key=lambda text: -given[text])
    assert [(one["chosen"], one["rejected"]) for one in made] == [(ranked[0], ranked[3]), (ranked[1], ranked[2])]
    assert word == "paired"
    with pytest.raises(ModelError, match="no reward model"):
        winner.scores(Start(folder=str(tmp_path / "start")), here, CPU, [("Why?", "so")])


def test_prompts_are_asked_once_and_some_are_held_out(tmp_path: Path) -> None:
    asked = [f"What is {i} and {i}?" for i in range(40)]
    rows = [
        {
            "id": f"r{i}",
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"It is so.\n#### {2 * i}"}],
            **{"source": "s", "language": "en", "domain": "d"},
        }
        for i, text in enumerate([*asked, asked[0], " "])
    ]
    steered = {**rows[0], "messages": [{"role": "system", "content": "Be brief."}, *rows[0]["messages"]]}
    tiny.write_rows(tmp_path / "data" / "instructions.jsonl", [*rows, steered])
    words, here = opened(tmp_path, data=None, prompts=[{"run": "data"}], heldout=0.3)
    found, dropped = preferences.questions(words, here)
    assert [row["prompt"] for row in found] == asked
    assert dropped == {"asked before": 1, "begins with a system turn": 1, "empty prompt": 1}
    assert {row["split"] for row in found} == {"train", "heldout"}
    assert [row["target"] for row in found] == [str(2 * i) for i in range(40)]
    tiny.write_rows(tmp_path / "data" / "instructions.jsonl", [{**rows[0], "messages": rows[0]["messages"][:1] * 2}])
    with pytest.raises(DataError, match="no rule knows what is right"):
        preferences.questions(words, here)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"winner": "judge"}, "judge goes with judge"),
        ({"reward": {"folder": "x"}}, "neither with another winner"),
        ({"prompts": [{"run": "data"}]}, "and not both"),
        ({"winner": "judge", "judge": {"endpoint": "https://a.b/v1"}}, "endpoint with model"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=complaint):
        opened(tmp_path, **words)
