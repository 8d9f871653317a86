"""Connection tracking: the flows of an address are forgotten before the address changes hands.

What costs is the walk through the kernel's hash table, which all network namespaces share: some 2 ms, whether there
are flows or not. So where there are none nothing is asked, where there are few one dump shows those of all addresses,
and only where there are many the kernel compares, four walks an IPv4 address, if it can (`filter_works`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from calipy.netlink import ctnetlink
from calipy.netlink.attributes import pack_address
from calipy.netlink.ctnetlink import Direction, Flow
from calipy.netlink.messages import Message
from calipy.netlink.socket import NETFILTER, NetlinkSocket, scratch
from calipy.resources.cidrs import family_of

FEW = 2000
"""Up to so many flows are dumped, some 1 us each, rather than compared by the kernel."""
_NUMBER = 32
"""Bytes: a number in /proc is shorter."""

FILTERED_MOST = 4
"""Up to so many IPv4 addresses are looked for by the kernel, two walks each; for more, all flows are dumped once."""


class ConntrackError(OSError):
    """The kernel did not delete the flows of an address; the address must not be used again."""


class Conntrack:
    """Deletes flows by address."""

    def __init__(
        self,
        socket: NetlinkSocket,
        sysctls: Path = Path("/proc/sys/net"),
        *,
        few: int = FEW,
        filtered: Callable[[], bool] | None = None,
    ) -> None:
        """`sysctls`: where /proc/sys/net of the socket's network namespace can be read. `filtered`: whether the kernel
        can be asked to compare; None = try it, once it matters."""
        self._socket = socket
        self._few = few
        self._filtered = filtered or filter_works
        self._count = str(sysctls / "netfilter/nf_conntrack_count")

    @property
    def idle(self) -> bool:
        """True where there are no flows at all: a flush would ask nothing."""
        return not self._flows()

    def flush(self, addresses: Iterable[str]) -> None:
        """Deletes every flow from or to one of `addresses`, before or after translation. Raises ConntrackError."""
        wanted = tuple(addresses)
        for address, message in self._deletions(wanted, self._flows()):
            for refusal in self._socket.request([message]):
                if refusal.errno != errno.ENOENT:
                    raise ConntrackError(refusal.errno, f"conntrack: flows of {address}: {refusal.text}")

    def of(self, addresses: Iterable[str]) -> Iterator[list[bytes]]:
        """The flows whose first packet one of `addresses` sent, and those that one of them answers (their destination,
        once translated), as they are dumped, bit by bit; the socket is busy until the end. Raises OSError."""
        wanted = frozenset(addresses)
        packed = frozenset(map(pack_address, wanted))
        for request in self._requests(wanted):
            for bodies in self._socket.stream(request):
                yield [bytes(body) for body in bodies if not packed.isdisjoint(ctnetlink.sources(body))]

    def _requests(self, addresses: Collection[str]) -> Iterator[Message]:
        four = [address for address in addresses if ":" not in address]
        if len(four) <= FILTERED_MOST and self._flows() > self._few and self._filtered():
            for address in four:
                yield from ctnetlink.dump_flows_of(address)
        elif four:
            yield ctnetlink.dump_flows(4)
        if len(four) < len(addresses):
            yield ctnetlink.dump_flows(6)

    def mark(self, flows: Sequence[bytes], mark: int, seconds: int) -> int:
        """Sets bits of dumped flows' marks, and lets them end in so many seconds. How many there still were, without
        those that are marked so since they were dumped: one is dumped twice by two of its addresses. Raises
        ConntrackError."""
        marking = [ctnetlink.mark_flow(body, mark, seconds) for body in flows]
        return self._ask(flows, marking, (errno.ENOENT, errno.EPERM))

    def forget(self, flows: Sequence[bytes]) -> int:
        """Deletes dumped flows: their next packets are new ones. How many there still were. Raises ConntrackError."""
        return self._ask(flows, list(map(ctnetlink.delete_flow, flows)), (errno.ENOENT,))

    def _ask(self, flows: Sequence[bytes], messages: Sequence[Message], settled: Collection[int]) -> int:
        refusals = self._socket.request(messages)
        for refusal in refusals:
            if refusal.errno not in settled:
                raise ConntrackError(refusal.errno, f"conntrack: {_spelled(flows[refusal.index])}: {refusal.text}")
        return len(flows) - len(refusals)

    def close(self) -> None:
        """Lets go of the socket."""
        self._socket.close()

    def _flows(self) -> int:
        """How many flows this network namespace has; a kernel that doesn't say may have many."""
        try:
            descriptor = os.open(self._count, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._few + 1
        try:
            return int(os.read(descriptor, _NUMBER))
        finally:
            os.close(descriptor)

    def _deletions(self, addresses: Sequence[str], flows: int) -> Iterator[tuple[str, Message]]:
        if not flows:
            return
        four = [address for address in addresses if ":" not in address]
        if flows > self._few and self._filtered():
            yield from ((address, message) for address in four for message in ctnetlink.delete_flows(address))
            four = []
        dumped = [*four, *(address for address in addresses if ":" in address)]
        families = {family_of(address) for address in dumped}
        if not dumped:
            return
        packed = [(address, pack_address(address)) for address in dumped]
        for body in self._socket.dump(ctnetlink.dump_flows(families.pop() if len(families) == 1 else 0)):
            raw = bytes(body)  # a look at the bytes rules nearly all out, without parsing
            found = next((a for a, short in packed if short in raw and ctnetlink.mentions(body, a)), None)
            if found is not None:
                yield found, ctnetlink.delete_flow(body)


def _spelled(body: bytes) -> str:
    found = ctnetlink.parse_flow(body).original
    return f"flow {found.protocol} {found.source}:{found.source_port} {found.destination}:{found.destination_port}"


@cache
def filter_works() -> bool:
    """Whether this kernel deletes the flows of one IPv4 address and no others when asked to: tried in a network
    namespace of its own, for a kernel that doesn't know the filter might delete them all. Nothing may be awaited."""
    try:
        with scratch():
            return _try_filter()
    except OSError:
        return False


def _try_filter() -> bool:
    one, other = (_flow(address) for address in ("192.0.2.1", "192.0.2.2"))
    with NetlinkSocket.open(NETFILTER) as socket:
        if socket.request([ctnetlink.new_flow(one, 60), ctnetlink.new_flow(other, 60)]):
            return False
        refusals = socket.request(list(ctnetlink.delete_flows("192.0.2.1")))
        if any(refusal.errno != errno.ENOENT for refusal in refusals):
            return False
        left = [ctnetlink.parse_flow(body).original for body in socket.dump(ctnetlink.dump_flows(4))]
    return left == [other.original]


def _flow(source: str) -> Flow:
    there = Direction(source=source, destination="192.0.2.9", protocol=17, source_port=1, destination_port=2)
    back = Direction(source="192.0.2.9", destination=source, protocol=17, source_port=2, destination_port=1)
    return Flow(family=4, original=there, reply=back)
