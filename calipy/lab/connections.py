"""One real connection from a place of the lab to a port of another, and what came of it.

TCP: a connection. UDP: datagrams until one comes back. SCTP: an association where the kernel has SCTP, else an INIT and
its answer (`sctp`). Whoever listens need not be ours; an echo process (`echo`) sends back what it gets.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import random
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from calipy.console.failures import Failure
from calipy.lab import icmp_errors, sctp
from calipy.lab.cluster import Lab
from calipy.lab.places import Place, by_family, open_socket, place
from calipy.lab.pods import Protocol, named
from calipy.lab.topology import OUTSIDE
from calipy.lab.waiting import together

Verdict = Literal["allowed", "refused", "filtered", "unreachable"]
Family = Literal["4", "6", "both"]

TIMEOUT_S: Final = 1.0
_QUESTIONS: Final = 4
"""So often a lost datagram is sent again within the time."""
_MOST: Final = 65536
_SHOWN: Final = 60
_WORDS: Final = "CalIPy asks"
_TARGET: Final = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^\[\]:]+)):(?P<port>[0-9]{1,5})")
_PRIVATE_PORTS: Final = (49152, 65535)
_REFUSALS: Final = (errno.ECONNREFUSED, errno.ENOPROTOOPT, errno.EPROTO)
"""RST or port unreachable; IPv4's protocol unreachable; IPv6's unknown next header."""


class Target(Struct, frozen=True, gc=False, kw_only=True):
    """Whom to connect to."""

    name: str
    port: int
    addresses: Mapping[int, str]
    """By family."""


class Attempt(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """One try, one family."""

    source: str
    target: str
    protocol: Protocol
    port: int
    family: int
    address: str
    verdict: Verdict
    """`allowed`: it answered. `refused`: RST, ABORT, or no such port or protocol. `filtered`: silence. `unreachable`:
    another error of ICMP, or no way from here."""
    answer: str = ""
    """What came back, as far as it can be printed."""
    reason: str = ""
    """Why nothing came back, or why it is not allowed."""
    seconds: float = 0.0
    """From the question to its answer; until it was given up where there was none."""


class Outcome(NamedTuple):
    """What came of one try."""

    verdict: Verdict
    answer: str
    reason: str
    seconds: float


Ask = Callable[[socket.socket, str, int, float], Awaitable[Outcome]]
"""Asks an address and a port by a socket, for so many seconds."""


async def probe(
    lab: Lab, client: str, server: str, protocol: Protocol = "TCP", family: Family = "both",
    timeout_s: float = TIMEOUT_S,
) -> tuple[Attempt, ...]:  # fmt: skip
    """Tries, one family beside the other. `client`: a pod (`name`, `namespace/name`), a node or `outside`; `server`:
    one of those, or an address, and a port (`web:80`, `10.0.0.1:80`, `[fd00::1]:80`). `family`: `both` = those that
    both ends have. Raises Failure for what can't be tried."""
    return await attempts(place(lab, client), parse_target(lab, server), protocol, family, timeout_s)


async def attempts(
    source: Place, target: Target, protocol: Protocol, family: Family = "both", timeout_s: float = TIMEOUT_S
) -> tuple[Attempt, ...]:
    """The same, from a place to a target."""
    return await together(
        _attempt(source, target, protocol, version, timeout_s) for version in _versions(source, target, family)
    )


def parse_target(lab: Lab, text: str) -> Target:
    """Whom `web:80`, `shop/web:80`, `n1:22`, `10.0.0.1:80` or `[fd00::1]:80` mean. Raises Failure."""
    match = _TARGET.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= 65535:
        raise Failure("server", "is no place and port", "write web:80, shop/web:80 or [fd00::1]:80", value=text)
    name, port = match["name"] or match["address"], int(match["port"])
    addresses = _literal(name)
    if match["name"] is None and set(addresses) != {6}:
        raise Failure("server", "has no IPv6 address in its brackets", "write [fd00::1]:80", value=text)
    return Target(name=name, port=port, addresses=addresses or _addresses(lab, name))


def _literal(text: str) -> dict[int, str]:
    """An address by its family; nothing where it is none, or has a zone (which is another in each namespace)."""
    if "%" in text:
        return {}
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return {}
    return {address.version: str(address)}


def _addresses(lab: Lab, name: str) -> Mapping[int, str]:
    """Also of what has no power: nobody answers there."""
    hosts = {**lab.nodes, OUTSIDE: lab.plan.outside}
    if name in hosts:
        return {version: hosts[name].address(version) for version in lab.plan.versions}
    return by_family(named(lab, name).addresses)


def _versions(source: Place, target: Target, family: Family) -> tuple[int, ...]:
    wanted = (4, 6) if family == "both" else (int(family),)
    found = tuple(version for version in wanted if version in source.addresses and version in target.addresses)
    if found:
        return found
    for name, addresses in ((source.name, source.addresses), (target.name, target.addresses)):
        if not set(wanted) & set(addresses):
            has = " and ".join(f"IPv{version}" for version in sorted(addresses)) or "no address"
            raise Failure(name, f"has {has}", "ask for that family, or another place")
    raise Failure(f"{source.name} and {target.name}", "have no family in common", "ask for another place")


