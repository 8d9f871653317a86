"""Pods' addresses from the node's allocator: Calico's attributes on each, and errors that a runtime understands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from calipy.cni.errors import CniError, Code
from calipy.cni.needs import Demand, Drawn
from calipy.ipam.allocator import Allocator, Request
from calipy.ipam.blocks import go_time
from calipy.ipam.errors import IPAMError
from calipy.resources.cidrs import family_of


class AllocatedAddresses:
    """The allocator, as the verbs see it."""

    def __init__(self, allocator: Allocator, node: str, now: Callable[[], float]) -> None:
        """`now` gives seconds since 1970."""
        self._allocator = allocator
        self._node = node
        self._now = now

    async def draw(self, demand: Demand) -> tuple[Drawn, ...]:
        """All that is demanded, IPv4 first, or nothing. Raises CniError 100, StoreError."""
        with _explained():
            if demand.addresses:
                return await self._draw_these(demand)
            request = Request(
                handle=demand.handle,
                attributes=self._attributes(demand),
                families={family: 1 for family in demand.families},
                pools=demand.pools,
                namespace_labels=demand.namespace_labels if demand.pod else None,
            )
            return tuple(Drawn(given.address, given.block) for given in await self._allocator.assign(request))

    async def release(self, handle: str) -> None:
        """Gives a handle's addresses back; fine where it has none. Raises StoreError, CniError 100."""
        with _explained():
            await self._allocator.release(handle)

    async def addresses_of(self, handle: str) -> tuple[str, ...]:
        """A handle's addresses. Raises StoreError, CniError 100."""
        with _explained():
            return await self._allocator.addresses_of(handle)

    async def _draw_these(self, demand: Demand) -> tuple[Drawn, ...]:
        drawn: list[Drawn] = []
        try:
            for address in sorted(demand.addresses, key=family_of):
                given = await self._allocator.assign_address(address, demand.handle, self._attributes(demand))
                drawn.append(Drawn(given.address, given.block))
        except BaseException:
            if drawn:
                await self._allocator.release(demand.handle)
            raise
        return tuple(drawn)

    def _attributes(self, demand: Demand) -> dict[str, str]:
        """Calico's: node and timestamp, and of a pod its name and namespace."""
        attributes = {"node": self._node, "timestamp": go_time(self._now())}
        if demand.pod is not None:
            attributes |= {"pod": demand.pod.name, "namespace": demand.pod.namespace}
        return attributes


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except IPAMError as error:
        reason, _, remedy = str(error).rpartition("; ")
        raise CniError(Code.NO_ADDRESS, reason or str(error), remedy if reason else "") from error
