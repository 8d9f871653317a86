"""The world arranged by what depends on what, so that an event finds the units that it moves."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import TypeVar

from calipy.conversion.pods import pod_addresses
from calipy.felix.calc.routes import Claims, block_of, host_prefix
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import ForeignRoute, Link, LinkAddress
from calipy.model.nodes import NodeAddress
from calipy.model.routes import LearnedRoute
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Key
from calipy.resources.pods import Pod

K = TypeVar("K")
V = TypeVar("V")
E = TypeVar("E")


def store(values: dict[K, V], key: K, value: V | None) -> bool:
    """Puts or removes a value; True if that changed anything."""
    if values.get(key) == value:
        return False
    if value is None:
        del values[key]
    else:
        values[key] = value
    return True


def _move(groups: dict[K, set[E]], element: E, old: K | None, new: K | None) -> None:
    """Moves an element from one group to another; empty groups vanish."""
    if old is not None and old in groups:
        groups[old].discard(element)
        if not groups[old]:
            del groups[old]
    if new is not None:
        groups.setdefault(new, set()).add(element)


class Index:
    """The newest values, and the ways from one to those that depend on it. Methods that take a value in return the
    prefixes whose routes may move."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.nodes: dict[str, NodeAddress] = {}
        self.felix: dict[Key, FelixConfiguration] = {}
        self.pools: dict[str, IPPool] = {}
        self.pool_networks: tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, IPPool], ...] = ()
        self.pods: dict[Key, Pod] = {}
        self.pods_in: dict[str, set[str]] = {}
        """Block -> addresses (as prefixes) of other nodes' pods that lie in it."""
        self._pod_nodes: dict[str, set[tuple[str, Key]]] = {}
        self._affinities: dict[Key, BlockAffinity] = {}
        self._claimants: dict[str, set[tuple[str, Key]]] = {}
        self._blocks_of: dict[str, set[str]] = {}
        self.attachments: dict[EndpointId, WorkloadEndpoint] = {}
        self.attached_by: dict[str, set[EndpointId]] = {}
        """Interface name -> endpoints."""
        self._workloads: dict[str, set[EndpointId]] = {}
        self._learned: dict[str, LearnedRoute] = {}
        self.links: dict[int, Link] = {}
        self.links_by_name: dict[str, Link] = {}
        self._addresses: dict[int, set[LinkAddress]] = {}
        """Of each link by its number."""
        self.foreign_routes: frozenset[ForeignRoute] = frozenset()
        self.foreign_links: frozenset[int] = frozenset()
        """Links that foreign routes lead over."""
        self.workload_prefixes: tuple[str, ...] = ("cali",)

    def put_pool(self, name: str, pool: IPPool | None) -> None:
        """Takes in a pool. All prefixes may move."""
        store(self.pools, name, pool)
        self.pool_networks = tuple((ipaddress.ip_network(p.spec.cidr), p) for p in self.sorted_pools())
        self.pods_in = {}
        for prefix in self._pod_nodes:
            self._place(prefix)

    def sorted_pools(self) -> tuple[IPPool, ...]:
        """The pools by name."""
        return tuple(self.pools[name] for name in sorted(self.pools))

    def put_affinity(self, key: Key, affinity: BlockAffinity | None) -> set[str]:
        """Takes in a claim on a block; the blocks (CIDRs) that may have changed hands."""
        old = self._affinities.get(key)
        if not store(self._affinities, key, affinity):
            return set()
        before = (old.spec.cidr, old.spec.node) if old and old.confirmed else (None, "")
        after = (affinity.spec.cidr, affinity.spec.node) if affinity and affinity.confirmed else (None, "")
        if before == after:
            return set()
        _move(self._claimants, (before[1], key), before[0], None)
        _move(self._claimants, (after[1], key), None, after[0])
        if before[0] is not None:
            _move(self._blocks_of, before[0], before[1], None)
        if after[0] is not None:
            _move(self._blocks_of, after[0], None, after[1])
        return {cidr for cidr in (before[0], after[0]) if cidr is not None}

    def put_pod(self, key: Key, pod: Pod | None) -> set[str]:
        """Takes in a pod of any node."""
        old = self.pods.get(key)
        store(self.pods, key, pod)
        before, after = self._remote(old), self._remote(pod)
        if before == after:
            return set()
        for prefix, node in before:
            _move(self._pod_nodes, (node, key), prefix, None)
        for prefix, node in after:
            _move(self._pod_nodes, (node, key), None, prefix)
        moved = {prefix for prefix, _ in before | after}
        for prefix in moved:
            self._place(prefix)
        return moved

    def put_attachment(self, id_: EndpointId, attachment: WorkloadEndpoint | None) -> set[str]:
        """Takes in what CNI says of an endpoint."""
        old = self.attachments.get(id_)
        store(self.attachments, id_, attachment)
        _move(self.attached_by, id_, old.interface if old else None, attachment.interface if attachment else None)
        before = set(map(host_prefix, old.addresses)) if old else set()
        after = set(map(host_prefix, attachment.addresses)) if attachment else set()
        for prefix in before:
            _move(self._workloads, id_, prefix, None)
        for prefix in after:
            _move(self._workloads, id_, None, prefix)
        return before | after

    def put_link(self, number: int, link: Link | None) -> bool:
        """Takes in a link; True if anything changed."""
        old = self.links.get(number)
        if not store(self.links, number, link):
            return False
        if old is not None and self.links_by_name.get(old.name) == old:
            del self.links_by_name[old.name]
        if link is not None:
            self.links_by_name[link.name] = link
        return True

    def put_address(self, address: LinkAddress) -> None:
        """Takes in an address of a link."""
        self._addresses.setdefault(address.index, set()).add(address)

    def drop_address(self, address: LinkAddress) -> None:
        """A link has lost an address."""
        _move(self._addresses, address, address.index, None)

    def drop_addresses(self, number: int) -> None:
        """A link has gone with all its addresses."""
        self._addresses.pop(number, None)

    def addresses(self) -> Iterator[LinkAddress]:
        """The addresses of all links."""
        return chain.from_iterable(self._addresses.values())

    def addresses_on(self, number: int) -> Collection[LinkAddress]:
        """Those of one link."""
        return self._addresses.get(number, ())

    def put_foreign_routes(self, routes: frozenset[ForeignRoute]) -> bool:
        """Takes in the routes of others; True if anything changed."""
        if routes == self.foreign_routes:
            return False
        self.foreign_routes = routes
        self.foreign_links = frozenset(number for route in routes for _, number in route.next_hops)
        return True

    def learn(self, learned: Mapping[str, LearnedRoute | None]) -> None:
        """Takes in what BGP has learned or lost."""
        for prefix, route in learned.items():
            store(self._learned, prefix, route)

    def claims(self, prefix: str) -> Claims:
        """Who lays claim to a prefix."""
        workloads = self._workloads.get(prefix)
        claimants = self._claimants.get(prefix)
        return Claims(
            workload=self.attachments[min(workloads)] if workloads else None,
            block=min(claimants)[0] if claimants else None,
            pod=self._borrower(prefix),
            learned=self._learned.get(prefix),
        )

    def prefixes_of(self, node: str) -> set[str]:
        """The prefixes whose routes lead to a node: its blocks, and its pods outside of them."""
        pods = {prefix for prefix, nodes in self._pod_nodes.items() if any(name == node for name, _ in nodes)}
        return pods | self._blocks_of.get(node, set())

    def all_prefixes(self) -> set[str]:
        """Every prefix that anyone claims."""
        return {*self._workloads, *self._claimants, *self._pod_nodes, *self._learned}

    def _remote(self, pod: Pod | None) -> set[tuple[str, str]]:
        if pod is None or not pod.spec.node_name or pod.spec.node_name == self._me:
            return set()
        return {(host_prefix(address), pod.spec.node_name) for address in pod_addresses(pod)}

    def _place(self, prefix: str) -> None:
        """Files a remote pod's address under its block, or takes it out where no pod has it any more."""
        block = block_of(self.pool_networks, prefix.partition("/")[0])
        if block is None:
            return
        present = prefix in self._pod_nodes
        _move(self.pods_in, prefix, None if present else block, block if present else None)

    def _borrower(self, prefix: str) -> str | None:
        """The other node with a pod of this address, where the address isn't in that node's own block."""
        pods = self._pod_nodes.get(prefix)
        block = block_of(self.pool_networks, prefix.partition("/")[0]) if pods else None
        if not pods or block is None:
            return None
        claimants = self._claimants.get(block)
        owner = min(claimants)[0] if claimants else None
        return min((node for node, _ in pods if node != owner), default=None)
