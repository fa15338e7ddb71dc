"""Mathematical expressions as answers: read one out of text, and say whether two mean the same. Pure functions.

The order of reading is DeepSeek-Math's: "The final answer is $...$. I hope it is correct." (Minerva), the last
`\\boxed{}`, what follows the last "answer is". Equality is one spelling for each of the ways in which MATH's answers are
written (as Hendrycks et al., 2021), and equal value where both are plain numbers or fractions. No computer algebra:
2(x+1) and 2x+2 count as different, so a score is a lower bound.
"""

from __future__ import annotations

import re
from fractions import Fraction

from alignment.verify import answers

_HOPE = re.compile(r"final answer is:?\s*(.+?)\.? I hope", re.DOTALL | re.IGNORECASE)
_SAID = re.compile(r"(?:\banswer is|答案(?:是|为))\s*[:：]?\s*(\S[^\n]*)", re.IGNORECASE)
_END = re.compile(r"(?<!\d)\.(?:\s|$)|\.$|。|(?<=\d)\.(?=\s+[A-Z])")

_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|quad|big|Big)(?![a-zA-Z])|\\[!,;: ]|\\\$|\$|\\%|%|\^\s*\{?\s*\\circ\s*\}?|\\degree|~"
)
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|boxed)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d})])\s*\\(?:text|mathrm|mbox)\s*\{\s*[a-zA-Z][^{}]*\}(?:\^\{?\d\}?)?\s*$")
_NAMED = re.compile(r"^[a-zA-Z]{1,2}\s*(?:=|\\in(?![a-z]))\s*(?=\S)")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_SHORT_FRACTION = re.compile(
    r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])|\\frac\s*([0-9a-zA-Z])\s*(?=\{)|(\\frac\{[^{}]*\})\s*(\w)"
)
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_SLASH = re.compile(r"(-?)(\d+)/(\d+)")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}")
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+)")


def read(text: str) -> str | None:
    """The expression that an answer announces, as it is written there; None where it announces none."""
    if found := _HOPE.search(text):
        return _stripped(found[1])
    if inside := boxed(text):
        return _stripped(inside)
    said = _SAID.findall(text)
    return _stripped(_END.split(said[-1])[0]) if said else None


def read_or_last_number(text: str) -> str | None:
    """The same, or else the last number in the text."""
    return read(text) or answers.last_number(text)


def boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{}`, with its own braces."""
    at = text.rfind("\\boxed{")
    if at < 0:
        return None
    begin = at + len("\\boxed{")
    depth = 1
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin:end]
    return None


def same(left: str | None, right: str) -> bool:
    """Whether two expressions are one up to spelling, or have the same value as plain numbers."""
    if left is None:
        return False
    ours, theirs = canonical(left), canonical(right)
    return ours == theirs or (_value(ours) is not None and _value(ours) == _value(theirs))


def canonical(expression: str) -> str:
    """One spelling: no spacing, sizes, units, currency or degree marks; whole fractions and roots."""
    text = answers.plain(expression).replace("\u2212", "-").replace("\n", " ").strip()
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\[()\[\]]", "", text)
    text = _UNIT.sub("", text)
    for _ in range(2):  # a box in a text, a text in a box
        text = _WRAPPED.sub(r"\1", text)
    text = _NAMED.sub("", _DROPPED.sub("", text).strip())
    text = _THOUSANDS.sub("", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _SHORT_FRACTION.sub(_whole_fraction, text))
    text = re.sub(r"\s+", "", text).rstrip(".")
    text = re.sub(r"(?<![\d])\.(?=\d)", "0.", text)
    if plain := _SLASH.fullmatch(text):
        text = f"{plain[1]}\\frac{{{plain[2]}}}{{{plain[3]}}}"
    return text


def _whole_fraction(found: re.Match[str]) -> str:
    if found[1]:
        return f"\\frac{{{found[1]}}}{{{found[2]}}}"
    return f"\\frac{{{found[3]}}}" if found[3] else f"{found[4]}{{{found[5]}}}"


def _value(canonical_text: str) -> Fraction | None:
    if found := _FRACTION.fullmatch(canonical_text):
        return None if int(found[3]) == 0 else Fraction(int(f"{found[1]}1") * int(found[2]), int(found[3]))
    return Fraction(canonical_text) if _NUMBER.fullmatch(canonical_text) else None


def _stripped(text: str) -> str | None:
    inner = text.strip()
    if inner.startswith("$") and "$" in inner[1:]:
        inner = inner[1 : inner.index("$", 1)]
    return inner.strip().strip("*").strip() or None
