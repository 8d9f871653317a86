"""Where one part meets another's Protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from calipy.cni.errors import CniError, Code
from calipy.cni.wiring import GATEWAYS, Wiring, host_rise
from calipy.felix.dataplane import Refused
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.endpoints import Endpoints
from calipy.ipam.allocator import Allocator, Request
from calipy.ipam.blocks import go_time
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import Link
from calipy.netlink.socket import ROUTE, NetlinkSocket

log = logging.getLogger("calipy.agent.links")

_MOMENT_S = 0.2
"""A link that is deleted goes down first; what is down for longer was set down."""


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


class FlushedFlows:
    """Conntrack, on the kernel thread: a large table takes a while."""

    def __init__(self, conntrack: Conntrack, thread: Executor) -> None:
        self._conntrack = conntrack
        self._thread = thread

    async def flush(self, addresses: Sequence[str]) -> None:
        """Deletes all flows of these addresses."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._conntrack.flush, addresses)


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
        held = [a for a in await self._allocator.addresses_of(handle) if (6 if ":" in a else 4) == family]
        if held:
            return held[0]
        attributes = {"node": self._node, "type": kind, "timestamp": go_time(self._now())}
        request = Request(handle=handle, attributes=attributes, families={family: 1}, use="Tunnel")
        return (await self._allocator.assign(request))[0].address

    async def release(self, handle: str) -> object:
        """Gives it back."""
        return await self._allocator.release(handle)
