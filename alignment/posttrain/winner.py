"""Which answer is better, where no rule knows: a judge that is asked twice, or a reward model.

The paper does not say how its winners were chosen (4). A judge reads both answers in either order; a verdict counts only
if it is the same both times, and a tie is no pair. A reward model scores each answer by itself.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForSequenceClassification

from alignment import chat
from alignment.errors import DataError, HubError, ModelError
from alignment.generate import engine
from alignment.hardware import Hardware
from alignment.models import build
from alignment.posttrain import start
from alignment.recipe import Judge, Start
from alignment.run import Run

Keep = Callable[[str, str], None]  # a question, and what the judge said
Ask = Callable[[Sequence[str], Keep], None]  # every question is asked, every answer handed over as it comes
KEY = "OPENAI_API_KEY"
AT_ONCE, TRIES, TIMEOUT_SECONDS = 8, 5, 120.0
AGAIN = (408, 429, 500, 502, 503, 504)  # what an endpoint says when it is busy
CONTINUE = "What it said before is kept: go on with --resume."
END = r"[*\"')\]]*"  # what closes a word that was set off
VERDICT = re.compile(rf"[\s*\"'(\[#]*(A|B|TIE|Tie|tie|[ab](?={END}\s*(?:\n|$))){END}(?:[.:,;!]|\s*(?:\n|$))")  # not "A tie"
TIE, PLACE, UNREAD = "tie", "the judge goes by the place", "the judge's verdict cannot be read"


class Verdict(NamedTuple):
    """Whether the first answer is the better one; None where nobody is, and why not."""

    first: bool | None
    why: str = ""


# -- a judge ----------------------------------------------------------------------------------------------------------


def question(prompt: str, first: str, second: str) -> str:
    """What a judge is asked."""
    return (
        "Two assistants answered the same request. Decide which answer serves the person better: it should do what is "
        "asked, be correct, be harmless, and be no longer than it needs to be. The order of the answers means nothing.\n\n"
        f"[Request]\n{prompt}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}\n\n"
        "Begin your reply with one word: A, B or TIE."
    )


def judge(ask: Ask, couples: Sequence[tuple[str, str, str]], record: Record) -> list[Verdict]:
    """Judge couples of answers (prompt, first, second), each in both orders; what the record knows is not asked again."""
    asked = [question(prompt, *pair) for prompt, a, b in couples for pair in ((a, b), (b, a))]
    if new := [text for text in dict.fromkeys(asked) if digest(text) not in record.said]:
        ask(new, record.keep)
    said = [record.said[digest(text)] for text in asked]
    return [verdict(*said[i : i + 2]) for i in range(0, len(said), 2)]


def verdict(straight: str, swapped: str) -> Verdict:
    """Read what a judge said of two answers, and of the same two swapped."""
    found = [VERDICT.match(text) for text in (straight, swapped)]
    if None in found:
        return Verdict(None, UNREAD)
    one, two = (str(match[1]).upper() for match in found if match)
    if "TIE" in (one, two):
        return Verdict(None, TIE)
    return Verdict(None, PLACE) if one == two else Verdict(one == "A")


class Record:
    """What a judge said: a line a question, written as it comes, so that a run that is continued asks nothing twice."""

    def __init__(self, path: Path) -> None:
        self.path, self.one_at_a_time = path, Lock()
        self.said: dict[str, str] = {}  # by the digest of the question
        if path.exists():
            whole, _, cut = path.read_bytes().rpartition(b"\n")
            os.truncate(path, path.stat().st_size - len(cut))  # the last line of a run that was killed
            try:
                self.said = {row["question"]: row["said"] for row in map(json.loads, whole.splitlines())}
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: cannot be read ({error}). Remove it; the judge is asked again.") from None

    def keep(self, asked: str, said: str) -> None:
        """Add a line; several threads may."""
        line = json.dumps({"question": digest(asked), "asked": asked, "said": said})
        with self.one_at_a_time, self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            self.said[digest(asked)] = said


def digest(asked: str) -> str:
    """Name a question by its content."""
    return hashlib.sha256(asked.encode()).hexdigest()


def open_judge(words: Judge, here: Run, hardware: Hardware) -> Ask:
    """Make a judge of a recipe's words."""
    if words.start is None:
        return Endpoint(str(words.endpoint), str(words.model), words.max_new_tokens)
    model = engine.load(start.locate(words.start, here), hardware)
    chat.check_template(model.tokenizer, None, model.name)
    settings = engine.Settings(max_new_tokens=words.max_new_tokens, temperature=0.0)

    def ask(questions: Sequence[str], keep: Keep) -> None:
        turns = [[{"role": "user", "content": text}] for text in questions]
        prompts: list[engine.Prompt] = [chat.encode(model.tokenizer, turn, answer=False).input_ids for turn in turns]
        model.generate(prompts, settings, lambda number, answers: keep(questions[number], answers[0].text))

    return ask


