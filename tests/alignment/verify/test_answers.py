"""Reading answers out of text: tables to argue with."""

from __future__ import annotations

import pytest

from alignment.verify import answers


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("so 3 + 4 = 7.", "7"),
        ("The answer is 1,250 dollars", "1250"),
        ("it costs $2.50", "2.5"),
        ("a loss of -$30", "-30"),
        ("5-3", "3"),
        ("x = -3", "-3"),
        ("(4)-2", "2"),
        ("1,2,3", "3"),
        ("１２ 个苹果", "12"),
        ("一共12个。", "12"),
        ("0.50", "0.5"),
        ("-0", "0"),
        ("\u22128 degrees", "-8"),
        ("it covers 12 m²", "12"),
        ("I cannot say.", None),
        ("", None),
    ],
)
def test_the_last_number_is_the_answer(text, read):
    assert answers.last_number(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2 + 2 = <<2+2=4>>4\n#### 4", "4"),
        ("#### $1,000", "1000"),
        ("####  -7\n\nQuestion: 3 + 5", "-7"),
        ("#### 4\n\nQ: next\n#### 9", "4"),
        ("The answer is 18. Then 3 more.", "18"),
        ("the final answer is **12**", "12"),
        ("The answer is $\\boxed{42}$", "42"),
        ("Answer: 5", "5"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("所以答案是：36。", "36"),
        ("答案为 1,024", "1024"),
        ("The answer is 5 + 7 = 12.", "12"),
        ("the answer is $3 x $4 = $12", "12"),
        ("The answer is 18. 3 + 4 = 7", "18"),
        ("So \\boxed{12} apples, of 40.", "12"),
        ("\\boxed{1{,}250 \\text{ dollars}}", "1250"),
        ("there are 5 apples", None),
        ("####", None),
    ],
)
def test_strict_extraction_wants_the_answer_to_be_announced(text, read):
    assert answers.gsm8k(text) == read


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [("1,000", "1000", True), ("5.0", "5", True), ("5.1", "5", False), (None, "5", False), ("five", "5", False)],
)
def test_numbers_are_compared_by_value(left, right, same):
    assert answers.same_number(left, right) is same


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("答案：B", "B"),
        ("答案是C。", "C"),
        ("正确答案为 (D)", "D"),
        ("故选A。", "A"),
        ("所以应该选择B", "B"),
        ("Answer: B", "B"),
        ("The answer is (C).", "C"),
        ("**Answer:** D", "D"),
        ("The answer is not A. Answer: B", "B"),
        ("$\\boxed{C}$", "C"),
        ("B", "B"),
        ("(C)", "C"),
        ("B. Paris", "B"),
        (" D\nbecause", "D"),
        ("Ａ", "A"),
        ("Because it is cold.\nC.", "C"),
        ("B。", "B"),
        ("B，因为天冷", "B"),
        ("正确的选项是B", "B"),
        ("The correct option is B", "B"),
        ('"B"', "B"),
        ("“B”", "B"),
        ("选项B正确，选项A错误", "B"),
        ("选项A错误", None),
        ("选A是错的", None),
        ("不选C", None),
        ("不应该选择C，答案是D", "D"),
        ("A, B or C", None),
        ("Option A is wrong", None),
        ("A cat sat on the mat", None),
        ("Answer: E", None),
        ("Answer: Because", None),
        ("", None),
    ],
)
def test_the_letter_chosen_is_read(text, read):
    assert answers.choice(text) == read


BODY = "    return a + b\n"
PROMPT = 'import math\n\n\ndef helper(x):\n    return x\n\n\ndef add(a, b):\n    """Add."""\n'
HEAD = PROMPT[: PROMPT.index("def add")]
WHOLE = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        (BODY, PROMPT + BODY),
        (BODY + "\ndef other():\n    pass\n", PROMPT + BODY),
        (BODY + "\nprint(add(1, 2))", PROMPT + BODY),
        (BODY + "\n# Test\nassert add(1, 2) == 3", PROMPT + BODY),
        (BODY + "```\nThis adds.", PROMPT + BODY),
        (f"Sure:\n```python\n{WHOLE}```\nDone.", HEAD + WHOLE),
        (f"```\n{BODY}```", PROMPT + BODY),
        (f"```python\n{WHOLE}", HEAD + WHOLE),
        (f"```bash\nls\n```\n```python\n{WHOLE}```", HEAD + WHOLE),
        (f"Here you are.\n{WHOLE}", HEAD + WHOLE),
        ("    return max(\n        a,\n        b,\n)\n", PROMPT + "    return max(\n        a,\n        b,\n)\n"),
        ("", None),
        ("```python\n```", None),
    ],
)
def test_an_answer_becomes_a_whole_program(answer, program):
    assert answers.program(PROMPT, answer, "add") == program


def test_a_prompt_in_prose_is_not_part_of_the_program():
    assert answers.program("Write add.", f"```python\n{WHOLE}```", "add") == WHOLE
    assert answers.program("Write add.", WHOLE, "add") == WHOLE


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I can't help with that.", True),
        ("I’m sorry, but I cannot assist with this request.", True),
        ("I won't provide instructions for that.", True),
        ("Sorry, I am not able to help.", True),
        ("I must decline.", True),
        ("抱歉，我不能提供这方面的帮助。", True),
        ("我无法回答这个问题。", True),
        ("对不起，这件事不能告诉你。", True),
        ("Sure! First you boil the water.", False),
        ("I'm sorry to hear that. Here is what helps:", False),
        ("You cannot divide by zero.", False),
        ("I can't stress enough how good it is.", False),
        ("我会一步一步地说明。", False),
        ("Here is the recipe. " * 20 + "I cannot say more.", False),
        ("", False),
    ],
)
def test_a_refusal_is_told_from_an_answer(text, refused):
    assert answers.declines(text) is refused


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("one two three four five six seven eight nine ten", 0.0, 0.0),
        ("the cat " * 50, 0.9, 1.0),
        ("我不知道" * 30, 0.9, 1.0),
        ("a b c d e f g h a b c d e f g h", 0.3, 0.5),
    ],
)
def test_repetition_is_the_share_of_grams_seen_before(text, low, high):
    assert low <= answers.repetition(text) <= high


def test_of_a_short_text_no_repetition_is_said():
    assert answers.repetition("short short short") is None


@pytest.mark.parametrize(("units", "looping"), [
    (list("abc" * 8), True),
    (list("xyz" + "abc" * 8), True),
    (list("abc" * 7), False),  # 21 units: too few to be sure
    (list("abc" * 8 + "x"), False),  # it got out again
    ([7] * 24, True),
    ([7] * 23, False),
    (list(range(40)) * 3, True),  # a long stretch, three times
    (list(range(40)) * 2, False),
    (list(range(40)) * 3 + list(range(17)), True),  # cut within the next time
    (list(range(200)), False),
    ([], False),
])  # fmt: skip
def test_an_answer_loops_where_its_end_is_one_stretch_three_times_over(units: list[object], looping: bool) -> None:
    assert answers.loops(units) == looping
