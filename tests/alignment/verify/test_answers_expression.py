"""Expressions as answers: tables to argue with, and properties of equality."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import DataError
from alignment.verify import expression, judge
from alignment.verify.problem import Problem


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Final Answer: The final answer is $[2,5)$. I hope it is correct.", "[2,5)"),
        ("The final answer is 2. I hope it is right. The answer is 3.", "2"),
        ("so \\boxed{\\frac{1}{2}} it is, not \\frac{1}{3}", "\\frac{1}{2}"),
        ("\\boxed{1} or rather \\boxed{2}", "2"),
        ("The answer is 3.5. Then", "3.5"),
        ("The answer is $x+1$.", "x+1"),
        ("The answer is 18. We then check.", "18"),
        ("所以答案是：12。", "12"),
        ("\\boxed{unclosed", None),
        ("\\boxed{}", None),
        ("It makes 7.", None),
        ("", None),
    ],
)
def test_an_announced_expression_is_read(text, read):
    assert expression.read(text) == read


def test_the_last_number_is_read_where_nothing_is_announced():
    assert expression.read_or_last_number("It makes 1,007.") == "1007"
    assert expression.read_or_last_number("No idea.") is None


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\frac12", "\\frac{1}{2}"),
        ("0.5", "\\frac{1}{2}"),
        ("1/2", "\\dfrac{1}{2}"),
        ("-\\frac{2}{3}", "-2/3"),
        ("\\frac{3}4", "\\tfrac{3}{4}"),
        ("x=5", "5"),
        ("x \\in [-2,7]", "[-2,7]"),
        ("10,000", "10000"),
        ("1{,}234", "1234"),
        ("\\sqrt3", "\\sqrt{3}"),
        ("\\left(3, \\frac{\\pi}{2}\\right)", "( 3,\\frac{\\pi}{2} )"),
        ("90^\\circ", "90"),
        ("5\\text{ cm}", "5"),
        ("10\\text{ in}^2", "10"),
        ("\\text{Evelyn}", "Evelyn"),
        ("\\text{(C)}", "(C)"),
        ("\\$18.90", "18.9"),
        ("50\\%", "50"),
        (".35", "0.35"),
        ("12.0", "12"),
        ("\\(7\\)", "7"),
        ("１２", "12"),
    ],
)
def test_spellings_of_one_expression_are_the_same(left, right):
    assert expression.same(left, right)
    assert expression.same(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("5", "6"),
        ("\\frac{1}{2}", "\\frac{2}{1}"),
        ("\\frac{1}{0}", "\\frac{2}{0}"),
        ("x+1", "x-1"),
        ("(1,2)", "12"),
        ("1,2", "12"),
        ("[2,5)", "(2,5)"),
        ("x^2", "x2"),
        ("-5", "5"),
        ("", "5"),
        (None, "5"),
    ],
)
def test_different_expressions_are_not_the_same(left, right):
    assert not expression.same(left, right)


@given(st.integers(-10_000, 10_000), st.integers(1, 999))
def test_a_fraction_equals_itself_however_it_is_written(above, below):
    whole = f"\\frac{{{above}}}{{{below}}}"
    assert expression.same(f"{above}/{below}", whole)
    assert expression.same(f"$\\dfrac{{{above * 3}}}{{{below * 3}}}$", whole)
    assert not expression.same(f"{above + 1}/{below}", whole)


@given(st.text(alphabet="0123456789\\{}()[],.+-*/^_ xyabfrcsqtext$%", max_size=30))
def test_one_spelling_is_final(text):
    once = expression.canonical(text)
    assert expression.same(text, text)
    assert isinstance(once, str)


def test_the_judge_knows_expressions():
    problem = Problem("p", "What is half of 1?", "expression", "\\frac{1}{2}")
    assert judge.verify(problem, "It is $\\boxed{0.5}$.").correct
    assert judge.verify(problem, "It is a third.").read is None
    with pytest.raises(DataError, match="expression without a target"):
        Problem("p", "What?", "expression")
