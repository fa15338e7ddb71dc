"""Readers of instruction rows and preference pairs."""

from __future__ import annotations

import gzip
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from alignment import layouts, rows
from alignment.errors import DataError

CARD = {"name": "made-up", "language": "en", "domain": "instruction"}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}

WHOLE = gzip.compress(b"".join(b'{"text": "%d"}\n' % (i * i) for i in range(500)), mtime=0)
FLIPPED = WHOLE[:900] + bytes([WHOLE[900] ^ 255]) + WHOLE[901:]


def read(
    reader: str, *records: dict[str, Any], kinds: Any = layouts.INSTRUCTIONS
) -> tuple[list[dict[str, Any]], Counter[str]]:
    dropped: Counter[str] = Counter()
    placed = [(f"made-up.json, row {number}", record) for number, record in enumerate(records, 1)]
    kind = rows.instructions if reader in kinds else rows.pairs
    return list(kind(placed, reader, CARD, dropped)), dropped


@pytest.mark.parametrize(
    ("reader", "record"),
    [
        ("alpaca", {"instruction": "Hi", "input": "", "output": "Hello."}),
        ("alpaca", {"instruction": "Hi", "output": "Hello."}),
        ("alpaca", {"instruction": "Hi", "input": "Noinput", "output": "Hello."}),
        ("sharegpt", {"conversations": [HUMAN, GPT]}),
        ("messages", {"messages": [USER, ASSISTANT]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ASSISTANT], "tools": []}),
        ("prompt-completion", {"prompt": "Hi", "completion": "Hello."}),
        ("prompt-completion", {"prompt": [USER], "completion": [ASSISTANT]}),
        ("gsm8k", {"question": "Hi", "answer": "Hel<<1+1=2>>lo."}),
        ("kto", {"messages": [USER, ASSISTANT], "label": True}),
        ("kto", {"prompt": "Hi", "completion": "Hello.", "label": True}),
    ],
)
def test_every_layout_becomes_the_same_conversation(reader: str, record: dict[str, Any]) -> None:
    found, dropped = read(reader, record)
    assert found == [
        {
            "id": "made-up-1",
            "messages": [USER, ASSISTANT],
            "source": "made-up",
            "language": "en",
            "domain": "instruction",
        }
    ]
    assert not dropped


def test_the_input_of_an_alpaca_row_follows_its_instruction() -> None:
    found, _ = read("alpaca", {"instruction": "Add.", "input": "1 and 2", "output": "3"})
    assert found[0]["messages"][0]["content"] == "Add.\n\n1 and 2"


@pytest.mark.parametrize(
    ("reader", "record"),
    [
        ("sharegpt-pairs", {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "No."}}),
        ("message-pairs", {"chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No."}]}),
        ("text-pairs", {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}),
        ("prompt-pairs", {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}),
        ("prompt-pairs", {"prompt": [USER], "chosen": [ASSISTANT], "rejected": {"role": "assistant", "content": "No."}}),
        (
            "prompt-pairs",
            {"prompt": "Hi", "chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "No."}]},
        ),
        (
            "transcript-pairs",
            {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
        ),
    ],
)
def test_every_layout_becomes_the_same_pair(reader: str, record: dict[str, Any]) -> None:
    found, _ = read(reader, record)
    assert found == [
        {
            "id": "made-up-1",
            "prompt": "Hi",
            "chosen": "Hello.",
            "rejected": "No.",
            "reason": "labelled",
            "language": "en",
            "domain": "instruction",
        }
    ]


