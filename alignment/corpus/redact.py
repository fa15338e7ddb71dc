"""What is taken out of a document that stays: lines that are no text (C4), and personal information, masked by kind.

A number counts as an identity card, a bank account or a credit card only where its check digits are right, so that most
other numbers stay. Reserved names (example.com) and `git@` are nobody's address.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from ipaddress import ip_address

from alignment.corpus.documents import Document
from alignment.corpus.measures import ELLIPSES, ENDS, QUOTES
from alignment.corpus.ngrams import CJK
from alignment.corpus.reading import CHARACTERS_PER_WORD, CODE
from alignment.sieve import Filters

Edit = Callable[[Document], tuple[Document, Counter[str]]]

SHORT = 3  # words; C4's
POLICY = (
    *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),  # C4's
    *("隐私政策", "使用条款", "服务条款", "版权所有", "未经授权不得转载"),
)
FINISHED = {*ENDS, *QUOTES}  # single characters
LONG_CHINESE = re.compile(f"(?:[^{CJK}]*[{CJK}]){{{SHORT * CHARACTERS_PER_WORD}}}")

DIGITS = re.compile(r"\d[\d\-. ()]{5,}\d|\d[A-Z]{4}\d{6}")  # without one there is no number to mask
EMAIL = re.compile(r"(?<![\w.%+-])([A-Za-z0-9][\w.%+-]{0,63})@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])")
PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}"  # China, mobile
    r"|(?:\+?86[ -]?)?0\d{2,3}-\d{7,8}"  # China, by line
    r"|(?:\+?1[-. ])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}"  # North America
    r"|\+[2-9]\d{0,2}[ -]?(?:\(0\))?\d{1,4}(?:[ -]?\d{2,4}){2,4}"  # abroad
    r")(?![\w-]|\.\d)"
)
CHINESE_ID = re.compile(r"(?<!\w)[1-9]\d{5}(?:19|20)\d{9}[\dXx](?!\w)")
SOCIAL_SECURITY = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
ACCOUNT = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}(?:(?:[ -]?\d{4}){2}[ -]?\d{1,7}|[ -]?\d{6}[ -]?\d{5})(?![\w-]|\.\d)")
IP = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
RESERVED = re.compile(r"(?i)(?:^|\.)(?:example\.(?:com|org|net)|example|invalid|test|localhost)$")


def editor(words: Filters) -> Edit:
    """Make what cuts and masks a document, and counts what it took; the same document where there is nothing."""
    cut, masks = set[str](words.cut_lines), [name for name in MASKS if name in words.mask]

    def edit(document: Document) -> tuple[Document, Counter[str]]:
        text, counts = document.text, Counter[str]()
        if cut and CODE not in document.domain:
            text = cut_lines(text, cut, counts)
        for name in masks:
            text = MASKS[name](text, counts)
        return (document if text == document.text else replace(document, text=text)), counts

    return edit


def cut_lines(text: str, cut: set[str], counts: Counter[str]) -> str:
    """Cut the lines that one of the named rules takes (C4), and join what stays."""
    whole = text.lower()
    script = "javascript" in cut and "javascript" in whole
    phrases = [phrase for phrase in POLICY if "policy" in cut and phrase in whole]
    kept = []
    for line in map(str.strip, text.splitlines()):
        if "unfinished" in cut and (line[-1:] not in FINISHED or line.endswith(ELLIPSES)):
            counts["cut line: unfinished"] += 1
        elif "short" in cut and _short(line):
            counts["cut line: short"] += 1
        elif script and "javascript" in line.lower():
            counts["cut line: javascript"] += 1
        elif phrases and any(phrase in line.lower() for phrase in phrases):
            counts["cut line: policy"] += 1
        else:
            kept.append(line)
    return "\n".join(kept).strip()


def _short(line: str) -> bool:
    return len(line.split(maxsplit=SHORT)) < SHORT and not LONG_CHINESE.match(line)


def _emails(text: str, counts: Counter[str]) -> str:
    return _masked(EMAIL, "email", text, counts, _somebody) if "@" in text else text


def _somebody(found: re.Match[str]) -> bool:
    return found[1].lower() != "git" and not RESERVED.search(found[2])


def _phones(text: str, counts: Counter[str]) -> str:
    return _masked(PHONE, "phone", text, counts) if DIGITS.search(text) else text


def _ids(text: str, counts: Counter[str]) -> str:
    if not DIGITS.search(text):
        return text
    text = _masked(CHINESE_ID, "id", text, counts, chinese_id)
    text = _masked(SOCIAL_SECURITY, "id", text, counts)
    return _masked(ACCOUNT, "id", text, counts, account)


def _cards(text: str, counts: Counter[str]) -> str:
    return _masked(CARD, "card", text, counts, luhn) if DIGITS.search(text) else text


def _addresses(text: str, counts: Counter[str]) -> str:
    return _masked(IP, "ip", text, counts, _public)


def _public(found: re.Match[str]) -> bool:
    try:
        return ip_address(found[0]).is_global
    except ValueError:  # a number above 255: a version, not an address
        return False


MASKS: dict[str, Callable[[str, Counter[str]], str]] = {  # in this order: a longer number before a part of it
    "id": _ids,
    "card": _cards,
    "phone": _phones,
    "email": _emails,
    "ip": _addresses,
}


def chinese_id(found: re.Match[str]) -> bool:
    """Whether date and check digit of a resident identity number are right (GB 11643-1999, ISO 7064 mod 11-2)."""
    number = found[0]
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    remainder = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17])) % 11
    return number[17].upper() == "10X98765432"[remainder]


def account(found: re.Match[str]) -> bool:
    """Whether the check digits of an international bank account number are right (ISO 13616, mod 97)."""
    number = found[0].replace(" ", "")
    return 15 <= len(number) <= 34 and int("".join(str(int(sign, 36)) for sign in number[4:] + number[:4])) % 97 == 1


def luhn(found: re.Match[str]) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812)."""
    digits = [int(sign) for sign in found[0] if sign.isdigit()][::-1]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[::2]) + doubled) % 10 == 0


def _masked(
    pattern: re.Pattern[str],
    name: str,
    text: str,
    counts: Counter[str],
    real: Callable[[re.Match[str]], bool] = lambda _: True,
) -> str:
    def mask(found: re.Match[str]) -> str:
        if not real(found):
            return found[0]
        counts[f"masked {name}"] += 1
        return f"[{name}]"

    return pattern.sub(mask, text)
