"""Who reaches whom: datagrams between the network namespaces of a lab, sent and answered by this one process.

Each probe is as large as the way takes (the kernel's path MTU, fragments forbidden), is sent until an answer comes, and
comes back with the source address that the far end saw: so a wrong MTU, a missing way back and an address translation
that should not be are seen as well as a missing route. The sockets are made inside the namespaces, where they stay;
everything else is the kernels' own business.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from calipy.lab import icmp_errors
from calipy.lab.cluster import Lab
from calipy.lab.places import Place, open_socket, places

PATIENCE_S: Final = 2.0
_RESEND_S: Final = (0.03, 0.07, 0.15, 0.25, 0.5)
"""Waits for an answer before a probe is sent again; from then on the last one."""
_AT_ONCE: Final = 256
_MOST: Final = 65536
_HEADERS: Final = {4: 28, 6: 48}
"""IP and UDP."""
# linux/in.h and linux/in6.h; Python has no names for these
_IP_MTU_DISCOVER, _IP_MTU, _IP_FREEBIND = 10, 14, 15
_IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_FREEBIND = 23, 24, 78
_PMTUDISC_DO = 2


class Probe(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """One try, one family."""

    source: str
    source_kind: Literal["pod", "node", "outside"]
    target: str
    target_kind: Literal["pod", "node", "outside"]
    family: int
    answered: bool
    seen: str = ""
    """The source address that the target saw."""
    expected: tuple[str, ...] = ()
    """Those that it should see; empty = any."""
    reason: str = ""
    """Why it was not answered."""
    seconds: float = 0.0
    """Until the answer, tries included."""

    @property
    def good(self) -> bool:
        """Answered, and from where it should."""
        return self.answered and (not self.expected or self.seen in self.expected)

    @property
    def complaint(self) -> str:
        """What is wrong, for people; empty if nothing is."""
        pair = f"{self.source} -> {self.target}, IPv{self.family}"
        if not self.answered:
            return f"{pair}: {self.reason}"
        if not self.good:
            return f"{pair}: seen from {self.seen}, and not from {' or '.join(self.expected)}"
        return ""


async def matrix(lab: Lab, patience_s: float = PATIENCE_S) -> tuple[Probe, ...]:
    """Every pod and every node to every other pod, every pod to outside, in all families that both ends have."""
    everybody = places(lab)
    by_name = {place.name: place for place in everybody}
    pairs = [
        (source, target, family)
        for source in everybody
        for target in everybody
        if source.kind != "outside" and source is not target
        if target.kind == "pod" or (target.kind == "outside" and source.kind == "pod")
        for family in sorted(source.addresses.keys() & target.addresses.keys())
    ]
    return await probe(
        [(source, target, family, _expected(source, target, family, by_name)) for source, target, family in pairs],
        patience_s,
    )


def _expected(source: Place, target: Place, family: int, by_name: Mapping[str, Place]) -> tuple[str, ...]:
    """Pods are seen as themselves inside, as their node outside. A node may use any address of its own."""
    if source.kind == "node":
        return ()
    if target.kind == "outside":
        return (by_name[source.node].addresses[family],)
    return (source.addresses[family],)


Pair = tuple[Place, Place, int, tuple[str, ...]]


async def probe(pairs: Sequence[Pair], patience_s: float = PATIENCE_S) -> tuple[Probe, ...]:
    """Probes pairs (source, target, family, expected source addresses), many at once, in the order given."""
    gate = asyncio.Semaphore(_AT_ONCE)
    with contextlib.ExitStack() as stack:
        answerers: dict[tuple[str, int], socket.socket] = {}
        for _, target, family, _ in pairs:
            if (target.name, family) not in answerers:
                answerers[target.name, family] = stack.enter_context(_answerer(target, family))
        async with asyncio.TaskGroup() as group:
            answering = [group.create_task(_answer(answerer)) for answerer in answerers.values()]
            async with asyncio.TaskGroup() as probes:
                tasks = [probes.create_task(_probe(pair, answerers, gate, patience_s)) for pair in pairs]
            for task in answering:
                task.cancel()
    return tuple(task.result() for task in tasks)


@contextlib.contextmanager
def _answerer(place: Place, family: int) -> Iterator[socket.socket]:
    with open_socket(place, family, socket.SOCK_DGRAM) as made:
        _bind_anyhow(made, family, place.addresses[family])
        _forbid_fragments(made, family)
        yield made


def _bind_anyhow(made: socket.socket, family: int, address: str) -> None:
    """Also where the place has lost that address (ip(7), IP_FREEBIND): then it is not reached, and that is told."""
    if family == 4:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    made.bind((address, 0))


def _forbid_fragments(made: socket.socket, family: int) -> None:
    if family == 4:
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)


def _path_mtu(made: socket.socket, family: int) -> int:
    """As the kernel knows it now (ip(7), IP_MTU)."""
    if family == 4:
        return made.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return made.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)


async def _answer(answerer: socket.socket) -> None:
    """Sends each datagram back at its full size, with the address it came from at its head."""
    loop = asyncio.get_running_loop()
    while True:
        data, sender = await loop.sock_recvfrom(answerer, _MOST)
        answer = f"{sender[0]}\n".encode().ljust(len(data), b".")
        # An answer that the kernel refuses is one that is lost: whoever asked asks again, and tells.
        with contextlib.suppress(OSError):
            await loop.sock_sendto(answerer, answer, sender)


async def _probe(
    pair: Pair, answerers: Mapping[tuple[str, int], socket.socket], gate: asyncio.Semaphore, patience_s: float
) -> Probe:
    source, target, family, expected = pair
    async with gate:
        with open_socket(source, family, socket.SOCK_DGRAM) as made:
            answer, reason, seconds = await _exchange(made, answerers[target.name, family], family, patience_s)
    return Probe(
        source=source.name, source_kind=source.kind, target=target.name, target_kind=target.kind, family=family,
        answered=answer is not None, seen=answer or "", expected=expected, reason=reason, seconds=seconds,
    )  # fmt: skip


async def _exchange(
    made: socket.socket, answerer: socket.socket, family: int, patience_s: float
) -> tuple[str | None, str, float]:
    """What the far end saw (None = no answer), why there is none, and how long it took."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    refusal = ""
    waits = iter(_RESEND_S)
    _forbid_fragments(made, family)
    icmp_errors.hear(made)
    while (left_s := begun_s + patience_s - loop.time()) > 0:
        wait_s = min(next(waits, _RESEND_S[-1]), left_s)
        try:
            async with asyncio.timeout(wait_s):
                made.connect(answerer.getsockname()[:2])
                made.send(b"?" * (_path_mtu(made, family) - _HEADERS[family]))
                data = await loop.sock_recv(made, _MOST)
            return data.partition(b"\n")[0].decode(), "", loop.time() - begun_s
        except TimeoutError:
            continue
        except OSError as error:
            refusal = str(error.strerror)
            icmp_errors.drop(made)
            await asyncio.sleep(wait_s)
    return None, refusal or f"no answer in {patience_s:g} s", loop.time() - begun_s
