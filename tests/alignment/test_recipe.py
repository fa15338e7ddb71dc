"""Recipes are strict, and every complaint names file, field and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment import recipe
from alignment.errors import RecipeError

DPO = """
stage: dpo
start: {run: sft}
data: [{run: preferences}]
optim: {learning_rate: 5e-6, batch_size: 16, warmup: 0.1}
max_length: 256
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dpo.yaml"
    path.write_text(DPO, encoding="utf-8")
    return path


def test_five_e_minus_six_is_a_number(file: Path) -> None:
    found = recipe.load(file, ["beta=2E-1"])
    assert isinstance(found, recipe.DPO)
    assert found.optim.learning_rate == 5e-6
    assert found.beta == 0.2


@pytest.mark.parametrize(
    ("edit", "field", "hint"),
    [
        ("optim.learning_rat=1", "optim.learning_rat", "'learning_rate'"),
        ("betta=0.1", "betta", "'beta'"),
        ("data.0.rowz=3", "data.0.rowz", "'rows'"),
        ("stage=dpoo", "stage", "'dpo'"),
        ("optim.batch_size=many", "optim.batch_size", "'many'"),
        ("optim.batch_size=0", "optim.batch_size", "greater than 0"),
        ("start={run: sft, hub: a/b, revision: unpinned}", "start", "exactly one"),
        ("start={hub: a/b, revision: main}", "start.revision", "'main'"),
        ("start={hub: a/b}", "start", "revision"),
        ("data=[]", "data", "at least 1"),
        ("max_length=null", "max_length", "None"),
        ("max_length=yes", "max_length", "True"),
        ("max_length='256'", "max_length", "'256'"),
        ("beta=yes", "beta", "True"),
        ("beta=.inf", "beta", "finite"),
        ("beta=.nan", "beta", "finite"),
        ("optim.warmup=1", "optim.warmup", "less than 1"),
        ("stage=[dpo]", "stage", "not a stage"),
        ("fits=[]", "fits", "at least 1"),
        ("data.0.limit_bytes=3", "data.0.limit_bytes", "unknown field"),  # a word for raw text
    ],
)
def test_a_complaint_names_file_field_and_way_out(file: Path, edit: str, field: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe.load(file, [edit])
    assert str(file) in str(error.value)
    assert f"{field}:" in str(error.value)
    assert hint in str(error.value)


def test_a_missing_field_is_named(file: Path) -> None:
    file.write_text(DPO.replace("max_length: 256", ""), encoding="utf-8")
    with pytest.raises(RecipeError, match="max_length: missing"):
        recipe.load(file)


def test_a_key_may_stand_only_once(file: Path) -> None:
    file.write_text(DPO + "max_length: 128\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="line 7: 'max_length' stands twice"):
        recipe.load(file)


CURRICULUM = "stage: curriculum\ndocuments: 1\ninstructions: 1\nproblems: 1\nheldout_problems: 1\nheldout_items: 1\n"


CORPUS = "stage: corpus\ndata: [{card: a}]\nbytes: 1\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (CURRICULUM + "shares: {math: 0, code: 0}", "shares: must add up to 1, and these to 0"),
        (CURRICULUM + "shares: {}", "shares: .*at least 1 item"),
        (CORPUS + "shares: {web: 0.5, book: 0.3}", "shares: must add up to 1, and these to 0.8"),
        (CORPUS + "shares: {web: 1}\nlanguages: {en: 1, zh: 1}", "languages: must add up to 1, and these to 2"),
        (CORPUS + "shares: {}", "shares: .*at least 1 item"),
    ],
)
def test_shares_are_those_of_a_whole(file: Path, text: str, complaint: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=complaint):
        recipe.load(file)


def test_shares_may_be_rounded_or_unset(file: Path) -> None:
    file.write_text(CORPUS + "shares: {web: 0.33, book: 0.33, code: 0.33}\nlanguages: {}\n", encoding="utf-8")
    assert recipe.load(file).model_dump()["languages"] == {}


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "stage: [", "a: b: c", "\tstage: dpo", "[1]: 2", "{a: 1}: 2", "seed: 2024-13-45", "- " * 5000]
)
def test_what_is_no_recipe_is_refused(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"dpo\.yaml"):
        recipe.load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        recipe.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("edit", ["beta", "=3", "optim..x=1", "data.7.rows=1", "max_length.x=1"])
def test_an_edit_that_cannot_be_applied_is_refused(file: Path, edit: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        recipe.load(file, [edit])


def test_nothing_changes_after_loading(file: Path) -> None:
    found = recipe.load(file)
    with pytest.raises(ValueError, match="frozen"):
        found.seed = 3  # type: ignore[misc]


def test_a_recipe_names_the_runs_it_reads(file: Path) -> None:
    assert recipe.load(file).runs() == {"sft", "preferences"}
