"""Packets made by hand, of every protocol and both families, and an ear that tells which of them have arrived.

A packet is written `from>proto:port<port`: `a>tcp:80`, `udp:53<4000` (from source port 4000), `icmp:3/4` (type and
code), `proto:47`; `icmp` stands for ICMP or ICMPv6, by the family that it is sent in.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from typing import Any, NamedTuple

from calipy.netlink.socket import inside

ECHO = {4: 8, 6: 128}
_PROTOCOLS = {"udp": 17, "udplite": 136}
_IPV6_CHECKSUM = 7
_SYN = 2
_ALL = 0x0003
"""ETH_P_ALL."""
_PATTERN = re.compile(r"(?:(\w+)>)?(\w+)(?::(\d+)(?:/(\d+))?)?(?:<(\d+))?")


class Packet(NamedTuple):
    """One packet's say."""

    sender: str
    protocol: str
    port: int | None
    """Destination port, type of ICMP, or number of a protocol."""
    code: int
    source_port: int | None


def packet(text: str) -> Packet:
    """`a>tcp:80<4000`."""
    found = _PATTERN.fullmatch(text)
    assert found is not None, text
    sender, protocol, port, code, source = found.groups()
    return Packet(sender or "", protocol, int(port) if port else None, int(code or 0), int(source) if source else None)


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _internet_checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo_header(source: str, target: str, protocol: int, length: int) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    return ends + (struct.pack(">II", length, protocol) if ":" in source else struct.pack(">HH", protocol, length))


def _tcp(source: int, target: int, mark: bytes, ends: tuple[str, str]) -> bytes:
    header = struct.pack(">HHIIBBHHH", source, target, 1, 0, 5 << 4, _SYN, 1024, 0, 0) + mark
    check = _internet_checksum(_pseudo_header(*ends, 6, len(header)) + header)
    return header[:16] + struct.pack(">H", check) + header[18:]


def _udp(source: int, target: int, mark: bytes, ends: tuple[str, str]) -> bytes:
    """UDP, or UDP-Lite with a checksum of the whole: Linux's connection tracking checks it as if it were UDP's
    (udplite_error), and finds a right one invalid."""
    header = struct.pack(">HHHH", source, target, 8 + len(mark), 0) + mark
    check = _internet_checksum(_pseudo_header(*ends, 17, len(header)) + header) or 0xFFFF
    return header[:6] + struct.pack(">H", check) + header[8:]


def _sctp(source: int, target: int, mark: bytes) -> bytes:
    """An INIT: initiate tag and window are the mark, then streams out and in, and the initial TSN."""
    chunk = struct.pack(">BBH", 1, 0, 20) + mark + struct.pack(">HHI", 1, 1, 1)
    common = struct.pack(">HHI", source, target, 0)
    whole = common + b"\0\0\0\0" + chunk
    return common + struct.pack("<I", crc32c(whole)) + chunk


def _icmp(type_: int, code: int, mark: bytes, ends: tuple[str, str]) -> bytes:
    body = struct.pack(">BBHHH", type_, code, 0, int.from_bytes(mark[6:8], "big"), 1) + mark
    before = _pseudo_header(*ends, 58, len(body)) if ":" in ends[0] else b""
    return body[:2] + struct.pack(">H", _internet_checksum(before + body)) + body[4:]


class Post:
    """Sends packets between namespaces and says which have arrived."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._count = 0

    def close(self) -> None:
        for opened in self._open:
            opened.close()

    def ear(self, namespace: Any, interface: str = "eth0") -> socket.socket:
        """Hears all that comes in by an interface."""
        with inside(namespace.fd):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
            made.bind((interface, _ALL))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.setblocking(False)
        self._open.append(made)
        return made

    def send(self, namespace: Any, found: Packet, ends: tuple[str, str]) -> bytes:
        """Sends one packet from a namespace between two addresses; its mark."""
        self._count += 1
        mark = struct.pack(">HHI", 0xCA11, self._count >> 16, 0x10000 | self._count & 0xFFFF)
        source = found.source_port or 20000 + self._count % 40000
        family = 6 if ":" in ends[0] else 4
        number, data = self._made(found, source, mark, ends, family)
        with inside(namespace.fd):
            raw = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_RAW, number)
        with raw:
            raw.bind((ends[0], 0))
            if family == 6 and number != 58:
                raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, -1)
            with contextlib.suppress(ConnectionRefusedError, PermissionError):  # rejected
                raw.sendto(data, (ends[1], 0))
        return mark

    def _made(self, found: Packet, source: int, mark: bytes, ends: tuple[str, str], family: int) -> tuple[int, bytes]:
        match found.protocol:
            case "tcp":
                return 6, _tcp(source, found.port or 80, mark, ends)
            case "udp" | "udplite":
                return _PROTOCOLS[found.protocol], _udp(source, found.port or 80, mark, ends)
            case "sctp":
                return 132, _sctp(source, found.port or 80, mark)
            case "icmp":
                type_ = ECHO[family] if found.port is None else found.port
                return (58 if family == 6 else 1), _icmp(type_, found.code, mark, ends)
            case _:
                assert found.port is not None
                return found.port, mark

    def heard(self, ear: socket.socket, wanted: set[bytes], unwanted: set[bytes], seconds: float = 1.0) -> set[bytes]:
        """Which of these marks have come: all that are wanted, or until the time is up; then a moment longer, for
        those that are not."""
        found: set[bytes] = set()
        until = time.monotonic() + seconds
        while time.monotonic() < until and not wanted <= found:
            found |= self._marks(ear, wanted | unwanted)
        time.sleep(0.02)
        return found | self._marks(ear, wanted | unwanted)

    @staticmethod
    def _marks(ear: socket.socket, marks: set[bytes]) -> set[bytes]:
        found = set()
        while True:
            try:
                data = ear.recv(2048)
            except BlockingIOError:
                return found
            at = data.find(b"\xca\x11")
            while at >= 0:
                if data[at : at + 8] in marks:
                    found.add(data[at : at + 8])
                at = data.find(b"\xca\x11", at + 1)
