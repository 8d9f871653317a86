"""Netlink messages (RFC 3549; linux/netlink.h, struct nlmsghdr): headers, answers, refusals."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

from msgspec import Struct

from calipy.netlink import attributes as nla

_HEADER = struct.Struct("=IHHII")
HEADER_SIZE = _HEADER.size
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


def pack(messages: Iterable[Message], first_sequence: int, *, acknowledge: bool = False) -> bytes:
    """Messages as bytes, numbered from `first_sequence`."""
    extra = REQUEST | (ACK if acknowledge else 0)
    parts = []
    for sequence, message in enumerate(messages, first_sequence):
        length = HEADER_SIZE + len(message.body)
        parts.append(_HEADER.pack(length, message.kind, message.flags | extra, sequence & 0xFFFFFFFF, 0))
        parts.append(message.body)
        if length & 3:
            parts.append(b"\0" * (4 - (length & 3)))
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
