"""Ways to spoil a file: of bytes, of text, of plain values."""

import math
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

__all__ = ["absurd_value", "junk", "mutate_bytes", "mutate_text", "mutate_value"]

LONGEST = 200_000
"""Bytes of a spoilt text: longer ones only take longer."""
NUMBERS = (
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    2**64 - 1,
)
TOKENS = (
    *(bytes([letter]) for letter in b"\0\xff\r\n\t\"',;:|<>&#{}[]\\"), b"\xfe\xff", b"\r\n",
    *b"-1 0 1e999 -1e999 NaN nan inf Infinity null None true 99999999999999999999 "
    b"0x10 1_0 ~root $HOME `id` $(id) %s%n {0}".split(),
    *b"../../../../etc/passwd /etc/passwd /dev/zero <!DOCTYPE &#0; &unknown; <![CDATA[".split(),
    b"\x1b[2J", "\ufeff".encode(), "é".encode("latin-1"), "猫".encode(), "\u202e".encode(),
    "\U0001f408".encode(), b"\xed\xa0\x80",
    b"A" * 5000, b"[" * 3000, b"<a>" * 3000, b"{" * 500, b'{"a":' * 3000, b"- " * 2000,
    b"&a [*a, *a]", b"!!python/object/apply:os.system [id]",
    b"<?xml version='1.0' encoding='utf-16'?>", b"<?xml version='1.0' encoding='x'?>",
)  # fmt: skip


def junk(random: np.random.Generator) -> bytes:
    """Return bytes of no format."""
    size = int(random.choice([0, 1, 7, 64, 1000, 5000]))
    return (
        bytes(random.integers(0, 256, size, dtype=np.uint8))
        if random.random() < 0.7
        else bytes([int(random.integers(256))]) * size
    )


def _flip(data: bytearray, random: np.random.Generator) -> None:
    for _ in range(int(random.choice([1, 1, 2, 8, 64]))):
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))


def _overwrite(data: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(data)))
    size = min(int(random.choice([1, 2, 8, 100])), len(data) - start)
    data[start : start + size] = random.integers(0, 256, size, dtype=np.uint8).tobytes()


def _truncate(data: bytearray, random: np.random.Generator) -> None:
    del data[int(random.integers(len(data) + 1)) :]


def _cut(data: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(data)))
    del data[start : start + int(random.choice([1, 2, 4, 8, 100, 1000]))]


def _swap(data: bytearray, random: np.random.Generator) -> None:
    size = int(random.choice([1, 4, 16, 128, 512]))
    if len(data) > 2 * size:
        one, other = (int(place) for place in random.integers(0, len(data) - size, 2))
        data[one : one + size], data[other : other + size] = (
            data[other : other + size],
            data[one : one + size],
        )


def _repeat(data: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(data)))
    data[start:start] = data[start : start + int(random.choice([1, 16, 300]))] * int(
        random.choice([1, 2, 50])
    )


def _insert(data: bytearray, random: np.random.Generator) -> None:
    start = int(random.integers(len(data) + 1))
    data[start:start] = (
        TOKENS[int(random.integers(len(TOKENS)))]
        if random.random() < 0.5
        else bytes(int(random.choice([1, 4, 400])))
    )


def _length(data: bytearray, random: np.random.Generator) -> None:
    """Write an absurd number where a size might stand, preferably near the beginning."""
    width = int(random.choice([1, 2, 4, 8]))
    reach = min(len(data), 600) if random.random() < 0.6 else len(data)
    start = int(random.integers(max(reach - width, 1)))
    number = int(random.choice(np.array(NUMBERS, object))) % (1 << 8 * width)
    data[start : start + width] = number.to_bytes(
        width, "little" if random.random() < 0.5 else "big"
    )


def _floats(data: bytearray, random: np.random.Generator) -> None:
    """Write a value that is not finite, or huge."""
    code = str(random.choice(["<e", "<f", "<d"]))
    value = float(random.choice([math.nan, math.inf, -math.inf, 6e4]))
    start = int(random.integers(len(data))) & ~1
    data[start : start + struct.calcsize(code)] = struct.pack(code, value)


BYTE_WAYS: Sequence[Callable[[bytearray, np.random.Generator], None]] = (
    _flip, _flip, _overwrite, _truncate, _cut, _swap, _repeat, _insert,
    _length, _length, _length, _floats,
)  # fmt: skip


