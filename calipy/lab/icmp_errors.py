"""What ICMP tells a socket of its packets: also what the kernel keeps to itself otherwise (ip(7), IP_RECVERR)."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Mapping
from typing import Final

# linux/in.h and linux/in6.h; Python has no names for these
_IP_RECVERR, _IPV6_RECVERR = 11, 25
# linux/errqueue.h: struct sock_extended_err, then the address of whoever complains
_ERROR: Final = struct.Struct("=IBBBBII")
_ICMP, _ICMPV6 = 2, 3
_ROOM: Final = 512
_WORDS: Final[Mapping[tuple[int, int, int], str]] = {
    (_ICMP, 3, 0): "network unreachable",
    (_ICMP, 3, 1): "host unreachable",
    (_ICMP, 3, 2): "protocol unreachable",
    (_ICMP, 3, 3): "port unreachable",
    (_ICMP, 3, 9): "network administratively prohibited",
    (_ICMP, 3, 10): "host administratively prohibited",
    (_ICMP, 3, 13): "administratively prohibited",
    (_ICMP, 11, 0): "time to live exceeded",
    (_ICMPV6, 1, 0): "no route",
    (_ICMPV6, 1, 1): "administratively prohibited",
    (_ICMPV6, 1, 3): "address unreachable",
    (_ICMPV6, 1, 4): "port unreachable",
    (_ICMPV6, 1, 5): "source address failed policy",
    (_ICMPV6, 1, 6): "route rejected",
    (_ICMPV6, 3, 0): "hop limit exceeded",
    (_ICMPV6, 4, 1): "unknown next header",
}
"""By origin, type and code (RFC 792, RFC 1812, RFC 4443)."""


def hear(made: socket.socket) -> None:
    """From now on the socket is told of ICMP's errors."""
    if made.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def drop(made: socket.socket) -> None:
    """Empties the queue of errors: as long as there is one, the socket counts as readable."""
    while _next(made) is not None:
        pass


def told(made: socket.socket) -> str:
    """The first error in the queue in words, with the address of whoever sent it; empty if ICMP has told nothing."""
    while (error := _next(made)) is not None:
        if error:
            return error
    return ""


def _next(made: socket.socket) -> str | None:
    """The next error in words, empty where it isn't ICMP's; None at the queue's end."""
    with contextlib.suppress(BlockingIOError):
        _, ancillary, _, _ = made.recvmsg(_ROOM, _ROOM, socket.MSG_ERRQUEUE)
        for level, kind, data in ancillary:
            if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                return words(data)
        return ""
    return None


def words(data: bytes) -> str:
    """An extended error in words; empty where it isn't ICMP's."""
    _, origin, kind, code, _, _, _ = _ERROR.unpack_from(data)
    if origin not in (_ICMP, _ICMPV6):
        return ""
    name = "ICMP" if origin == _ICMP else "ICMPv6"
    said = _WORDS.get((origin, kind, code), f"type {kind} code {code}")
    return f"{name} {said}{_offender(data[_ERROR.size :])}"


def _offender(address: bytes) -> str:
    """` from <address>`, of a sockaddr; empty where there is none."""
    (family,) = struct.unpack_from("=H", address) if len(address) >= 2 else (0,)
    if family == socket.AF_INET:
        return f" from {ipaddress.IPv4Address(address[4:8])}"
    if family == socket.AF_INET6:
        return f" from {ipaddress.IPv6Address(address[8:24])}"
    return ""
