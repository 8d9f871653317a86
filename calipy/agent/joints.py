"""Where one part meets another's Protocol."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

from calipy.agent.feed import Feed
from calipy.cni.errors import CniError, Code
from calipy.cni.wiring import GATEWAYS, Wiring, host_rise
from calipy.datastore.mirror import Mirror
from calipy.felix.dataplane import Refused
from calipy.felix.endpoints import Endpoints
from calipy.ipam.allocator import Allocator, Request
from calipy.ipam.blocks import go_time
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import Link
from calipy.netlink.socket import ROUTE, NetlinkSocket
from calipy.resources.cidrs import family_of

log = logging.getLogger("calipy.agent.links")

_MOMENT_S = 0.2
"""A link that is deleted goes down first; what is down for longer was set down."""


class Flusher(Protocol):
    """Who deletes flows; blocks."""

    @property
    def idle(self) -> bool:
        """True where there are no flows at all; doesn't block."""
        ...

    def flush(self, addresses: Iterable[str]) -> None:
        """Deletes all flows of these addresses. Raises OSError."""
        ...


class ProgrammedEndpoints:
    """Felix's endpoints as CNI's verbs need them: a refusal is a CNI error."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def add(self, endpoint: WorkloadEndpoint) -> None:
        """Chains, dispatch and sets."""
        try:
            await self._endpoints.add(endpoint)
        except Refused as error:
            raise _refused(error) from error

    async def routed(self, endpoint: WorkloadEndpoint) -> None:
        """Host routes."""
        try:
            await self._endpoints.routed(endpoint)
        except Refused as error:
            raise _refused(error) from error

    async def remove(self, endpoint: EndpointId, container_id: str) -> None:
        """Everything out again."""
        try:
            await self._endpoints.remove(endpoint, container_id)
        except Refused as error:
            raise _refused(error) from error

    def current(self, endpoint: EndpointId) -> WorkloadEndpoint | None:
        """What is in force."""
        return self._endpoints.current(endpoint)

    def refusal(self, endpoint: EndpointId) -> str:
        """What the kernel has not taken."""
        return self._endpoints.refusal(endpoint)


def _refused(error: Refused) -> CniError:
    return CniError(Code.KERNEL_REFUSED, str(error), "it is tried again by itself; the agent's log says more")


class _Round:
    """Addresses whose flows are looked for together. One of those who wait leads, the others hear when he ends: all in
    the same turn of the loop, so that what they do next is shared, too."""

    __slots__ = ("addresses", "done", "error", "led")

    def __init__(self) -> None:
        self.addresses: set[str] = set()
        self.done = False
        self.error: OSError | None = None
        self.led: asyncio.Future[None] | None = None


class FlushedFlows:
    """Conntrack, on the kernel thread: a look through the table takes a while. Those who wait at the same time share
    one."""

    def __init__(self, conntrack: Flusher, thread: Executor) -> None:
        self._conntrack = conntrack
        self._thread = thread
        self._turn = asyncio.Lock()
        self._next = _Round()

    async def flush(self, addresses: Sequence[str]) -> None:
        """Deletes all flows of these addresses. Raises ConntrackError."""
        if self._conntrack.idle:
            return
        mine = self._next
        mine.addresses.update(addresses)
        while not mine.done:  # whoever led may have been cancelled: then the next of his round does
            await (asyncio.shield(mine.led) if mine.led is not None else self._lead(mine))
        if mine.error is not None:
            raise mine.error

    async def _lead(self, round_: _Round) -> None:
        led = round_.led = asyncio.get_running_loop().create_future()
        try:
            async with self._turn:
                if self._next is round_:
                    self._next = _Round()
                await self._look(round_)
        finally:
            round_.led = None
            led.set_result(None)

    async def _look(self, round_: _Round) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._conntrack.flush, sorted(round_.addresses))
        except OSError as error:
            round_.error = error
        round_.done = True


class WorkloadLinks:
    """Links of attached pods that somebody set down, or whose IPv6 gateway address somebody took: CNI's messages put
    that right, where Felix's monitor has seen it. A link on its way out is left alone: it takes a moment to go."""

    def __init__(
        self,
        endpoints: Endpoints,
        links: Mapping[int, Link],
        addresses: Callable[[int], frozenset[str]],
        repaired: Callable[[str, str], None],
        namespace: int | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._links = links
        self._addresses = addresses
        self._repaired = repaired
        self._socket = NetlinkSocket.open(ROUTE, namespace=namespace)
        self._watched: set[int] = set()

    def close(self) -> None:
        """Lets go of the socket."""
        self._socket.close()

    def shaken(self, link: Link) -> None:
        """Looks again in a moment."""
        if link.index not in self._watched and self._endpoints.behind(link) is not None:
            self._watched.add(link.index)
            asyncio.get_running_loop().call_later(_MOMENT_S, self._mend, link.index)

    def _mend(self, index: int) -> None:
        self._watched.discard(index)
        link = self._links.get(index)
        endpoint = self._endpoints.behind(link) if link is not None else None
        if link is None or endpoint is None:
            return
        plan = Wiring(
            interface=link.name, pod_interface="", container_id=endpoint.container_id, mtu=link.mtu,
            addresses=endpoint.addresses,
        )  # fmt: skip
        if link.up and (6 not in plan.families or GATEWAYS[6] in self._addresses(index)):
            return
        reason = f"link {link.name} was set down" if not link.up else f"link {link.name} lost {GATEWAYS[6]}"
        log.warning("%s by somebody else: putting it right", reason)
        for refusal in self._socket.request(host_rise(plan, index)):
            if refusal.errno != errno.EEXIST:  # the link-local prefix may be there still
                log.error("%s and can't be put right: %s", reason, refusal.text)
        self._repaired("links", reason)


class TunnelAddresses:
    """The allocator as the node's tunnels need it."""

    def __init__(self, allocator: Allocator, node: str, now: Callable[[], float]) -> None:
        self._allocator = allocator
        self._node = node
        self._now = now

    async def tunnel_address(self, handle: str, family: int, kind: str) -> str:
        """The one that the handle holds, or a new one."""
        held = [a for a in await self._allocator.addresses_of(handle) if family_of(a) == family]
        if held:
            return held[0]
        attributes = {"node": self._node, "type": kind, "timestamp": go_time(self._now())}
        request = Request(handle=handle, attributes=attributes, families={family: 1}, use="Tunnel")
        return (await self._allocator.assign(request))[0].address

    async def release(self, handle: str) -> object:
        """Gives it back."""
        return await self._allocator.release(handle)


def reconnections(feed: Feed, mirror: Mirror) -> asyncio.Event:
    """Set whenever the store is back after it was away."""
    back, since_s = asyncio.Event(), 0.0

    def look(_: frozenset[str]) -> None:
        nonlocal since_s
        latest_s = max((found.since_s for found in mirror.connections.values() if found.up), default=0.0)
        if latest_s > since_s:
            since_s = latest_s
            back.set()

    feed.listen(look)
    return back
