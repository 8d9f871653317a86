"""The store's news: judged at the edge, kept as the newest accepted values, passed on as events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from calipy.datastore.batches import Batch
from calipy.datastore.mirror import Mirror
from calipy.felix.calc.world import Bookmark, Event, ResourceGone, ResourcePut
from calipy.ipam.allocator import Inputs
from calipy.resources import block_affinities, ip_pools, ip_reservations, ipam_configurations, kinds, nodes
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_configurations import IPAMConfiguration
from calipy.resources.metadata import Key, Kind, Refused, Resource, accept
from calipy.resources.nodes import Node

log = logging.getLogger("calipy.agent.feed")
R = TypeVar("R", bound=Resource)

WATCHED = (
    "Node",
    "Namespace",
    "Pod",
    "IPPool",
    "BlockAffinity",
    "IPReservation",
    "IPAMConfiguration",
    "FelixConfiguration",
    "BGPConfiguration",
    "BGPPeer",
)


def watched() -> tuple[Kind[Any], ...]:
    """The kinds that an agent follows."""
    return tuple(kinds.BY_NAME[name] for name in WATCHED)


class Feed(Inputs):
    """The newest accepted value of everything that the agent follows. A value that isn't accepted is logged, and the
    last good one stays in force."""

    def __init__(self, mirror: Mirror, node: str) -> None:
        self._mirror = mirror
        self._node = node
        self._values: dict[str, dict[Key, Resource]] = {name: {} for name in WATCHED}
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self.in_sync = asyncio.Event()
        self.refused: dict[Key, str] = {}
        self._pools: tuple[IPPool, ...] | None = None
        """As judged together; None = something has changed since."""

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """`listener` is called with the kinds that have changed, after each batch once in sync."""
        self._listeners.append(listener)

    async def run(self, post: Callable[[Sequence[Event]], object]) -> None:
        """Follows the mirror without end."""
        async for batch in self._mirror.batches():
            events = self._take(batch)
            if events:
                post(events)
            if batch.in_sync:
                self.in_sync.set()
                changed = frozenset(event.object.key.kind for event in batch.events if event.object)
                for listener in self._listeners:
                    listener(changed)

    def _take(self, batch: Batch) -> list[Event]:
        events: list[Event] = []
        for event in batch.events:
            if event.object is None:
                continue
            if event.object.key.kind == ip_pools.KIND.name:
                self._pools = None
            key, values = event.object.key, self._values[event.object.key.kind]
            if event.type == "deleted":
                values.pop(key, None)
                self.refused.pop(key, None)
                events.append(ResourceGone(key, event.revision))
            elif self._accepted(key, event.object.value):
                values[key] = event.object.value
                events.append(ResourcePut(key, event.object.value, event.revision))
        events.extend(Bookmark(kind, revision) for kind, revision in batch.revisions.items())
        return events

    def _accepted(self, key: Key, value: Resource) -> bool:
        try:
            accept(kinds.BY_NAME[key.kind], value)
        except Refused as error:
            self.refused[key] = str(error)
            log.error("%s; its last good version stays in force", error)
            return False
        self.refused.pop(key, None)
        return True

    def all(self, kind: Kind[R]) -> list[R]:
        """The accepted objects of a kind, by key."""
        values = cast("Mapping[Key, R]", self._values[kind.name])
        return [values[key] for key in sorted(values)]

    def node(self) -> Node | None:
        """This node's own object."""
        return cast("Node | None", self._values["Node"].get(Key("Node", self._node)))

    # --- what the allocator reads ---

    def pools(self) -> Sequence[IPPool]:
        """All pools; those that overlap an older one are not allocatable."""
        if self._pools is None:
            self._pools = ip_pools.judged(self.all(ip_pools.KIND))
            for pool in self._pools:
                if pool.hindrance:
                    log.warning("IPPool/%s %s", pool.metadata.name, pool.hindrance)
        return self._pools

    def reservations(self) -> Sequence[IPReservation]:
        """All reservations."""
        return self.all(ip_reservations.KIND)

    def configuration(self) -> IPAMConfiguration:
        """IPAMConfiguration `default`, or the built-in one."""
        found = self._values["IPAMConfiguration"].get(Key(ipam_configurations.KIND.name, "default"))
        return cast("IPAMConfiguration", found) if found is not None else ipam_configurations.DEFAULT

    def node_labels(self) -> Mapping[str, str]:
        """This node's labels."""
        node = self.node()
        return node.metadata.labels if node is not None else {}

    def affinities(self) -> Sequence[BlockAffinity]:
        """All nodes' claims."""
        return self.all(block_affinities.KIND)

    def all_nodes(self) -> list[Node]:
        """All nodes."""
        return self.all(nodes.KIND)
