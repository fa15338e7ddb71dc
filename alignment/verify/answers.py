"""Read an answer out of text. Pure functions: None means that no answer could be read, which is not a wrong answer.

The papers do not print their extraction rules; these follow the published relatives (GSM8K's own `####`, DeepSeek-Math's
"last 'he answer is'", DeepSeek-Coder's first fenced block, HumanEval's completion form) and are argued with in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from decimal import Decimal, InvalidOperation

# A sign belongs to a number only where nothing stands before it that it could subtract from.
NUMBER = r"(?:(?<![\w)])[-\u2212]\$?)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_NUMBER = re.compile(NUMBER)
_HASHES = re.compile(rf"####[ \t*$]*({NUMBER})")
_SUM = rf"(?:{NUMBER}(?: *[-+*/×÷x\u2212] *\$?{NUMBER})+ *= *\$?)?"  # "the answer is 5 + 7 = 12" says 12
_SAID = re.compile(
    rf"(?:\b(?:the|final) answer is|\banswer:|答案(?:是|为|:))[\s:*$\\(]*(?:boxed)?[{{\s$]*{_SUM}({NUMBER})", re.IGNORECASE
)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}

_LETTER = r"[\s*(\[{$\"'“‘「]*(?:\\boxed\{)?([A-Z])(?![A-Za-z0-9])(?! *(?:项)?(?:是|为)?(?:错|不|排除))"
_NOT = "".join(rf"(?<!{word})" for word in ("不", "不应", "不能", "不可", "不会", "不要", "不应该", "别"))
_CHOICES = (
    re.compile(rf"(?i:answer(?:\s+is)?|\b(?:option|choice)\s+is)\s*[:*]*{_LETTER}"),
    re.compile(rf"(?:答案\**(?:应该|应)?(?:是|为|选)?|选项(?:应该|应)?(?:是|为))\s*[:*]*{_LETTER}"),
    re.compile(rf"{_NOT}(?:选择?(?:选项)?|[是为]选项)\s*[:*]*{_LETTER}"),
    re.compile(rf"选项{_LETTER}(?= *是?(?:正确|对))"),
    re.compile(r"\\boxed\{\s*(?:\\text\{)?([A-Z])\}"),
)
_BARE = re.compile(r"[\s*(\[\"'“‘「]*([A-Z])(?:[)\].、。:;*\"'”’」]|,(?!\s*[A-Z]\b)|\s*(?:\n|$))")

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:[ \t]*\n)*(?: {2,}|\t)\S")  # an answer that begins inside the function
_TOP = re.compile(r"""\n(?=[A-Za-z_@#`]|\"\"\"|'''|<)""")  # what begins at the left edge is no part of the body

_DECLINES = (
    re.compile(
        r"\b(?:i|we)(?:['\u2019]m| am| are)? ?(?:sorry,? (?:but )?(?:i|we) )?(?:really |simply )?"
        r"(?:can['\u2019]?t|cannot|can not|won['\u2019]?t|will not|must not|(?:am |are )?(?:not able|unable) to|"
        r"(?:must|have to) (?:decline|refuse)|decline to|refuse to)\b"
        r"(?! *(?:stress|say|wait|emphasi[sz]e|overstate|recommend (?:it|this) enough)\b)"
    ),
    re.compile(r"\b(?:it['\u2019]s|it is) not (?:something i can|appropriate for me)|\bnot able to (?:help|assist|provide)"),
    re.compile(
        r"(?:我|本人|这个问题我)(?:们)?(?:真的|恐怕|暂时)?(?:不能|无法|不可以|不会|没办法|没有办法|拒绝)(?!说不|确定)"
    ),
    re.compile(r"^(?:非常|很|十分)?(?:抱歉|对不起|遗憾)[^。!\n]{0,12}(?:不能|无法|不可以|不会|没办法)"),
)
_OPENING = 160  # a refusal says so at once; later it is a caveat inside an answer


def plain(text: str) -> str:
    """Full-width digits, letters and punctuation as ASCII. Nothing else changes: 12 m² must not become 12 m2."""
    return text.translate(_FULL_WIDTH)


def canonical(number: str) -> str:
    """One spelling per value: no thousands separators, no trailing zeros."""
    value = Decimal(re.sub(r"[,$\s]", "", plain(number)).replace("\u2212", "-"))
    text = format(value.normalize(), "f")
    return "0" if text in ("-0", "0") else text


def same_number(left: str | None, right: str) -> bool:
    """Whether two numerals mean the same value; text that is no number equals nothing."""
    try:
        return left is not None and canonical(left) == canonical(right)
    except InvalidOperation:
        return False


def last_number(text: str) -> str | None:
    """The last number in the text (flexible extraction)."""
    found = _NUMBER.findall(plain(text))
    return canonical(found[-1]) if found else None


def gsm8k(text: str) -> str | None:
    """The number after the first `####`, else in the last box, else after the last "The answer is" (strict extraction)."""
    text = plain(text)
    if found := _HASHES.search(text):
        return canonical(found[1])
    boxed = _BOXED.findall(text)
    if boxed and (inside := last_number(boxed[-1].replace("{,}", ","))):
        return inside
    said = _SAID.findall(text)
    return canonical(said[-1]) if said else None


def choice(text: str, letters: str = "ABCD") -> str | None:
    """The letter chosen: the last one said to be the answer, else a bare letter that opens or closes the text."""
    text = plain(text)
    said = [(m.start(1), m[1]) for pattern in _CHOICES for m in pattern.finditer(text) if m[1] in letters]
    if said:
        return max(said)[1]
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (lines[0], lines[-1]) if lines else ():
        if (bare := _BARE.match(line)) and bare[1] in letters:
            return bare[1]
    return None


def fenced(text: str) -> str | None:
    """The first fenced block, preferring one marked as Python; an unclosed block runs to the end."""
    blocks = [(language.lower(), body) for language, body in _FENCE.findall(text)]
    python = [body for language, body in blocks if language in ("python", "py", "python3")]
    return next(iter(python or [body for _, body in blocks]), None)


def program(prompt: str, answer: str, entry_point: str) -> str | None:
    """The whole program an answer to a code problem stands for; None for an empty answer.

    A block (or bare text) that defines the function is kept whole, behind the prompt's imports and helpers; anything
    else continues the prompt, and ends before the first line that leaves the function's body.
    """
    inner = fenced(prompt)  # a chat turn shows the function in a block
    prompt = prompt if inner is None else inner + "\n"
    block = None if _INDENTED.match(answer) else fenced(answer)
    code = answer if block is None else block
    if not code.strip():
        return None
    define = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    head = define.search(prompt)
    if define.search(code):
        if block is None:  # talk before the code, where there is no fence, is cut
            code = code[_code_start(code) :]
        return (prompt[: head.start()] if head else "") + code.rstrip() + "\n"
    if head is None:
        return code.rstrip() + "\n"  # the prompt is a sentence, so there is nothing to continue
    return prompt + completion(code)


def completion(text: str) -> str:
    """The part of a continuation that still belongs to the function begun in the prompt."""
    cut = _TOP.search(text)
    return (text[: cut.start()] if cut else text).rstrip() + "\n"


def declines(text: str) -> bool:
    """Whether the opening of an answer refuses the request, in English or Chinese."""
    opening = text.strip()[:_OPENING].lower()
    return any(pattern.search(opening) for pattern in _DECLINES)


def repetition(text: str, n: int = 4) -> float | None:
    """Share of n-grams that were already there: 0 for a text that never repeats, near 1 for one that loops.

    Units are words, and single characters where words are not spaced (Chinese). Under 2n units nothing is said: None.
    """
    units = re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+", text)
    if len(units) < 2 * n:
        return None
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    return 1 - len(set(grams)) / len(grams)


def loops(units: Sequence[Hashable], times: int = 3, least: int = 24) -> bool:
    """Whether an answer ends in the same stretch `times` over, together `least` units or more.

    Of an answer that did not stop, it is what the paper calls repetition (section 4): a text that is looped. Units are
    its tokens.
    """
    return any(
        list(units[-tail:-period]) == list(units[-(tail - period) :])
        for period in range(1, len(units) // times + 1)
        if (tail := max(times * period, least)) <= len(units)
    )


def _code_start(text: str) -> int:
    first = re.search(r"^(?:def |async def |import |from \w[\w.]* import |class |@)", text, re.MULTILINE)
    return first.start() if first else 0