@pytest.mark.parametrize(
    ("reader", "record", "complaint"),
    [
        ("alpaca", {"instruction": "Hi"}, "output is missing"),
        ("alpaca", {"instruction": 3, "output": "3"}, "instruction is int"),
        ("alpaca", {"instruction": "\ud800", "output": "3"}, "surrogate"),
        ("sharegpt", {"conversations": []}, "not a list of turns"),
        ("sharegpt", {"conversations": [HUMAN, {"from": "observation", "value": "{}"}]}, "observation"),
        ("sharegpt", {"conversations": [HUMAN, HUMAN]}, "by turns"),
        ("sharegpt", {"conversations": [HUMAN, GPT, HUMAN]}, "ending in assistant"),
        ("messages", {"messages": ["Hi"]}, "a turn is str"),
        ("sharegpt-pairs", {"conversations": [HUMAN], "chosen": HUMAN, "rejected": GPT}, "chosen is said by user"),
        ("message-pairs", {"chosen": [USER, ASSISTANT], "rejected": [ASSISTANT]}, "two last answers"),
        ("text-pairs", {"prompt": "Hi", "chosen": "Hello."}, "rejected is missing"),
        ("messages", {"messages": [USER, {"role": "tool", "content": "4"}]}, "'tool' is no speaker"),
        ("messages", {"messages": [USER, {"role": "assistant", "content": None}]}, "content is NoneType"),
        ("messages", {"messages": [USER, {**ASSISTANT, "weight": 0}]}, "weight 0"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ASSISTANT]},
            "'image_url', not text",
        ),
        ("prompt-completion", {"prompt": "Hi"}, "completion is missing"),
        ("prompt-completion", {"prompt": [ASSISTANT], "completion": "a"}, "assistant, assistant"),
        ("kto", {"messages": [USER, ASSISTANT], "label": "yes"}, "label is 'yes'"),
        ("kto", {"messages": [USER, ASSISTANT]}, "label is None"),
        ("prompt-pairs", {"prompt": "Hi", "chosen": [USER], "rejected": "b"}, "two last answers"),
        ("prompt-pairs", {"prompt": "Ho", "chosen": [USER, ASSISTANT], "rejected": "b"}, "two last answers"),
        ("transcript-pairs", {"chosen": "Hi", "rejected": "Hi"}, "begins with `Human:`"),
        (
            "transcript-pairs",
            {"chosen": "Human: Hi\n\nAssistant: a", "rejected": "Human: Ho\n\nAssistant: b"},
            "two last answers",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_file_and_row(reader: str, record: dict[str, Any], complaint: str) -> None:
    good = {
        "alpaca": {"instruction": "Hi", "output": "Hello."},
        "sharegpt": {"conversations": [HUMAN, GPT]},
        "messages": {"messages": [USER, ASSISTANT]},
        "sharegpt-pairs": {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
        "message-pairs": {"chosen": [USER, ASSISTANT], "rejected": [USER, ASSISTANT]},
        "text-pairs": {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        "prompt-completion": {"prompt": "Hi", "completion": "Hello."},
        "kto": {"messages": [USER, ASSISTANT], "label": True},
        "prompt-pairs": {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        "transcript-pairs": {"chosen": "Human: Hi\n\nAssistant: a", "rejected": "Human: Hi\n\nAssistant: b"},
    }[reader]
    with pytest.raises(DataError, match=r"made-up\.json, row 2.*" + complaint):
        read(reader, good, record)


def test_judged_answers_are_learnt_if_they_are_good_and_paired_if_there_is_one_of_each() -> None:
    judged = [
        ("Hi", "Hello.", True),
        ("Ho", "No.", False),
        ("Hi", "No.", False),
        ("Hi", "Never.", False),
        ("Ho", "Hey.", True),
    ]
    records = [{"prompt": prompt, "completion": said, "label": good} for prompt, said, good in judged]
    found, dropped = read("kto", *records)
    assert [row["messages"][1]["content"] for row in found] == ["Hello.", "Hey."]
    assert dropped == {"answer marked bad": 3}
    pairs, dropped = read("kto", *records, kinds=())
    assert [(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("Hi", "Hello.", "No."),
        ("Ho", "Hey.", "No."),
    ]
    assert dropped == {"no answer of the other verdict": 1}


def test_rows_without_an_answer_are_left_out_and_counted() -> None:
    empty = {"instruction": "Hi", "output": " \n"}
    found, dropped = read("alpaca", empty, {"instruction": "Hi", "output": "Hello."}, empty)
    assert [row["id"] for row in found] == ["made-up-2"]
    assert dropped == {"empty assistant turn": 2}


def test_pairs_that_say_nothing_are_left_out_and_counted() -> None:
    no = {"from": "gpt", "value": "No."}
    found, dropped = read(
        "sharegpt-pairs",
        {"conversations": [{"from": "system", "value": "Be brief."}, HUMAN], "chosen": GPT, "rejected": no},
        {"conversations": [HUMAN, GPT, HUMAN], "chosen": GPT, "rejected": no},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": ""}},
        {"conversations": [HUMAN], "chosen": GPT, "rejected": no},
    )
    assert len(found) == 1
    assert dropped == {"system turn": 1, "several turns": 1, "equal answers": 1, "empty turn": 1}


def test_the_same_records_come_out_of_every_kind_of_file(tmp_path: Path) -> None:
    wanted = [{"text": "one"}, {"text": "二"}]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in wanted)
    (tmp_path / "a.json").write_text(json.dumps(wanted), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "lines.json").write_text(lines, encoding="utf-8")  # some call it so
    (tmp_path / "named.json").write_text(json.dumps({"data": wanted}), encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(wanted), tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        found = list(rows.records(path, ["text"]))
        assert [record for _, record in found] == wanted
        assert [where for where, _ in found] == [f"{path}, row 1", f"{path}, row 2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"text": \n'),
        ("a.jsonl", b'{"text": "one"}\n[1]\n'),
        ("a.jsonl.gz", gzip.compress(b'{"text": "one"}\n' * 50, mtime=0)[:-12]),
        ("a.jsonl.gz", FLIPPED),
        ("a.json", b'{"text"'),
        ("a.json", b'[{"text": "one"}, '),
        ("a.json", b'[{"text": "one"} {"text": "two"}]'),
        ("a.json", b""),
        ("a.json", b'[{"text": "one"}] more'),
        ("a.jsonl.xz", lzma.compress(b'{"text": "one"}\n' * 50)[:-12]),
        ("a.jsonl", b"\xff\xfe\n"),
        ("a.parquet", b"PAR1"),
        ("a.xlsx", b""),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}"):
        list(rows.records(tmp_path / name))


def test_lists_by_two_names_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"train": [{"text": "one"}], "test": [{"text": "two"}]}), encoding="utf-8")
    assert [set(record) for _, record in rows.records(tmp_path / "a.json", ["text"])] == [{"train", "test"}]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_list_that_is_read_in_pieces_is_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    wanted = [{"text": 'a "]" b' * i, "number": i * 1e9, "list": [i, [None, {}]]} for i in range(40)] + [{"text": "二"}]
    (tmp_path / "a.json").write_text(json.dumps(wanted, indent=1, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(rows, "CHUNK", chunk)
    assert [record for _, record in rows.records(tmp_path / "a.json")] == wanted
