"""What this node has of the pools for itself: its blocks, and the addresses of its tunnel devices."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from calipy.agent.feed import Feed
from calipy.agent.joints import TunnelAddresses
from calipy.datastore.stores import NotFound, Store, StoreError
from calipy.ipam.allocator import Allocator, Inputs
from calipy.ipam.errors import IPAMError
from calipy.node import identity, tunnels
from calipy.node.pod_cidrs import narrowed
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_configurations import IPAMConfiguration
from calipy.resources.metadata import Refused

_RETRY_S = 1.0
log = logging.getLogger("calipy.agent")


class PodCidrs(Inputs):
    """What the allocator reads on a node that draws from its Node's podCIDRs alone."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._seen: tuple[Sequence[IPPool], tuple[str, ...]] = (), ()
        self._pools: Sequence[IPPool] = ()

    def pools(self) -> Sequence[IPPool]:
        """Those of the feed, cut down; the same sequence until something changes."""
        node = self._feed.node()
        pools, cidrs = self._feed.pools(), node.spec.pod_cidrs if node is not None else ()
        if self._seen[0] is not pools or self._seen[1] != cidrs:
            self._seen, self._pools = (pools, cidrs), tuple(narrowed(pools, cidrs))
        return self._pools

    def reservations(self) -> Sequence[IPReservation]:
        """The feed's."""
        return self._feed.reservations()

    def configuration(self) -> IPAMConfiguration:
        """The feed's."""
        return self._feed.configuration()

    def node_labels(self) -> Mapping[str, str]:
        """The feed's."""
        return self._feed.node_labels()

    def affinities(self) -> Sequence[BlockAffinity]:
        """The feed's."""
        return self._feed.affinities()


class OwnAddresses:
    """Follows the pools."""

    def __init__(self, store: Store, feed: Feed, allocator: Allocator, node: str) -> None:
        self._store, self._feed, self._allocator, self._node = store, feed, allocator, node
        self._holder = TunnelAddresses(allocator, node, time.time)
        self._changed = asyncio.Event()
        self._settled: object = None
        self.problem = ""
        """Why this node's blocks and tunnel addresses aren't as they should be."""

    async def run(self, settled: Callable[[], object]) -> None:
        """Without end; `settled` is called each time that all is as the pools want it."""
        self._feed.listen(self._look)
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._settle()
                self.problem = ""
                settled()
            except (StoreError, IPAMError, Refused) as error:
                self._complain(error)
                await asyncio.sleep(_RETRY_S)
                self._changed.set()

    def _look(self, kinds: frozenset[str]) -> None:
        """Other nodes' news are none for this one: in a cluster of a thousand some Node changes all the time."""
        if kinds & {"IPPool", "Node"} and self._facts() != self._settled:
            self._changed.set()

    def _facts(self) -> object:
        """What it all rests on, and the annotations that come of it."""
        node = self._feed.node()
        if node is None:
            return None
        mine = [node.metadata.annotations.get(name) for name in tunnels.ANNOTATIONS]
        return self._feed.pools_in_force(), node.metadata.labels, node.spec.pod_cidrs, mine

    async def _settle(self) -> None:
        feed, node = self._feed, self._node
        self._settled = self._facts()
        await self._allocator.adopt()
        notes = await tunnels.settle(node, self._holder, feed.pools_in_force(), feed.node_labels())
        await identity.annotate(self._store, node, notes)

    def _complain(self, error: Exception) -> None:
        if str(error) != self.problem:
            remedy = "a restart makes its Node anew" if isinstance(error, NotFound) else "tried again"
            log.error("this node's blocks and tunnel addresses: %s; %s", error, remedy)
        self.problem = str(error)
