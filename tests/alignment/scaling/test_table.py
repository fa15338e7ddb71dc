"""Results of others: read strictly, comparable or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.errors import DataError
from alignment.scaling import table


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_table_of_c_n_d_and_loss_is_read(tmp_path: Path) -> None:
    rows = table.read([written(tmp_path, "C,N,D,loss\n6e18,1e9,1e9,2.5\n6e18,5e8,2e9,2.6\n")])
    assert [(row.budget, row.scale, row.tokens, row.loss) for row in rows] == [(6e18, 6e9, 1e9, 2.5), (6e18, 3e9, 2e9, 2.6)]
    assert rows[0].data == "all"


@pytest.mark.parametrize(("head", "line"), [
    ("C,N,loss", "6e18,1e9,2.5"), ("M,D,loss", "6e9,1e9,2.5"), ("C,M,loss,note", "6e18,6e9,2.5,x"),
])  # fmt: skip
def test_what_follows_from_c_is_m_times_d_is_filled_in(tmp_path: Path, head: str, line: str) -> None:
    (row,) = table.read([written(tmp_path, f"{head}\n{line}\n")])
    assert (row.budget, row.scale, row.tokens) == (6e18, 6e9, 1e9)


@pytest.mark.parametrize(("text", "complaint"), [
    ("C,N,D\n1,1,1\n", "row 1: no loss"),
    ("N,loss\n1,1\n", "row 1: no budget|no tokens"),
    ("C,N,D,loss\n1,1,x,1\n", "row 1: tokens: 'x' is not a number"),
    ("C,N,D,loss\n0,1,1,1\n", "budget 0 is not above 0"),
    ("C,M,loss\n1,0,2\n", "scale 0 is not above 0"),
    ("C,N,D,loss\nnan,1,1,1\n", "budget nan is not above 0 and finite"),
    ("C,N,D,loss\n1,inf,1,1\n", "parameters inf is not above 0 and finite"),
    ("C,N,D,loss\n1,1,1,-2\n", "loss -2 is not above 0"),
    ("C,N,D,loss,seed\n1,1,1,1,nan\n", "seed: 'nan' is not a whole number"),
    ("C,N,D,loss\n", "no rows"),
])  # fmt: skip
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        table.read([written(tmp_path, text)])


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Run the sweep to its end"):
        table.read([tmp_path])
    with pytest.raises(DataError, match="head line"):
        table.read([written(tmp_path, "{", "t.jsonl")])
    with pytest.raises(DataError, match=r"t\.jsonl, row 2: not an object but list"):
        table.read([written(tmp_path, '{"C": 1, "N": 1, "loss": 1}\n[1, 2]\n', "t.jsonl")])
    (tmp_path / "t.csv").write_bytes(b"C,N\xff")
    with pytest.raises(DataError, match="head line"):
        table.read([tmp_path / "t.csv"])


def test_losses_of_different_tokenizers_are_refused_but_not_bits_per_byte(tmp_path: Path) -> None:
    head = "C,N,D,{},tokenizer\n6e18,1e9,1e9,2.5,a\n6e18,5e8,2e9,2.6,b\n"
    with pytest.raises(DataError, match=r"different tokenizers \(a, b\)"):
        table.read([written(tmp_path, head.format("loss"))])
    assert len(table.read([written(tmp_path, head.format("bits_per_byte"))])) == 2
    mixed = written(tmp_path, "C,N,D,loss\n6e18,1e9,1e9,2.5\n", "m.csv")
    with pytest.raises(DataError, match="some rows have bits_per_byte, others loss"):
        table.read([mixed, written(tmp_path, head.format("bits_per_byte"))])


def test_runs_that_diverged_are_excluded_by_name(tmp_path: Path) -> None:
    lines = [
        {"run": "good", "C": 1e18, "M": 1e9, "bits_per_byte": 1.0},
        {"run": "wild", "C": 1e18, "M": 1e9, "bits_per_byte": 7.0, "diverged": True},
        {"run": "none", "C": 1e18, "M": 1e9, "bits_per_byte": "nan"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    kept, excluded = table.learnt(table.read([written(tmp_path, text, "t.jsonl")]))
    assert [row.run for row in kept] == ["good"]
    assert excluded == ["wild", "none"]


def test_rows_written_are_rows_read(tmp_path: Path) -> None:
    rows = table.read([written(tmp_path, "C,N,D,bits_per_byte,seed,data\n6e18,1e9,1e9,0.9,3,clean\n")])
    table.write(tmp_path / table.ROWS, rows)
    assert table.read([tmp_path]) == rows
