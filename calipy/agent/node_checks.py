"""What `node.checking` has to know of this node, from those who know it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from calipy.conversion.nodes import node_address
from calipy.felix.drivers.links import DEVICES
from calipy.felix.engine import Engine
from calipy.netlink.socket import NETFILTER, NetlinkSocket
from calipy.node.checking import EVERY_S, Checks
from calipy.node.ways import Pods
from calipy.resources.ip_pools import IPPool
from calipy.resources.nodes import Node

_EVERYWHERE = ("0.0.0.0/0", "::/0")


class Objects(Protocol):
    """What the store says."""

    def node(self) -> Node | None:
        """This node."""
        ...

    def pools_in_force(self) -> Sequence[IPPool]:
        """The pools."""
        ...


def node_checks(engine: Engine, objects: Objects, *, namespace: int | None = None, every_s: float = EVERY_S) -> Checks:
    """The checks of an engine's node, which tells them of others' packet filters; `run` is the caller's to call."""
    socket = NetlinkSocket.open(NETFILTER, namespace=namespace)
    checks = Checks(socket, lambda: pods_of(engine, objects), every_s=every_s)
    engine.monitor.on_tables = checks.changed
    return checks


def pods_of(engine: Engine, objects: Objects) -> Pods:
    """Where the node's pods are, and how their packets come and go."""
    monitor, settings = engine.monitor, engine.settings
    links = {index: link.name for index, link in monitor.links.items()}
    host = links.keys() - monitor.workload_links.keys()
    return Pods(
        prefixes=settings.interface_prefixes,
        nets=tuple(sorted(pool.spec.cidr for pool in objects.pools_in_force())),
        own=tuple(sorted(found.address for found in monitor.addresses if found.index in host)),
        carriers=tuple(sorted({links[index] for index in _carriers(engine, objects.node()) if index in host})),
        links=links,
        to_node=settings.default_endpoint_to_host_action == "ACCEPT",
    )


def _carriers(engine: Engine, node: Node | None) -> Iterator[int]:
    """Interfaces by which pods' packets come and go: where the node's address is, where our own routes lead, and
    others' that lead everywhere, and the tunnels."""
    monitor, state = engine.monitor, engine.dataplane.state
    own = {text.partition("/")[0] for text in node_address(node).addresses.values()} if node is not None else set()
    yield from (found.index for found in monitor.addresses if found.address in own)
    for route in state.routes.values() if state is not None else ():
        yield from (hop.index for hop in route.next_hops)
    for foreign in monitor.foreign_routes:
        if foreign.prefix in _EVERYWHERE:
            yield from (index for _, index in foreign.next_hops)
    yield from (index for index, link in monitor.links.items() if link.name in DEVICES)
