"""The store's news: judged at the edge, kept as the newest accepted values, passed on as events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from calipy.datastore.batches import Batch
from calipy.datastore.stores import Stored
from calipy.felix.calc import world
from calipy.felix.calc.world import Bookmark, Event, ResourceGone, ResourcePut
from calipy.ipam.allocator import Inputs
from calipy.resources import block_affinities, ip_pools, ip_reservations, ipam_configurations, kinds, nodes
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_configurations import IPAMConfiguration
from calipy.resources.metadata import Key, Kind, Refused, Resource, accept
from calipy.resources.nodes import Node
from calipy.telemetry import Pulse


class Source(Protocol):
    """Where the news come from: a mirror of the store."""

    def batches(self) -> AsyncIterator[Batch]:
        """What has happened, without end."""
        ...

    @property
    def unreadable(self) -> Mapping[Key, str]:
        """Objects that can't be decoded now, and why."""
        ...


log = logging.getLogger("calipy.agent.feed")
R = TypeVar("R", bound=Resource)
SLICE_S = 0.005
"""How long judging what the store tells may hold the loop in one go."""

IDLE = (
    "HostEndpoint", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy",
    "CalicoNodeStatus",
)  # fmt: skip
"""Kinds whose objects have no effect on a node: watched to be named."""
WATCHED = (
    *world.WATCHED, "IPReservation", "IPAMConfiguration", "BGPConfiguration", "BGPPeer", "CalipyConfiguration", *IDLE,
)  # fmt: skip


def watched() -> tuple[Kind[Any], ...]:
    """The kinds that an agent follows."""
    return tuple(kinds.BY_NAME[name] for name in WATCHED)


