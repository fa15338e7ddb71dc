"""Plain values as bytes, for pipes between processes of which one is not trusted. Never pickle: reading runs no code.

None, booleans, numbers, text, bytes, lists, tuples, sets and dicts cross, nested; a subclass crosses as what it is
underneath, so that an `__eq__` of its own stays behind. Anything else is `Unplain`. A frame is a length (four bytes,
big end first) and one value. No imports but `os`: this is loaded once for every program judged.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` would cost as much as the interpreter's own start
if TYPE_CHECKING:
    from typing import Any

FRAME_BYTES = 1 << 22
SINGLE = {b"N": None, b"T": True, b"F": False}
MANY = {b"l": list, b"t": tuple, b"e": set, b"z": frozenset}


class Unplain(TypeError):
    """A value that cannot cross."""


def encode(value: object) -> bytes:
    """Write a value down."""
    parts: list[bytes] = []
    try:
        _write(value, parts)
    except RecursionError:
        raise Unplain("a value nested too deep, or in itself") from None
    return b"".join(parts)


def decode(data: bytes) -> Any:
    """Read a value back; ValueError for anything that `encode` would not have written."""
    try:
        value, end = _read(data, 0)
    except (RecursionError, TypeError, OverflowError) as error:  # too deep; unhashable in a set
        raise ValueError(f"not a plain value: {error}") from None
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the value")
    return value


def send(fd: int, value: object) -> None:
    """Write one frame."""
    value_bytes = encode(value)
    data = memoryview(len(value_bytes).to_bytes(4, "big") + value_bytes)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int, most_bytes: int = FRAME_BYTES) -> Any:
    """Read one frame; EOFError when the other side has gone, ValueError when it talks nonsense or too much."""
    length = int.from_bytes(_exactly(fd, 4), "big")
    if length > most_bytes:
        raise ValueError(f"a frame of {length} bytes")
    return decode(_exactly(fd, length))


def _exactly(fd: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = os.read(fd, length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _write(value: object, parts: list[bytes]) -> None:
    if value is None or value is True or value is False:
        parts.append(b"N" if value is None else b"T" if value else b"F")
    elif isinstance(value, int):
        parts.append(b"i%s;" % int.__format__(value, "x").encode())  # hexadecimal: linear time, no limit of digits
    elif isinstance(value, float):
        parts.append(b"f%s;" % float.__repr__(value).encode())
    elif isinstance(value, complex):
        parts.append(b"c")
        _write(value.real, parts)
        _write(value.imag, parts)
    elif isinstance(value, str):
        text = str.encode(value, "utf-8", "surrogatepass")
        parts += (b"s%d;" % len(text), text)
    elif isinstance(value, (bytes, bytearray)):
        parts += (b"b%d;" % len(value), bytes(value))
    elif isinstance(value, dict):
        parts.append(b"d%d;" % dict.__len__(value))
        for key, item in dict.items(value):
            _write(key, parts)
            _write(item, parts)
    else:
        for tag, kind in MANY.items():
            if isinstance(value, kind):
                parts.append(b"%s%d;" % (tag, kind.__len__(value)))
                for item in kind.__iter__(value):
                    _write(item, parts)
                return
        raise Unplain(f"a {type(value).__name__}, which is no plain value")


def _read(data: bytes, at: int) -> tuple[Any, int]:
    tag = data[at : at + 1]
    if tag in SINGLE:
        return SINGLE[tag], at + 1
    if tag == b"c":
        real, at = _read(data, at + 1)
        imag, at = _read(data, at)
        return complex(real, imag), at
    end = data.index(b";", at)
    word, at = data[at + 1 : end], end + 1
    if tag == b"i":
        return int(word, 16), at
    if tag == b"f":
        return float(word), at
    count = int(word)
    if count < 0:
        raise ValueError("a negative length")
    if tag in (b"s", b"b"):
        text = data[at : at + count]
        if len(text) < count:
            raise ValueError("a text cut short")
        return (text if tag == b"b" else text.decode("utf-8", "surrogatepass")), at + count
    if tag == b"d":
        pairs = {}
        for _ in range(count):
            key, at = _read(data, at)
            pairs[key], at = _read(data, at)
        return pairs, at
    if tag not in MANY:
        raise ValueError(f"no value begins with {tag!r}")
    items = []
    for _ in range(count):
        item, at = _read(data, at)
        items.append(item)
    return MANY[tag](items), at
