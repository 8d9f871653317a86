"""What this node has of the pools for itself: its blocks, and the addresses of its tunnel devices."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from calipy.agent.feed import Feed
from calipy.agent.joints import TunnelAddresses
from calipy.datastore.stores import NotFound, Store, StoreError
from calipy.ipam.allocator import Allocator
from calipy.ipam.errors import IPAMError
from calipy.node import identity, tunnels
from calipy.resources.metadata import Refused

_RETRY_S = 1.0
log = logging.getLogger("calipy.agent")


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
        notes = found.metadata.annotations if (found := self._feed.node()) is not None else None
        mine = [notes.get(name) for name in tunnels.ANNOTATIONS] if notes is not None else None
        return self._feed.pools_in_force(), self._feed.node_labels(), mine

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
