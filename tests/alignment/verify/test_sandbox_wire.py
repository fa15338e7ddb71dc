"""Plain values as bytes: what is written is read back, and nothing else is read."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.verify import wire

NUMBERS = st.integers() | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text() | st.binary()
KEYS = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(KEYS, inner, max_size=4) | st.sets(KEYS, max_size=4),
    max_leaves=12,
)


def same(left: object, right: object) -> bool:
    """Equal, and of equal types all the way down: 1, 1.0 and True are three values."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    return left == right


@given(VALUES)
@settings(deadline=None, max_examples=50)
def test_a_value_is_read_back_as_it_was_written(value: object):
    assert same(wire.decode(wire.encode(value)), value)


@given(st.binary(max_size=60) | st.text("NTFifscbletzd;0123456789-[(", max_size=40).map(str.encode))
@settings(deadline=None, max_examples=200)
def test_whatever_the_bytes_reading_ends_in_a_value_or_a_value_error(data: bytes):
    try:
        value = wire.decode(data)
    except ValueError:
        return
    wire.encode(value)


FOREIGN = [
    b"", b"N" * 2, b"i;", b"i5", b"ig;", b"x3;", b"s-3;abc", b"s5;abc", b"s1;\xff", b"l-1;", b"l3;NN", b"l99999999999;",
    b"d1;N", b"d1;l0;N", b"e1;l0;", b"cNN", b"f;", b"fx;", b"l1;" * 100_000, b"s99999999999999999999;",
]  # fmt: skip


@pytest.mark.parametrize("data", FOREIGN, ids=lambda data: repr(data[:20]))
def test_what_was_not_written_by_us_is_not_read(data: bytes):
    with pytest.raises(ValueError, match=r".") as caught:
        wire.decode(data)
    assert type(caught.value) in (ValueError, UnicodeDecodeError)


def test_a_subclass_crosses_as_what_it_is_underneath():
    class Number(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Items(list):
        def __iter__(self):
            return iter([7])

    got = wire.decode(wire.encode([Number(1), Items([2, 3])]))
    assert got == [1, [2, 3]]
    assert [type(item) for item in got] == [int, list]


@pytest.mark.parametrize(
    "value", [object(), int, len, iter([]), range(3), {1: [object()]}], ids=lambda one: type(one).__name__
)
def test_what_is_not_plain_does_not_cross(value: object):
    with pytest.raises(wire.Unplain, match="no plain value"):
        wire.encode(value)


def test_what_holds_itself_does_not_cross():
    value: list[object] = []
    value.append(value)
    with pytest.raises(wire.Unplain, match="too deep"):
        wire.encode(value)


def test_frames_larger_than_a_pipe_arrive_whole_and_in_order():
    hear, tell = os.pipe()
    values = ["x" * 300_000, [1], None]
    writer = threading.Thread(target=lambda: [wire.send(tell, value) for value in values])
    writer.start()
    assert [wire.receive(hear) for _ in values] == values
    writer.join()
    os.close(tell)
    with pytest.raises(EOFError):
        wire.receive(hear)
    os.close(hear)


def test_a_frame_that_announces_too_much_is_refused_unread():
    hear, tell = os.pipe()
    os.write(tell, b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="4294967295 bytes"):
        wire.receive(hear)
    os.close(tell)
    os.close(hear)
