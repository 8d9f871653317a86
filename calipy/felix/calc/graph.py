"""The calculation by steps: the same result as `whole`, touching only what an event can move.

Events wait in a queue until a flush takes them; each marks the units that depend on it (an endpoint, a prefix, the
sets, the tunnels, the settings); the flush computes the marked units anew and says what moved.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import cast

from calipy.conversion.nodes import node_address
from calipy.felix.calc import configuration, routes, sets, tunnels
from calipy.felix.calc.change import Change, NodeState, SetDelta, SetKey
from calipy.felix.calc.index import Index, store
from calipy.felix.calc.next_hops import Resolver
from calipy.felix.calc.policy_graph import PolicyGraph
from calipy.felix.calc.routes import View, host_prefix
from calipy.felix.calc.sets import host_of
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.calc.stats import Stats
from calipy.felix.calc.world import (
    AddressGone,
    AddressSeen,
    Attached,
    Bookmark,
    Detached,
    Event,
    ForeignRoutesRead,
    LinkGone,
    LinkSeen,
    ResourceGone,
    ResourcePut,
    RoutesLearned,
)
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import Link, LinkAddress
from calipy.model.routes import Route, RouteKey
from calipy.model.sets import SetKind
from calipy.model.tunnels import Tunnel
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.felix_configurations import FelixConfiguration, Value
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Key, Resource
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod

_SLICE = 50
"""Units between two points at which a flush may pause."""


class Graph:
    """Incremental calculation for one node."""

    def __init__(self, node: str, process_settings: Mapping[str, Mapping[str, Value]]) -> None:
        self.node = node
        self._process_settings = process_settings
        self._queue: list[Event] = []
        self._index = Index(node)
        self._dirty = _Dirty()
        self._revisions: dict[str, int] = {}
        self._settings = configuration.merge(node, (), {}, process_settings)
        self._view: View | None = None
        self._policy = PolicyGraph(node)
        self._sets: dict[SetKey, tuple[SetKind, frozenset[str]]] = {}
        self._tunnels: dict[int, Tunnel] = {}
        self._routes: dict[str, Route] = {}
        self._dirty.everything()

    def update(self, events: Iterable[Event]) -> None:
        """Takes events in; they count from the next flush on."""
        self._queue.extend(events)

    @property
    def stats(self) -> Stats:
        """What policy has cost so far."""
        return self._policy.stats

    @property
    def idle(self) -> bool:
        """True if a flush would find nothing to do."""
        return not self._queue and not self._dirty and self._policy.idle

    def flush(self) -> Generator[None, None, Change]:
        """Computes what the events so far have moved. Yields None wherever it may pause; returns the Change.
        A flush must be run to its end before the next one starts."""
        queue, self._queue = self._queue, []
        for count, event in enumerate(queue):
            self._take(event)
            if count % _SLICE == _SLICE - 1:
                yield
        settings = self._flush_settings()
        moved_sets, moved_members = self._flush_sets()
        moved_tunnels = self._flush_tunnels()
        policy = yield from self._policy.flush(sets.families(self._settings))
        moved_routes = yield from self._flush_routes()
        revisions, self._revisions = self._revisions, {}
        return Change(
            settings=settings,
            endpoints=policy.endpoints,
            policies=policy.policies,
            profiles=policy.profiles,
            runs=policy.runs,
            sets={**moved_sets, **policy.sets},
            members={**moved_members, **policy.members},
            routes=moved_routes,
            tunnels=moved_tunnels,
            revisions=revisions,
        )

    def state(self) -> NodeState:
        """All that has been computed up to the last flush."""
        policy = self._policy.state()
        return NodeState(
            settings=self._settings,
            endpoints=policy.endpoints,
            policies=policy.policies,
            profiles=policy.profiles,
            runs=policy.runs,
            sets={**{key: kind for key, (kind, _) in self._sets.items()}, **policy.sets},
            members={**{key: members for key, (_, members) in self._sets.items()}, **policy.members},
            routes={route.key: route for route in self._routes.values()},
            tunnels={tunnel.name: tunnel for tunnel in self._tunnels.values()},
        )

    # --- events ---

    def _take(self, event: Event) -> None:
        index, dirty = self._index, self._dirty
        match event:
            case ResourcePut() | ResourceGone():
                value = event.value if isinstance(event, ResourcePut) else None
                self._seen(event.key.kind, event.revision)
                self._take_resource(event.key, value)
            case Bookmark():
                self._seen(event.kind, event.revision)
            case Attached():
                self._take_attachment(event.endpoint.id, event.endpoint)
            case Detached():
                self._take_attachment(event.id, None)
            case RoutesLearned():
                index.learn(event.routes)
                dirty.prefixes.update(event.routes)
            case _:
                self._take_fact(event)

    def _seen(self, kind: str, revision: int) -> None:
        self._revisions[kind] = max(revision, self._revisions.get(kind, 0))

    def _take_resource(self, key: Key, value: Resource | None) -> None:
        index, dirty = self._index, self._dirty
        self._policy.put(key, value)
        match key.kind:
            case "Node":
                self._take_node(key.name, cast("Node | None", value))
            case "IPPool":
                index.put_pool(key.name, cast("IPPool | None", value))
                dirty.sets = dirty.tunnels = dirty.all_prefixes = dirty.view = True
            case "BlockAffinity":
                for cidr in index.put_affinity(key, cast("BlockAffinity | None", value)):
                    dirty.prefixes |= {cidr, *index.pods_in.get(cidr, ())}
            case "FelixConfiguration":
                if store(index.felix, key, cast("FelixConfiguration | None", value)):
                    dirty.settings = True
            case "Pod":
                dirty.prefixes |= index.put_pod(key, cast("Pod | None", value))

    def _take_node(self, name: str, node: Node | None) -> None:
        index, dirty = self._index, self._dirty
        if not store(index.nodes, name, node_address(node) if node else None):
            return
        dirty.sets = dirty.tunnels = dirty.view = True
        if name == self.node:
            dirty.settings = dirty.all_prefixes = True
        dirty.prefixes |= index.prefixes_of(name)

    def _take_attachment(self, id_: EndpointId, attachment: WorkloadEndpoint | None) -> None:
        self._policy.attach(id_, attachment)
        self._dirty.prefixes |= self._index.put_attachment(id_, attachment)

    def _take_fact(self, event: LinkSeen | LinkGone | AddressSeen | AddressGone | ForeignRoutesRead) -> None:
        index, dirty = self._index, self._dirty
        match event:
            case LinkSeen():
                self._take_link(event.link.index, event.link)
            case LinkGone():
                self._take_link(event.index, None)
                index.drop_addresses(event.index)
            case AddressSeen():
                index.put_address(event.address)
                dirty.tunnels |= self._is_own(event.address)
            case AddressGone():
                index.drop_address(event.address)
                dirty.tunnels |= self._is_own(event.address)
            case ForeignRoutesRead():
                if index.put_foreign_routes(event.routes):
                    dirty.view = dirty.all_prefixes = True

    def _take_link(self, number: int, link: Link | None) -> None:
        """A workload's link moves that workload's routes only; one that others' routes or a tunnel use moves all."""
        index, dirty = self._index, self._dirty
        names = {entry.name for entry in (index.links.get(number), link) if entry is not None}
        if not index.put_link(number, link):
            return
        for name in names:
            for id_ in index.attached_by.get(name, ()):
                dirty.prefixes.update(map(host_prefix, index.attachments[id_].addresses))
        workload_only = all(name in index.attached_by or name.startswith(index.workload_prefixes) for name in names)
        if not workload_only or number in index.foreign_links:
            dirty.tunnels = dirty.view = dirty.all_prefixes = True
        elif any(map(self._is_own, index.addresses_on(number))):
            dirty.tunnels = True

    def _is_own(self, address: LinkAddress) -> bool:
        """True for the node's own address, wherever it is: a tunnel's parent has it. Workloads' links have others."""
        mine = self._index.nodes.get(self.node)
        return mine is not None and any(host_of(own) == address.address for own in mine.addresses.values())

    # --- units ---

    def _flush_settings(self) -> FelixSettings | None:
        if not self._dirty.settings:
            return None
        self._dirty.settings = False
        mine = self._index.nodes.get(self.node)
        found = configuration.merge(
            self.node,
            [self._index.felix[key] for key in sorted(self._index.felix)],
            mine.labels if mine else {},
            self._process_settings,
        )
        if found == self._settings and self._view is not None:
            return None
        self._settings = found
        self._index.workload_prefixes = found.interface_prefixes
        self._dirty.everything_but_settings()
        return found

    def _flush_sets(self) -> tuple[dict[SetKey, SetKind | None], dict[SetKey, SetDelta]]:
        if not self._dirty.sets:
            return {}, {}
        self._dirty.sets = False
        index, old = self._index, self._sets
        self._sets = {
            **sets.pool_sets(index.sorted_pools(), self._settings),
            **sets.host_sets(self.node, index.nodes.values(), self._settings),
        }
        kinds: dict[SetKey, SetKind | None] = {}
        members: dict[SetKey, SetDelta] = {}
        nothing: tuple[None, frozenset[str]] = (None, frozenset())
        for key in {**old, **self._sets}:
            (old_kind, before), (kind, after) = old.get(key, nothing), self._sets.get(key, nothing)
            if kind != old_kind:
                kinds[key] = kind
            if before != after:
                members[key] = SetDelta(after - before, before - after)
        return kinds, members

    def _flush_tunnels(self) -> dict[str, Tunnel | None]:
        if not self._dirty.tunnels:
            return {}
        self._dirty.tunnels = False
        index, old = self._index, self._tunnels
        found: dict[int, Tunnel] = {}
        for family in (4, 6):
            if tunnels.wanted(index.pools.values(), self._settings, family):
                tunnel = tunnels.tunnel(self.node, index.nodes, index.links, index.addresses(), self._settings, family)
                if tunnel is not None:
                    found[family] = tunnel
        self._tunnels = found
        moved: dict[str, Tunnel | None] = {}
        for family in old.keys() | found.keys():
            if old.get(family) != found.get(family):
                moved[tunnels.DEVICES[family]] = found.get(family)
                self._dirty.view = self._dirty.all_prefixes = True
        return moved

    def _flush_routes(self) -> Generator[None, None, dict[RouteKey, Route | None]]:
        view = self._current_view()
        prefixes = self._dirty.prefixes
        if self._dirty.all_prefixes:
            prefixes = prefixes | self._index.all_prefixes() | self._routes.keys()
        self._dirty.prefixes, self._dirty.all_prefixes = set(), False
        moved: dict[RouteKey, Route | None] = {}
        for count, prefix in enumerate(prefixes):
            self._flush_route(view, prefix, moved)
            if count % _SLICE == _SLICE - 1:
                yield
        return moved

    def _flush_route(self, view: View, prefix: str, moved: dict[RouteKey, Route | None]) -> None:
        old, new = self._routes.get(prefix), routes.winner(view, prefix, self._index.claims(prefix))
        if old == new:
            return
        if old is not None:
            moved[old.key] = None
        if new is None:
            del self._routes[prefix]
        else:
            self._routes[prefix] = moved[new.key] = new

    def _current_view(self) -> View:
        if self._view is None or self._dirty.view:
            index = self._index
            self._view = View(
                me=self.node,
                settings=self._settings,
                nodes=index.nodes,
                pools=index.pool_networks,
                links=index.links_by_name,
                resolver=Resolver(index.foreign_routes, index.links),
                tunnels=self._tunnels,
            )
            self._dirty.view = False
        return self._view


class _Dirty:
    """What the next flush has to compute anew."""

    def __init__(self) -> None:
        self.settings = self.sets = self.tunnels = self.view = self.all_prefixes = False
        self.prefixes: set[str] = set()

    def everything(self) -> None:
        self.settings = True
        self.everything_but_settings()

    def everything_but_settings(self) -> None:
        self.sets = self.tunnels = self.view = self.all_prefixes = True

    def __bool__(self) -> bool:
        return bool(self.settings or self.sets or self.tunnels or self.all_prefixes or self.prefixes)
