"""SCTP's first two packets: an INIT, and what answers it. Pure bytes; standard library only.

For kernels without SCTP: there a pod's echo process answers on a raw socket, and a probe asks on one. It is a
conversation that firewalls and connection tracking take for the beginning of an association; it goes no further.
Source: RFC 9260, sections 3.1 to 3.3.3, 3.3.7, 5.1, 6.8, 8.4, 8.5.1 and appendix A.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Set
from typing import NamedTuple

INIT, INIT_ACK, ABORT = 1, 2, 6
PROTOCOL = 132
_HEADER = struct.Struct(">HHI")  # without the checksum, which is written little-endian
_INIT = struct.Struct(">IIHHI")
_COOKIE = 7
_WINDOW, _STREAMS = 65536, 1
_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, reflected."""


class Malformed(ValueError):
    """Bytes that are no SCTP packet: says why."""


class Chunk(NamedTuple):
    """A chunk, without its padding."""

    kind: int
    value: bytes = b""
    flags: int = 0


class Packet(NamedTuple):
    """A packet. `tag`: the verification tag; an INIT has 0."""

    source: int
    destination: int
    tag: int
    chunks: tuple[Chunk, ...]


def kernel_speaks() -> bool:
    """True where the kernel has SCTP of its own: then sockets are to be used. Loads its module where there is one."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOL).close()
    except OSError:
        return False
    return True


def crc32c(data: bytes) -> int:
    """The checksum of RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(map(_entry, range(256)))


def encode(packet: Packet) -> bytes:
    """Its bytes, without an IP header."""
    head = _HEADER.pack(packet.source, packet.destination, packet.tag)
    body = b"".join(map(_chunk, packet.chunks))
    return head + struct.pack("<I", crc32c(head + bytes(4) + body)) + body


def _chunk(chunk: Chunk) -> bytes:
    return (
        struct.pack(">BBH", chunk.kind, chunk.flags, 4 + len(chunk.value)) + chunk.value + bytes(-len(chunk.value) % 4)
    )


def decode(data: bytes) -> Packet:
    """A packet from its bytes, without an IP header. Raises Malformed, also for a wrong checksum."""
    if len(data) < 12:
        raise Malformed(f"{len(data)} bytes are no SCTP packet")
    source, destination, tag = _HEADER.unpack_from(data)
    (said,) = struct.unpack_from("<I", data, 8)
    found = crc32c(data[:8] + bytes(4) + data[12:])
    if said != found:
        raise Malformed(f"the checksum is {said:#010x}, and should be {found:#010x}")
    return Packet(source, destination, tag, tuple(_chunks(data[12:])))


def _chunks(data: bytes) -> Iterator[Chunk]:
    while data:
        if len(data) < 4:
            raise Malformed(f"{len(data)} bytes are no chunk")
        kind, flags, length = struct.unpack_from(">BBH", data)
        if not 4 <= length <= len(data):
            raise Malformed(f"a chunk says it has {length} bytes, of {len(data)}")
        yield Chunk(kind, data[4:length], flags)
        data = data[length + -length % 4 :]


def ask(source: int, destination: int, tag: int) -> Packet:
    """The INIT of a probe. `tag`: its initiate tag, not 0; the answer carries it."""
    return Packet(source, destination, 0, (Chunk(INIT, _INIT.pack(tag, _WINDOW, _STREAMS, _STREAMS, tag)),))


def answer(packet: Packet, listening: Set[int], tag: int) -> Packet | None:
    """What a host says that listens on these ports: INIT ACK, ABORT on another port, nothing to what is no good INIT.
    `tag`: its own initiate tag."""
    if packet.tag or len(packet.chunks) != 1 or packet.chunks[0].kind != INIT:
        return None
    value = packet.chunks[0].value
    if len(value) < _INIT.size:
        return None
    theirs, _, outbound, inbound, _ = _INIT.unpack_from(value)
    if not theirs or not outbound or not inbound:
        return None
    chunk = Chunk(ABORT)
    if packet.destination in listening:
        cookie = struct.pack(">HHII", _COOKIE, 12, theirs, tag)
        chunk = Chunk(INIT_ACK, _INIT.pack(tag, _WINDOW, _STREAMS, _STREAMS, tag) + cookie)
    return Packet(packet.destination, packet.source, theirs, (chunk,))


def answers(packet: Packet, question: Packet) -> int:
    """The kind of chunk by which a packet answers an INIT: INIT_ACK or ABORT; 0 if it is no answer to it."""
    (theirs,) = struct.unpack_from(">I", question.chunks[0].value)
    if (packet.source, packet.destination, packet.tag) != (question.destination, question.source, theirs):
        return 0
    return next((chunk.kind for chunk in packet.chunks if chunk.kind in (INIT_ACK, ABORT)), 0)
