"""Which route wins for a prefix, and what it looks like in the kernel (calico.md 3.8: one precedence for all kinds).

Workload, then VXLAN within the node's own subnet, then VXLAN through the tunnel, then a direct route to a node of the
same subnet where Felix is asked for it, then the blackhole of an own block, last what BGP has learned. (In Calico those
two are BIRD's, where static routes, preference 200, come before BGP's, 100. A peer that tells a node of the node's own
block would else make a loop of the block's free addresses.)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from msgspec import Struct

from calipy.felix.calc.next_hops import Resolver
from calipy.felix.calc.settings import FelixSettings
from calipy.model.endpoints import WorkloadEndpoint
from calipy.model.links import Link
from calipy.model.nodes import NodeAddress
from calipy.model.origins import Origin
from calipy.model.routes import PROTOCOL_BIRD, LearnedRoute, NextHop, Route
from calipy.model.tunnels import Tunnel
from calipy.resources.cidrs import family_of
from calipy.resources.ip_pools import IPPool

_WHOLE = {4: 32, 6: 128}


class View(Struct, frozen=True, gc=False, kw_only=True):
    """What all routes depend on."""

    me: str
    settings: FelixSettings
    nodes: Mapping[str, NodeAddress]
    pools: tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, IPPool], ...]
    links: Mapping[str, Link]
    """By name."""
    resolver: Resolver
    tunnels: Mapping[int, Tunnel]
    """By family."""


class Claims(Struct, frozen=True, gc=False, kw_only=True):
    """Who lays claim to one prefix."""

    workload: WorkloadEndpoint | None = None
    block: str | None = None
    """Node with a confirmed affinity to exactly this block."""
    pod: str | None = None
    """Other node that runs a pod of this address, which lies outside that node's own blocks."""
    learned: LearnedRoute | None = None


def host_prefix(address: str) -> str:
    """`10.1.2.3` -> `10.1.2.3/32`."""
    return f"{address}/{_WHOLE[family_of(address)]}"


def metric_of(settings: FelixSettings, family: int) -> int:
    """The metric of all routes that aren't learned."""
    return settings.ipv4_normal_route_priority if family == 4 else settings.ipv6_normal_route_priority


def pool_of(view: View, prefix: str) -> IPPool | None:
    """The narrowest pool that holds `prefix`."""
    network = ipaddress.ip_network(prefix)
    holders = [
        (pool_network.prefixlen, pool)
        for pool_network, pool in view.pools
        if pool_network.version == network.version and network.subnet_of(pool_network)  # type: ignore[arg-type]
    ]
    return max(holders, key=lambda holder: holder[0])[1] if holders else None


def winner(view: View, prefix: str, claims: Claims) -> Route | None:
    """The route for `prefix`, perhaps one that waits; None if nobody's claim leads to a route here."""
    family = family_of(prefix)
    if family == 6 and not view.settings.ipv6_support:
        return None
    if claims.workload is not None:
        return _workload(view, prefix, claims.workload)
    pool = pool_of(view, prefix)
    remote = claims.block if claims.block not in (None, view.me) else claims.pod
    if remote is not None and pool is not None:
        route = _to_node(view, prefix, remote, pool)
        if route is not None:
            return route
    if claims.block == view.me and not prefix.endswith(f"/{_WHOLE[family]}"):
        origin = Origin("block", f"own, {pool.metadata.name}" if pool else "own")
        return Route(prefix=prefix, origin=origin, kind="blackhole", metric=metric_of(view.settings, family))
    if claims.learned is not None and not (pool is not None and pool.spec.vxlan_mode != "Never"):
        return _learned(view, claims.learned)
    return None