class Feed(Inputs):
    """The newest accepted value of everything that the agent follows. A value that isn't accepted is logged and
    counted as refused, and the last good one stays in force."""

    def __init__(self, mirror: Source, node: str) -> None:
        self._mirror = mirror
        self._node = node
        self._values: dict[str, dict[Key, Resource]] = {name: {} for name in WATCHED}
        self._listed: dict[str, tuple[Resource, ...]] = {}
        """What `all` has put together of each kind; nothing where something has changed since."""
        self._pools: dict[Key, tuple[IPPool, int]] = {}
        """Pools that are right by themselves, with their revisions; not all of them may be in force together."""
        self._judged: tuple[IPPool, ...] | None = None
        """All of them as they stand to each other; None = something has changed since."""
        self._refused: dict[Key, str] = {}
        self.newest: dict[str, int] = {}
        """Kind -> revision of the last change of any object of it. How far the store has come besides doesn't count: it
        comes further with every write of anybody's."""
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self.on_news: Callable[[Sequence[Event], float], object] = lambda events, since_s: None
        """Told of what moves once in sync, before it is passed on, and when the store delivered it (monotonic)."""
        self.in_sync = asyncio.Event()
        self.pulse = Pulse()

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """`listener` is called with the kinds that have changed, after each batch once in sync."""
        self._listeners.append(listener)

    @property
    def refused(self) -> Mapping[Key, str]:
        """Objects that are refused now, and why: those that can't be decoded included."""
        return {**self._mirror.unreadable, **self._refused}

    async def run(self, post: Callable[[Sequence[Event]], object]) -> None:
        """Follows the mirror without end."""
        async for batch in self._mirror.batches():
            with self.pulse.turn():
                await self._hand_on(batch, post)

    async def _hand_on(self, batch: Batch, post: Callable[[Sequence[Event]], object]) -> None:
        events: list[Event] = []
        until = time.monotonic() + SLICE_S
        for some in self._take(batch):
            events += some
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
        if events:
            if self.in_sync.is_set():
                self.on_news(events, batch.since_s)
            post(events)
        if batch.in_sync:
            self.in_sync.set()
            changed = frozenset(event.object.key.kind for event in batch.events if event.object)
            for listener in self._listeners:
                listener(changed)

    def _take(self, batch: Batch) -> Iterator[Sequence[Event]]:
        """What a batch leads to, object by object: a listing may be long."""
        for event in batch.events:
            if event.object is None:
                continue
            kind = event.object.key.kind
            self.newest[kind] = max(event.revision, self.newest.get(kind, 0))
            if event.type == "deleted":
                yield self._gone(event.object.key, event.revision)
            else:
                yield self._put(event.object)
        if any(event.object and event.object.key.kind == "IPPool" for event in batch.events):
            yield self._settle_pools(batch.revisions.get("IPPool", 0))
        yield [Bookmark(kind, revision) for kind, revision in batch.revisions.items()]

    def _gone(self, key: Key, revision: int) -> list[Event]:
        self._refused.pop(key, None)
        self._pools.pop(key, None)
        self._listed.pop(key.kind, None)
        return [ResourceGone(key, revision)] if self._values[key.kind].pop(key, None) is not None else []

    def _put(self, stored: Stored[Any]) -> list[Event]:
        key, value = stored.key, stored.value
        held = self._pools[key][0] if key in self._pools else self._values[key.kind].get(key)
        same = held is not None and held.metadata.uid == value.metadata.uid
        try:
            accept(kinds.BY_NAME[key.kind], value, held if same else None)
        except Refused as error:
            # What is held of another object, deleted since, has no claim to stay.
            gone = [] if same or held is None else self._gone(key, stored.revision)
            self._refuse(key, f"{error}; {'its last good version stays in force' if same else 'it is left out'}")
            return gone
        if key.kind == "IPPool":
            self._pools[key] = (value, stored.revision)
            return []
        self._accept(key)
        self._values[key.kind][key] = value
        self._listed.pop(key.kind, None)
        return [ResourcePut(key, value, stored.revision)]

    def _settle_pools(self, revision: int) -> list[Event]:
        """Which pools are in force is decided over all of them: one that overlaps an older one waits."""
        self._judged = None
        self._listed.pop("IPPool", None)
        beaten = ip_pools.overlaps(pool for pool, _ in self._pools.values())
        held = self._values["IPPool"]
        events: list[Event] = []
        for key, (pool, put_at) in self._pools.items():
            if key.name in beaten:
                self._refuse(key, f"{Refused(str(key), [beaten[key.name]])}; it is left out")
                if held.pop(key, None) is not None:
                    events.append(ResourceGone(key, revision))
                continue
            if pool is not held.get(key):
                held[key] = pool
                events.append(ResourcePut(key, pool, put_at))
                self._accept(key)
        return events

    def _refuse(self, key: Key, reason: str) -> None:
        if self._refused.get(key) != reason:
            log.error("%s", reason)
        self._refused[key] = reason

    def _accept(self, key: Key) -> None:
        if self._refused.pop(key, None) is not None:
            log.info("%s is accepted again", key)

    def all(self, kind: Kind[R]) -> tuple[R, ...]:
        """The accepted objects of a kind, by key; the same tuple until one of them changes."""
        found = self._listed.get(kind.name)
        if found is None:
            values = self._values[kind.name]
            found = self._listed[kind.name] = tuple(values[key] for key in sorted(values))
        return cast("tuple[R, ...]", found)

    def node(self) -> Node | None:
        """This node's own object."""
        return cast("Node | None", self._values["Node"].get(Key("Node", self._node)))

    # --- what the allocator reads ---

    def pools(self) -> Sequence[IPPool]:
        """All pools that are right by themselves; those that overlap an older one are not allocatable, and say so."""
        if self._judged is None:
            self._judged = ip_pools.judged(pool for pool, _ in self._pools.values())
        return self._judged

    def pools_in_force(self) -> Sequence[IPPool]:
        """Those that overlap no older one."""
        return self.all(ip_pools.KIND)

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

    def all_nodes(self) -> Sequence[Node]:
        """All nodes."""
        return self.all(nodes.KIND)