async def _attempt(source: Place, target: Target, protocol: Protocol, family: int, timeout_s: float) -> Attempt:
    address = target.addresses[family]
    kind, number, ask = _ways(protocol)
    with open_socket(source, family, kind, number) as made:
        icmp_errors.hear(made)
        begun_s = asyncio.get_running_loop().time()
        try:
            outcome = await ask(made, address, target.port, timeout_s)
        except OSError as error:
            outcome = _failed(made, error, asyncio.get_running_loop().time() - begun_s)
    return Attempt(
        source=source.name, target=target.name, protocol=protocol, port=target.port, family=family, address=address,
        verdict=outcome.verdict, answer=outcome.answer, reason=outcome.reason, seconds=outcome.seconds,
    )  # fmt: skip


def _ways(protocol: Protocol) -> tuple[socket.SocketKind, int, Ask]:
    """How a protocol is asked: kind and number of the socket, and what is done with it."""
    if protocol == "TCP":
        return socket.SOCK_STREAM, 0, _ask_stream
    if protocol == "UDP":
        return socket.SOCK_DGRAM, 0, _ask_datagrams
    if sctp.kernel_speaks():
        return socket.SOCK_STREAM, sctp.PROTOCOL, _ask_stream
    return socket.SOCK_RAW, sctp.PROTOCOL, _ask_raw_sctp


def _failed(made: socket.socket, error: OSError, seconds: float) -> Outcome:
    refused = error.errno in _REFUSALS
    plain = ("ABORT" if made.proto == sctp.PROTOCOL else "RST") if refused else _in_words(error)
    return Outcome("refused" if refused else "unreachable", "", icmp_errors.told(made) or plain, seconds)


def _in_words(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()


def _silent(timeout_s: float) -> Outcome:
    return Outcome("filtered", "", f"no answer in {timeout_s:g} s", timeout_s)


async def _ask_stream(made: socket.socket, address: str, port: int, timeout_s: float) -> Outcome:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(made, (address, port))
    except TimeoutError:
        return _silent(timeout_s)
    seconds = loop.time() - begun_s
    answer, reason = "", "connected, and nothing came back"
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_sendall(made, _WORDS.encode())
            answer = _printable(await loop.sock_recv(made, _MOST))
    except TimeoutError:
        pass
    except OSError as error:
        reason = f"connected, then {_in_words(error)}"
    return Outcome("allowed", answer, "" if answer else reason, seconds)


async def _ask_datagrams(made: socket.socket, address: str, port: int, timeout_s: float) -> Outcome:
    nonce = f"{_WORDS} {random.getrandbits(32):08x} "

    def question(number: int) -> bytes:
        return f"{nonce}{number}".encode()

    def judged(data: bytes, asked: int) -> tuple[int, Verdict, str]:
        text = data.decode(errors="replace")
        last = text.removeprefix(nonce)
        echoed = text.startswith(nonce) and last.isdecimal() and int(last) < asked
        return int(last) if echoed else asked - 1, "allowed", _WORDS if echoed else _printable(data)

    made.connect((address, port))
    return await _repeat(made, question, judged, timeout_s)


async def _ask_raw_sctp(made: socket.socket, address: str, port: int, timeout_s: float) -> Outcome:
    own, first = random.randint(*_PRIVATE_PORTS), random.getrandbits(31) + 1

    def question(number: int) -> bytes:
        return sctp.encode(sctp.ask(own, port, first + number))

    def judged(data: bytes, asked: int) -> tuple[int, Verdict, str] | None:
        if made.family == socket.AF_INET:
            data = data[4 * (data[0] & 0x0F) :]  # raw IPv4 sockets see the IP header, raw IPv6 ones don't (raw(7))
        try:
            packet = sctp.decode(data)
        except sctp.Malformed:
            return None  # a damaged packet is a lost one
        number = packet.tag - first
        if not 0 <= number < asked:
            return None
        match sctp.answers(packet, sctp.ask(own, port, first + number)):
            case sctp.INIT_ACK:
                return number, "allowed", "INIT ACK"
            case sctp.ABORT:
                return number, "refused", "ABORT"
        return None

    made.connect((address, 0))
    return await _repeat(made, question, judged, timeout_s)


async def _repeat(
    made: socket.socket,
    question: Callable[[int], bytes],
    judged: Callable[[bytes, int], tuple[int, Verdict, str] | None],
    timeout_s: float,
) -> Outcome:
    """Asks until an answer comes: a lost datagram is no verdict. `judged`: which question an answer is to, the verdict
    and words; None = it is none."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    sent_s: list[float] = []
    while (left_s := end_s - loop.time()) > 0:
        sent_s.append(loop.time())
        await loop.sock_sendall(made, question(len(sent_s) - 1))
        try:
            async with asyncio.timeout(min(left_s, timeout_s / _QUESTIONS)):
                while (found := judged(await loop.sock_recv(made, _MOST), len(sent_s))) is None:
                    continue
        except TimeoutError:
            continue
        number, verdict, words = found
        seconds = loop.time() - sent_s[number]
        return Outcome(verdict, words if verdict == "allowed" else "", "" if verdict == "allowed" else words, seconds)
    return _silent(timeout_s)


def _printable(data: bytes) -> str:
    """Its first line, so far as it can be shown."""
    text = "".join(data.decode(errors="replace").splitlines()[:1])
    return "".join(character if character.isprintable() else "." for character in text)[:_SHOWN]
