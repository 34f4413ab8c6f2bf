"""Ways to damage a file: bits, lengths, cuts, doubled pieces, and words that formats give a meaning."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

MOST = 1 << 20  # bytes of a damaged file

OUTSIDE = "doorward-fuzz-outside"  # a file of this name anywhere is one that was written out of its place

_NUMBERS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
_WORDS = (
    b"../../" + OUTSIDE.encode(), b"/tmp/" + OUTSIDE.encode(), b"..", b"/", b"\\", b"\0", b"NaN", b"Infinity", b"-1",
    b"1e999", b"null", b"{}", b"[]", b'""', b"true", b"[" * 200, b'{"a":' * 100, b"\xff\xfe", b"\xed\xa0\x80",
    b"\x1b[31m", "\u202e".encode(), b"9" * 5000, b"999999999", b"-0.5", b"\n", b"\r\n", b'"', b"'", b"%s%n", b"x" * 300,
)  # fmt: skip

Change = Callable[[bytearray, random.Random], bytearray]


def _place(data: bytearray, rng: random.Random) -> int:
    """Anywhere; every second time near the beginning or the end, where headers and tables of contents stand."""
    last = max(0, len(data) - 1)
    where = rng.random()
    near = min(last, 128)
    return rng.randint(0, near) if where < 0.3 else last - rng.randint(0, near) if where < 0.5 else rng.randint(0, last)


def _bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return data


def _bytes(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if data:
            data[_place(data, rng)] = rng.choice((0, 1, 255, 127, 128, rng.randrange(256)))
    return data


def _number(data: bytearray, rng: random.Random) -> bytearray:
    """A length or an offset, as formats write them."""
    kind = rng.choice(("<H", ">H", "<I", ">I", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(kind)
    at = _place(data, rng)
    if len(data) >= size:
        at = min(at, len(data) - size)
        before = struct.unpack_from(kind, data, at)[0]
        value = rng.choice((*_NUMBERS, before + 1, before - 1, before * 2, before + 65_536)) % (1 << 8 * size)
        struct.pack_into(kind, data, at, value)
    return data


def _digits(data: bytearray, rng: random.Random) -> bytearray:
    """A number that is written out: in JSON, in CSV, in octal in a tar."""
    places = [i for i, byte in enumerate(data) if 48 <= byte < 58]
    if not places:
        return _number(data, rng)
    first = last = rng.choice(places)
    while last + 1 < len(data) and 48 <= data[last + 1] < 58:
        last += 1
    new = rng.choice((b"7" * (last - first + 1), *(str(n).encode() for n in _NUMBERS), b"-1", b"0.5", b"1e400"))
    return data[:first] + new + data[last + 1 :]


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: _place(data, rng)]


def _remove(data: bytearray, rng: random.Random) -> bytearray:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 100, 1000)) :]


def _double(data: bytearray, rng: random.Random) -> bytearray:
    at, size = _place(data, rng), rng.choice((1, 4, 16, 64, 512, 1000))
    times = rng.choice((1, 1, 2, 10, 100))
    return data[:at] + data[at : at + size] * times + data[at:]


def _word(data: bytearray, rng: random.Random) -> bytearray:
    at, word = _place(data, rng), rng.choice(_WORDS)
    kept = rng.choice((0, len(word), rng.randint(0, 8)))
    return data[:at] + word + data[at + kept :]


def _swap(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice((1, 4, 16, 512))
    a, b = sorted((_place(data, rng), _place(data, rng)))
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def _zeros(data: bytearray, rng: random.Random) -> bytearray:
    at, size = _place(data, rng), rng.choice((4, 16, 64, 512))
    data[at : at + size] = bytes([rng.choice((0, 255))]) * min(size, len(data) - at)
    return data


_CHANGES: tuple[Change, ...] = (_bits, _bytes, _number, _digits, _cut, _remove, _double, _word, _swap, _zeros)


def damaged(data: bytes, rng: random.Random, mend: Callable[[bytes], bytes] | None = None) -> bytes:
    """The bytes with one to three changes; a format's own checksums are mended every second time."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = rng.choice(_CHANGES)(found, rng)[:MOST]
    whole = bytes(found)
    return mend(whole) if mend is not None and rng.random() < 0.5 else whole


def mended_png(data: bytes) -> bytes:
    """The chunks with checksums that fit."""
    found, at = bytearray(data), 8
    while at + 12 <= len(found):
        size = int.from_bytes(found[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(found):
            break
        found[end : end + 4] = zlib.crc32(found[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(found)


def mended_tar(data: bytes) -> bytes:
    """Headers with checksums that fit."""
    found = bytearray(data)
    for at in range(0, len(found) - 511, 512):
        if found[at + 257 : at + 262] == b"ustar":
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)
