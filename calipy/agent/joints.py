"""Where one part meets another's Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from calipy.cni.errors import CniError, Code
from calipy.felix.dataplane import Refused
from calipy.felix.drivers.conntrack import Conntrack
from calipy.felix.endpoints import Endpoints
from calipy.ipam.allocator import Allocator, Request
from calipy.ipam.blocks import go_time
from calipy.model.endpoints import EndpointId, WorkloadEndpoint


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
