"""What is said of an experiment's cells: intervals as scipy has them, differences paired by seed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from alignment import findings
from alignment.findings import Cell

SCORES = {("a", 1): [1.0, 2.0, 4.0], ("b", 1): [1.5, 2.4, 4.6], ("a", 10): [3.0, 3.5, 3.1], ("b", 10): [2.0, 2.6, 2.0]}
FIELDS = ["optim.way", "tokens"]
CELLS = [
    Cell({"optim.way": way, "tokens": tokens}, seed, scores[seed])
    for seed in range(3)
    for (way, tokens), scores in SCORES.items()
]


def test_a_mean_has_students_interval() -> None:
    found = findings.interval([1.0, 2.0, 4.0])
    low, high = stats.t.interval(0.95, 2, np.mean([1, 2, 4]), stats.sem([1, 2, 4]))
    assert found.half is not None
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert findings.interval([1.0]).half is None


def test_a_difference_is_paired_by_seed_and_taken_at_equal_other_fields() -> None:
    rows = {row.values: row for row in findings.rows(CELLS)}
    assert rows["a", 1].difference is None
    for tokens in (1, 10):
        difference = rows["b", tokens].difference
        oracle = stats.ttest_rel(SCORES["b", tokens], SCORES["a", tokens]).confidence_interval(0.95)
        assert difference is not None
        assert difference.half is not None
        ends = (difference.mean - difference.half, difference.mean + difference.half)
        assert ends == pytest.approx((oracle.low, oracle.high))
    assert rows["b", 1].score.half > rows["b", 1].difference.half  # type: ignore[operator,union-attr]  # what seeds share


def test_the_order_of_the_cells_does_not_matter_to_the_pairs() -> None:
    backwards = {row.values: row for row in findings.rows([*CELLS[:1], *CELLS[:0:-1]])}
    assert backwards["b", 10].difference == findings.rows(CELLS)[3].difference


def test_table_picture_and_cells_are_written(tmp_path: Path) -> None:
    numbers = findings.write(tmp_path, "bits_per_byte", FIELDS, CELLS)
    assert numbers["b 10"] == pytest.approx(2.2)
    head, _, *rows = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert head.startswith("| way | tokens | seeds | bits_per_byte, mean [95 %] | difference from a")
    assert len(rows) == 4
    assert "| b | 10 | 3 | 2.2000 [" in rows[3]
    assert "| -1.0000 [" in rows[3]
    assert len([json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]) == len(CELLS)
    root = ElementTree.fromstring((tmp_path / "picture.svg").read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")


def test_the_picture_is_the_same_every_time() -> None:
    rows = findings.rows(CELLS)
    assert findings.picture("m", FIELDS, rows) == findings.picture("m", FIELDS, rows)


def test_one_field_of_words_and_one_seed_can_be_drawn(tmp_path: Path) -> None:
    cells = [Cell({"data": name}, 0, score) for name, score in (("split", 0.5), ("merged", 0.25))]
    findings.write(tmp_path, "mini-sums", ["data"], cells)
    assert "| merged | 1 | 0.2500 | -0.2500 |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_values_may_be_lists(tmp_path: Path) -> None:
    turns = [[0.8, 0.9], [0.7, 0.85]]
    cells = [Cell({"optim.turns": turn}, seed, seed + turn[0]) for turn in turns for seed in range(2)]
    means = findings.write(tmp_path, "loss", ["optim.turns"], cells)
    assert means == {"(0.8, 0.9)": pytest.approx(1.3), "(0.7, 0.85)": pytest.approx(1.2)}
    assert "(0.7, 0.85)" in (tmp_path / "table.md").read_text()
