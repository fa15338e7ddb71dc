"""What no merge may cross: the family's pre-tokenizer, and a fast cut of text into what is counted before it.

A newline stands alone, a word or a run of marks takes at most one space before it, Chinese, Japanese and Korean are cut
from the rest, every digit is a piece of its own.
"""

from __future__ import annotations

import re

from tokenizers import Regex, pre_tokenizers

# Cased scripts only, 2,729 code points. In escapes on purpose: any Unicode normalisation of the characters themselves
# breaks the ranges, partly without an error.
LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
SPLITS = (
    r"[\r\n]",
    rf"\s?[{LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
)

# -- the fast cut -----------------------------------------------------------------------------------------------------

WHITE = "\t\x0b\x0c \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # `\s` within a line; Python's has more
LATIN = "A-Za-z\uff21-\uff3a\uff41-\uff5a"  # the third split cuts a word between these and other letters
HAN = "\u4e00-\u9fa5"
JOINED = "\u0800-\u2017\u2020-\u2fff\u3003-\u4dff\u9fa6-\ud7ff"  # may stand in one piece with a Han character beside it
APART = f"(?:(?<![{JOINED}{WHITE}])|(?<=[!-~] ))"  # where Han characters begin a piece whatever the text before them is
PIECE = re.compile(
    rf"[{WHITE}]?[{LATIN}]+|[\r\n]|{APART}[{HAN}]++(?![{JOINED}])"
    # What is left. Its parts hang together: where it is cut depends on all of it.
    rf"|(?:[^{WHITE}{HAN}{LATIN}\r\n]+|[{WHITE}](?![{LATIN}])|(?!{APART})[{HAN}]++|[{HAN}]++(?=[{JOINED}]))+"
)
# A piece that is one word already. The fifth split takes white space above U+0800 from a word.
WHOLE = re.compile(rf"[\t\x0b\x0c \x85\xa0]?[{LATIN}]+|[{HAN}]+|[\r\n]")
KEPT = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that are their own symbol (GPT-2)
SYMBOLS = dict(zip([*KEPT, *sorted({*range(256)} - {*KEPT})], [*KEPT, *range(256, 324)], strict=True))


def pieces(text: str) -> list[str]:
    """Cut a text into parts that the pre-tokenizer cuts alone as it cuts them within the text, ten times as fast.

    English words and most Chinese ones are whole already; the parts repeat, so that few are left to be cut further.
    """
    return PIECE.findall(text)


def symbols(text: str) -> str:
    """Write a text in the alphabet that has a symbol for each byte."""
    return text.encode().decode("latin-1").translate(SYMBOLS)


def words(piece: str, cut: pre_tokenizers.Sequence) -> list[str]:
    """Cut a piece into words, written in that alphabet."""
    if WHOLE.fullmatch(piece):
        return [symbols(piece)]
    return [word for word, _ in cut.pre_tokenize_str(piece)]


def pre_tokenizer(digits: str = "split") -> pre_tokenizers.Sequence:
    """Build the pre-tokenizer of the family's tokenizer.json; with `merged`, the digits of a number may join."""
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in SPLITS]
    numbers = pre_tokenizers.Digits(individual_digits=digits == "split")
    return pre_tokenizers.Sequence([*splits, numbers, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
