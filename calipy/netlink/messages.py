"""Netlink messages (RFC 3549; linux/netlink.h, struct nlmsghdr): headers, answers, refusals."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Iterator

from msgspec import Struct

from calipy.netlink import attributes as nla

_HEADER = struct.Struct("=IHHII")
HEADER_SIZE = _HEADER.size
_SEQUENCE = 8
"""Where the sequence number stands in a header."""
_ERROR_NUMBER = struct.Struct("=i")

NOOP, ERROR, DONE, OVERRUN = 1, 2, 3, 4
REQUEST, MULTI, ACK, ECHO, DUMP_INTERRUPTED, DUMP_FILTERED = 1, 2, 4, 8, 16, 32
DUMP = 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_CAPPED, _EXTENDED = 0x100, 0x200
_EXTENDED_MESSAGE = 1


class Message(Struct, frozen=True, gc=False):
    """A message to the kernel, without length and sequence number: those are the sender's."""

    kind: int
    flags: int
    body: bytes


class Series(Struct, frozen=True, gc=False):
    """The same messages for each of many objects, which differ in one field of each body alone: a name, say.

    Objects by the thousand differ in little else, and a message made by itself costs a microsecond: here one object's
    are repeated as they are, and the words that differ are put into all of them at a time.
    """

    messages: tuple[Message, ...]
    """Those of one object. They share its sequence number."""
    place: int
    """Where in each body the field begins, in bytes: on a whole word."""
    fields: bytes
    """All objects' fields, each as long and of whole words."""
    count: int

    def pack(self, first_sequence: int, *, acknowledge: bool = False) -> bytearray:
        """All of them as bytes, the objects numbered from `first_sequence`."""
        one, fields = b"", list[tuple[int, nla.Data]]()
        sequence = memoryview(array("I", range(first_sequence, first_sequence + self.count)))
        for message in self.messages:
            fields += [(len(one) + _SEQUENCE, sequence), (len(one) + HEADER_SIZE + self.place, self.fields)]
            one += pack((message,), 0, acknowledge=acknowledge)
        return nla.repeated(one, self.count, fields)


class Packet(Struct, frozen=True, gc=False):
    """A message from the kernel. `port` is the socket that caused a notification, 0 = the kernel itself."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: memoryview


class Refusal(Struct, frozen=True, gc=False):
    """The kernel's no: which of the messages sent (-1: none in particular), errno, and its words or errno's."""

    index: int
    errno: int
    text: str

    def error(self) -> OSError:
        """The same as an exception."""
        return OSError(self.errno, self.text)


class Interrupted(Exception):
    """What was dumped changed meanwhile (NLM_F_DUMP_INTR): dump again."""


class Overrun(Exception):
    """Notifications were lost (ENOBUFS): read everything anew."""


def numbers(messages: Iterable[Message | Series]) -> int:
    """How many sequence numbers they take."""
    return sum(message.count if isinstance(message, Series) else 1 for message in messages)


def pack(messages: Iterable[Message | Series], first_sequence: int, *, acknowledge: bool = False) -> bytes:
    """Messages as bytes, numbered from `first_sequence`."""
    flags = REQUEST | (ACK if acknowledge else 0)
    parts: list[bytes | bytearray] = []
    sequence = first_sequence
    for message in messages:
        if isinstance(message, Series):
            parts.append(message.pack(sequence, acknowledge=acknowledge))
            sequence += message.count
            continue
        length = HEADER_SIZE + len(message.body)
        parts.append(_HEADER.pack(length, message.kind, message.flags | flags, sequence & 0xFFFFFFFF, 0))
        parts.append(message.body)
        if length & 3:
            parts.append(b"\0" * (4 - (length & 3)))
        sequence += 1
    return b"".join(parts)


def unpack(data: bytes) -> Iterator[Packet]:
    """The messages in a datagram."""
    view = memoryview(data)
    offset = 0
    while offset + HEADER_SIZE <= len(view):
        length, kind, flags, sequence, port = _HEADER.unpack_from(view, offset)
        if length < HEADER_SIZE or offset + length > len(view):
            raise ValueError(f"netlink message {kind} of {length} bytes at {offset} of {len(view)}")
        yield Packet(kind, flags, sequence, port, view[offset + HEADER_SIZE : offset + length])
        offset += (length + 3) & ~3


def refusal_of(packet: Packet, index: int) -> Refusal | None:
    """The refusal in an error message; None if it is an acknowledgement."""
    number = -int(_ERROR_NUMBER.unpack_from(packet.body)[0])
    if number == 0:
        return None
    text = ""
    if packet.flags & _EXTENDED:
        offset = 4 + HEADER_SIZE
        if not packet.flags & _CAPPED:
            (length,) = struct.unpack_from("=I", packet.body, 4)
            offset = 4 + ((length + 3) & ~3)
        found = nla.attributes(packet.body[offset:])
        if _EXTENDED_MESSAGE in found:
            text = nla.as_text(found[_EXTENDED_MESSAGE])
    reason = os.strerror(number)
    return Refusal(index, number, f"{reason}: {text}" if text else reason)