class Endpoint:
    """A judge behind an OpenAI-style endpoint. The key is read from the environment and stands in no file."""

    def __init__(self, url: str, model: str, max_tokens: int, pause_seconds: float = 2.0) -> None:
        self.url, self.model = f"{url}/chat/completions", model
        self.max_tokens, self.pause_seconds = max_tokens, pause_seconds

    def __call__(self, questions: Sequence[str], keep: Keep) -> None:
        """Ask all questions, several at once; raises HubError where one gets no answer, after those under way are kept."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda text: keep(text, self._ask(text)), questions):
                pass

    def _ask(self, text: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        asked = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        for tried in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS) as reply:
                    return str(json.load(reply)["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                if error.code not in AGAIN or tried == TRIES:
                    hint = f" Is {KEY} set?" if error.code in (401, 403) else ""
                    what = f"{error.code} {error.reason} for model {self.model}"
                    raise HubError(f"{self.url}: {what}.{hint} {CONTINUE}") from None
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                if tried == TRIES:
                    what = f"no answer after {TRIES} tries ({error})"
                    raise HubError(f"{self.url}: {what}. Is the endpoint right? {CONTINUE}") from None
            time.sleep(self.pause_seconds * 2 ** (tried - 1))
        raise AssertionError("tried without an end")


# -- a reward model ---------------------------------------------------------------------------------------------------


def scores(words: Start, here: Run, hardware: Hardware, answers: Sequence[tuple[str, str]]) -> list[float]:
    """Score (prompt, answer) by a sequence classifier with one label, as its own chat template renders them.

    One at a time: the library finds the end of a padded row by its pad token, which often is the end mark.
    """
    folder = start.locate(words, here)
    _check_rewards(folder)
    tokenizer = build.read_tokenizer(folder)
    chat.check_template(tokenizer, None, str(folder))
    found, report = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    if report["missing_keys"]:
        raise ModelError(f"{folder}: no weights for {', '.join(sorted(report['missing_keys']))}, so its scores are chance.")
    model = found.to(hardware.device).eval()
    given = []
    with torch.no_grad():
        for prompt, answer in answers:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            ids = chat.encode(tokenizer, turns, answer=True).input_ids
            given.append(float(model(torch.tensor([ids], device=hardware.device), use_cache=False).logits[0, 0]))
    return given


def _check_rewards(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder}: no config.json here. Name the folder of a reward model.")
    about: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    labels = len(about["id2label"]) if "id2label" in about else int(about.get("num_labels", 2))
    kinds = about.get("architectures") or []
    if labels != 1 or not any(name.endswith("ForSequenceClassification") for name in kinds):
        what = f"{', '.join(kinds) or 'a model'} with {labels} labels"
        raise ModelError(f"{folder}: {what} is no reward model, which is a sequence classifier with one label. Name one.")


# -- what is no pair --------------------------------------------------------------------------------------------------


def unfit(first: str, second: str, alike: float | None, longer: float | None) -> str | None:
    """Why two answers are no pair, whoever wins: they are nearly the same text, or length alone tells them apart."""
    if alike is not None and likeness(first, second) > alike:
        return "nearly the same text"
    lengths = sorted((len(first), len(second)))
    if longer is not None and lengths[1] > longer * max(1, lengths[0]):
        return "of very unequal length"
    return None


def likeness(first: str, second: str) -> float:
    """Jaccard similarity of the 5-grams of characters: for languages without spaces too."""
    if not (first and second):
        raise DataError("an empty answer is like nothing. Leave it out before.")
    one, two = ({text[i : i + 5] for i in range(max(1, len(text) - 4))} for text in (first, second))
    return len(one & two) / len(one | two)