def mutate_bytes(data: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    """Return a file spoilt in one to four ways; sometimes with the end of another one, or no file
    at all.
    """
    chance = random.random()
    if chance < 0.02:
        return junk(random)
    spoilt = bytearray(data)
    if chance < 0.06:
        other = others[int(random.integers(len(others)))]
        spoilt[int(random.integers(len(spoilt))) :] = other[int(random.integers(len(other))) :]
    for _ in range(int(random.choice([1, 1, 2, 4]))):
        if spoilt:
            BYTE_WAYS[int(random.integers(len(BYTE_WAYS)))](spoilt, random)
    return bytes(spoilt)


def mutate_text(data: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    """Return a text file spoilt as text: its words, lines, line ends and encoding."""
    if random.random() < 0.3:
        return mutate_bytes(data, others, random)
    lines = data.splitlines(keepends=True) or [b""]
    for _ in range(int(random.choice([1, 1, 2, 3]))):
        place = int(random.integers(len(lines)))
        way = int(random.integers(9))
        if way < 3:
            lines[place] = _word(lines[place], random)
        elif way == 3:
            lines.insert(place, lines[int(random.integers(len(lines)))])
        elif way == 4 and len(lines) > 1:
            del lines[place]
        elif way == 5:
            other = int(random.integers(len(lines)))
            lines[place], lines[other] = lines[other], lines[place]
        elif way == 6:
            lines[place] = (
                lines[place].rstrip(b"\r\n")
                + (b"\r", b"\r\n", b"\n\r", b"\0\n", b"", b"\x85", b"\x0b", b"\x1c")[
                    int(random.integers(8))
                ]
            )
        elif way == 7:
            lines[place] = lines[place] * int(random.choice([2, 50, 1000]))
        else:
            lines[place] = TOKENS[int(random.integers(len(TOKENS)))] + lines[place]
    text = b"".join(lines)[:LONGEST]
    if random.random() < 0.1:
        encoding = str(random.choice(["utf-16", "utf-32", "utf-7", "cp037", "utf-8-sig"]))
        return text.decode("latin-1").encode(encoding, "replace")
    return text


def _word(line: bytes, random: np.random.Generator) -> bytes:
    """Put an absurd word in the place of a random stretch of a line."""
    start = int(random.integers(len(line) + 1))
    end = min(start + int(random.choice([0, 1, 3, 8])), len(line))
    return line[:start] + TOKENS[int(random.integers(len(TOKENS)))] + line[end:]


def absurd_value(random: np.random.Generator) -> Any:
    """Return a value that is hardly ever the right one."""
    deep: Any = 1
    for _ in range(int(random.choice([3, 60, 400]))):
        deep = [deep]
    values = [
        None, True, False, 0, -1, 1, 255, 2**31, 2**63, 10**400,
        0.5, -0.5, 1e308, math.nan, math.inf, -math.inf,
        "", "x", "auto", "null", "NaN", "1e999", "../../x", "/etc/passwd",
        "a b", "\0", "\n", "\x1b[2J", "é", "A" * 5000,
        [], [1], ["a", 1], [[]], {}, {"a": 1}, {"": {}}, deep,
    ]  # fmt: skip
    return values[int(random.integers(len(values)))]


def mutate_value(value: Any, random: np.random.Generator) -> Any:
    """Return nested dictionaries and lists with one to three of their parts replaced, removed,
    added or moved.
    """
    value = deepcopy(value)
    for _ in range(int(random.choice([1, 1, 2, 3]))):
        holders = [part for part in _parts(value) if part]
        if not holders:
            return absurd_value(random)
        holder = holders[int(random.integers(len(holders)))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[int(random.integers(len(keys)))]
        way = random.random()
        if way < 0.55:
            holder[key] = absurd_value(random)
        elif way < 0.7:
            del holder[key]
        elif way < 0.85:
            holder[key] = deepcopy(holder[keys[int(random.integers(len(keys)))]])
        elif isinstance(holder, dict):
            holder[
                ("added", "name", key + "x" if isinstance(key, str) else "y")[
                    int(random.integers(3))
                ]
            ] = absurd_value(random)
        else:
            holder.insert(key, absurd_value(random))
    return value


def _parts(value: Any) -> list[Any]:
    """Return all dictionaries and lists in a value."""
    found, waiting = [], [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            found.append(part)
            waiting += part.values() if isinstance(part, dict) else part
    return found
