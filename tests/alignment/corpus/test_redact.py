from collections import Counter

import pytest

from alignment.corpus import redact
from alignment.corpus.documents import Document
from alignment.sieve import Filters

ALL = ("email", "phone", "id", "card", "ip")


def edited(text, domain="prose", **words):
    document, counts = redact.editor(Filters(**words))(Document("1", text, domain, "en", "here"))
    return document.text, counts


@pytest.mark.parametrize(
    ("text", "masked", "name"),
    [
        ("Write to ann.lee+x@mail.uni-ulm.de, please.", "Write to [email], please.", "email"),
        ("联系人zhang@qq.com。", "联系人zhang@qq.com。", None),  # Chinese letters run into the address: not told apart
        ("联系 zhang@qq.com。", "联系 [email]。", "email"),
        ("clone git@github.com:a/b, ask me@example.com", "clone git@github.com:a/b, ask me@example.com", None),
        ("电话 13812345678。", "电话 [phone]。", "phone"),
        ("电话：+86 138 1234 5678", "电话：[phone]", "phone"),
        ("tel 010-62345678", "tel [phone]", "phone"),
        ("call (415) 555-2671 or", "call [phone] or", "phone"),
        ("call +44 20 7946 0958 now", "call [phone] now", "phone"),
        ("in 1.13812345678e5 and x13812345678", "in 1.13812345678e5 and x13812345678", None),
        ("身份证 11010519491231002X 号", "身份证 [id] 号", "id"),
        ("no card: 110105194912310021", "no card: 110105194912310021", None),  # wrong check digit
        ("no date: 110105194913310021", "no date: 110105194913310021", None),
        ("SSN 078-05-1120.", "SSN [id].", "id"),
        ("not 000-05-1120", "not 000-05-1120", None),
        ("IBAN GB82 WEST 1234 5698 7654 32 ok", "IBAN [id] ok", "id"),
        ("pay 4111 1111 1111 1111 now", "pay [card] now", "card"),
        ("pay 378282246310005 now", "pay [card] now", "card"),
        ("pay 4111 1111 1111 1112 now", "pay 4111 1111 1111 1112 now", None),  # Luhn says no
        ("from 8.8.8.8 to 192.168.0.1, version 1.2.3.4.5", "from [ip] to 192.168.0.1, version 1.2.3.4.5", "ip"),
    ],
)
def test_what_names_a_person_is_masked_and_counted_and_other_numbers_stay(text, masked, name):
    found, counts = edited(text, mask=ALL)
    assert found == masked
    assert counts == (Counter({f"masked {name}": 1}) if name else Counter())


def test_only_the_kinds_that_are_named_are_masked_and_an_untouched_document_is_the_same():
    assert edited("a@b.org 13812345678", mask=("phone",))[0] == "a@b.org [phone]"
    document = Document("1", "nothing here", "prose", "en", "here")
    assert redact.editor(Filters(mask=ALL))(document)[0] is document


def test_lines_that_are_no_text_are_cut_and_counted_by_rule():
    text = "A whole line of text.\nHome\nPlease enable JavaScript now.\nRead our privacy policy here.\n"
    text += "Short one.\n你好。\nAnd so on..."
    rules = ("unfinished", "short", "javascript", "policy")
    found, counts = edited(text + "\n这一行是完整的文字。", cut_lines=rules)
    assert found == "A whole line of text.\n这一行是完整的文字。"
    assert counts == {"cut line: unfinished": 2, "cut line: short": 2, "cut line: javascript": 1, "cut line: policy": 1}
    assert edited("x = 1\n", domain="code", cut_lines=rules) == ("x = 1\n", Counter())