def _workload(view: View, prefix: str, endpoint: WorkloadEndpoint) -> Route:
    family = family_of(prefix)
    link = view.links.get(endpoint.interface)
    source = (
        view.settings.device_route_source_address if family == 4 else view.settings.device_route_source_address_ipv6
    )
    return Route(
        prefix=prefix,
        origin=Origin("workload", endpoint.id.workload),
        next_hops=(NextHop(None, link.name, link.index),) if link else (),
        metric=metric_of(view.settings, family),
        protocol=view.settings.device_route_protocol,
        scope="link" if family == 4 else "global",
        source=source,
        waits_for=_link_problem(link, endpoint.interface),
    )


def _link_problem(link: Link | None, name: str) -> str:
    if link is None:
        return f"link {name} is absent"
    return "" if link.up else f"link {name} is down"


def _to_node(view: View, prefix: str, node: str, pool: IPPool) -> Route | None:
    """The way to another node's block or pod where Felix, not BGP, is in charge of it."""
    near = _same_subnet(view, node, family_of(prefix))
    if pool.spec.vxlan_mode == "Always" or (pool.spec.vxlan_mode == "CrossSubnet" and near is None):
        return _through_tunnel(view, prefix, node)
    if pool.spec.vxlan_mode == "CrossSubnet":
        return _direct(view, prefix, near, Origin("vxlan-same-subnet", node))
    direct_wanted = view.settings.program_cluster_routes in ("Enabled", "EnabledNoEncapOnly")
    if direct_wanted and pool.spec.ipip_mode == "Never" and near is not None:
        return _direct(view, prefix, near, Origin("same-subnet", node))
    return None


def _same_subnet(view: View, node: str, family: int) -> str | None:
    """The other node's address if it is on this node's own subnet."""
    mine, other = view.nodes.get(view.me), view.nodes.get(node)
    if mine is None or other is None or family not in mine.addresses or family not in other.addresses:
        return None
    address = ipaddress.ip_interface(other.addresses[family]).ip
    return str(address) if address in ipaddress.ip_interface(mine.addresses[family]).network else None


def _through_tunnel(view: View, prefix: str, node: str) -> Route:
    family = family_of(prefix)
    tunnel, other = view.tunnels.get(family), view.nodes.get(node)
    end = other.vxlan.get(family) if other else None
    link = view.links.get(tunnel.name) if tunnel else None
    if tunnel is None or end is None:
        reason = "this node has no VXLAN tunnel" if tunnel is None else f"node {node} has no VXLAN tunnel address yet"
    else:
        reason = _link_problem(link, tunnel.name)
    return Route(
        prefix=prefix,
        origin=Origin("vxlan", node),
        next_hops=(NextHop(end.address, link.name, link.index, onlink=True),) if link and end else (),
        metric=metric_of(view.settings, family),
        waits_for=reason,
    )


def _direct(view: View, prefix: str, gateway: str | None, origin: Origin) -> Route:
    found = view.resolver.resolve(gateway) if gateway else "the node's address is not known"
    return Route(
        prefix=prefix,
        origin=origin,
        next_hops=found if isinstance(found, tuple) else (),
        metric=metric_of(view.settings, family_of(prefix)),
        waits_for=found if isinstance(found, str) else "",
    )


def _learned(view: View, learned: LearnedRoute) -> Route:
    ways: set[NextHop] = set()
    reason = ""
    for hop in learned.next_hops:
        found = view.resolver.resolve(hop)
        if isinstance(found, str):
            reason = found
        else:
            ways.update(found)
    return Route(
        prefix=learned.prefix,
        origin=Origin("bgp", ", ".join(learned.peers)),
        next_hops=tuple(sorted(ways)),
        metric=learned.metric,
        protocol=PROTOCOL_BIRD,
        waits_for="" if ways else reason or "it has no next hop",
    )


def block_of(
    pools: tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, IPPool], ...], address: str
) -> str | None:
    """The block (CIDR text) that `address` lies in by its pool's block size; None outside all pools."""
    target = ipaddress.ip_address(address)
    holders = [(network.prefixlen, pool) for network, pool in pools if target in network]
    if not holders:
        return None
    pool = max(holders, key=lambda holder: holder[0])[1]
    return str(ipaddress.ip_network(f"{address}/{pool.block_size}", strict=False))
