"""Netlink attributes (linux/netlink.h, struct nlattr): type-length-value, padded to four bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

_HEADER = struct.Struct("=HH")
HEADER_SIZE = _HEADER.size
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_ENDS = (b"\0", b"\0\0\0\0", b"\0\0\0", b"\0\0")
"""A string's NUL and padding, by the length of the attribute."""
_WORD = 4
NESTED = 0x8000
_TYPE_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""

_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")
_U64 = struct.Struct("=Q")
_BE16 = struct.Struct(">H")
_BE32 = struct.Struct(">I")
_BE64 = struct.Struct(">Q")

Data = bytes | memoryview
_REMEMBERED = 1024
"""So many small attributes of each type are kept: a batch repeats a few of them thousands of times."""


def attribute(kind: int, payload: Data) -> bytes:
    """One attribute."""
    length = len(payload)
    return b"".join((_HEADER.pack(length + 4, kind), payload, _PADDING[length & 3]))


def padding(length: int) -> bytes:
    """What fills a payload up to whole words."""
    return _PADDING[length & 3]


def nested(kind: int, *attributes_: bytes) -> bytes:
    """An attribute made of attributes."""
    payload = b"".join(attributes_)
    return _HEADER.pack(len(payload) + 4, kind | NESTED) + payload


def string(kind: int, text: str) -> bytes:
    """A NUL-terminated string."""
    payload = text.encode()
    length = len(payload) + 5
    return _HEADER.pack(length, kind) + payload + _ENDS[length & 3]


def strings(texts: Sequence[bytes]) -> bytes:
    """The payloads of `string` for texts of one length, one behind the other."""
    end = _ENDS[len(texts[0]) + 5 & 3]
    return end.join((*texts, b""))


def u8(kind: int, value: int) -> bytes:
    """8 bits."""
    return attribute(kind, bytes((value,)))


@lru_cache(_REMEMBERED)
def u32(kind: int, value: int) -> bytes:
    """32 bits, host order."""
    return attribute(kind, _U32.pack(value & 0xFFFFFFFF))


def be16(kind: int, value: int) -> bytes:
    """16 bits, network order."""
    return attribute(kind, _BE16.pack(value))


@lru_cache(_REMEMBERED)
def be32(kind: int, value: int) -> bytes:
    """32 bits, network order; negative numbers in two's complement."""
    return attribute(kind, _BE32.pack(value & 0xFFFFFFFF))


@lru_cache(_REMEMBERED)
def be64(kind: int, value: int) -> bytes:
    """64 bits, network order."""
    return attribute(kind, _BE64.pack(value))


def address(kind: int, text: str) -> bytes:
    """An IPv4 or IPv6 address."""
    return attribute(kind, pack_address(text))


def pack_address(text: str) -> bytes:
    """4 or 16 bytes of an address. Raises OSError for a text that is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def repeated(one: Data, count: int, fields: Iterable[tuple[int, Data]]) -> bytearray:
    """`one` so many times, each with a field of its own at each of these places. A field is given by all its values,
    one behind the other. All are of whole words: they are copied a word of all at a time, which costs next to nothing.
    """
    many = bytearray(one) * count
    words, step = memoryview(many).cast("I"), len(one) // _WORD
    for place, values in fields:
        found = memoryview(values).cast("B").cast("I")
        width = len(found) // count
        for word in range(width):
            words[place // _WORD + word :: step] = found[word::width]
    return many


def each(data: Data) -> Iterator[tuple[int, memoryview]]:
    """The attributes of a payload in order. Raises ValueError where it is cut off."""
    view = memoryview(data)
    offset, end = 0, len(view)
    while offset + 4 <= end:
        length, kind = _HEADER.unpack_from(view, offset)
        if length < 4 or offset + length > end:
            raise ValueError(f"netlink attribute {kind} of {length} bytes at {offset} of {end}")
        yield kind & _TYPE_MASK, view[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: Data) -> dict[int, memoryview]:
    """The attributes of a payload by type; of several of one type the last. Raises ValueError where it is cut off."""
    view, unpack = memoryview(data), _HEADER.unpack_from  # as `each`, but for the hottest path: no generator
    found: dict[int, memoryview] = {}
    offset, end = 0, len(view)
    while offset + 4 <= end:
        length, kind = unpack(view, offset)
        if length < 4 or offset + length > end:
            raise ValueError(f"netlink attribute {kind} of {length} bytes at {offset} of {end}")
        found[kind & _TYPE_MASK] = view[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def as_u32(data: Data) -> int:
    """32 bits, host order."""
    return int(_U32.unpack_from(data)[0])


def as_s32(data: Data) -> int:
    """32 bits with sign, host order."""
    return int(_S32.unpack_from(data)[0])


def as_be16(data: Data) -> int:
    """16 bits, network order."""
    return int(_BE16.unpack_from(data)[0])


def as_be32(data: Data) -> int:
    """32 bits, network order."""
    return int(_BE32.unpack_from(data)[0])


def as_be64(data: Data) -> int:
    """64 bits, network order."""
    return int(_BE64.unpack_from(data)[0])


def as_text(data: Data) -> str:
    """A string, with or without its NUL."""
    return bytes(data).rstrip(b"\0").decode(errors="replace")


def as_address(data: Data) -> str:
    """An address of 4 or 16 bytes, canonical text."""
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def as_mac(data: Data) -> str:
    """A hardware address, `ee:ee:ee:ee:ee:ee`; empty where there is none."""
    return bytes(data).hex(":")
