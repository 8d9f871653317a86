"""The whole calculation at once: slow, obvious, the definition of what `graph` must give."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import TypeVar

from calipy.conversion.nodes import node_address
from calipy.conversion.pods import pod_addresses
from calipy.felix.calc import configuration, routes, sets, tunnels, whole_policies
from calipy.felix.calc.change import NodeState
from calipy.felix.calc.next_hops import Resolver
from calipy.felix.calc.routes import Claims, View, host_prefix
from calipy.felix.calc.world import World
from calipy.model.endpoints import WorkloadEndpoint
from calipy.model.nodes import NodeAddress
from calipy.model.routes import Route, RouteKey
from calipy.model.tunnels import Tunnel
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.felix_configurations import FelixConfiguration
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Resource
from calipy.resources.nodes import Node
from calipy.resources.pods import Pod

R = TypeVar("R", bound=Resource)


def compute(world: World) -> NodeState:
    """What the node's kernel is to hold, given the world."""
    nodes = {node.metadata.name: node_address(node) for node in _all(world, Node)}
    settings = configuration.merge(
        world.node, _all(world, FelixConfiguration), _labels(nodes, world.node), world.process_settings
    )
    pools = tuple(_all(world, IPPool))
    members = {**sets.pool_sets(pools, settings), **sets.host_sets(world.node, nodes.values(), settings)}
    found = {
        family: tunnels.tunnel(world.node, nodes, world.links, world.addresses, settings, family)
        for family in (4, 6)
        if tunnels.wanted(pools, settings, family)
    }
    tunnel_of: dict[int, Tunnel] = {family: tunnel for family, tunnel in found.items() if tunnel}
    view = View(
        me=world.node,
        settings=settings,
        nodes=nodes,
        pools=tuple((ipaddress.ip_network(pool.spec.cidr), pool) for pool in pools),
        links={link.name: link for link in world.links.values()},
        resolver=Resolver(world.foreign_routes, world.links),
        tunnels=tunnel_of,
    )
    policy = whole_policies.compute(world, sets.families(settings))
    members = {**members, **policy.sets}
    return NodeState(
        settings=settings,
        endpoints=policy.endpoints,
        policies=policy.policies,
        profiles=policy.profiles,
        runs=policy.runs,
        sets={key: kind for key, (kind, _) in members.items()},
        members={key: found for key, (_, found) in members.items()},
        routes=_routes(world, view),
        tunnels={tunnel.name: tunnel for tunnel in tunnel_of.values()},
    )


def _all(world: World, kind: type[R]) -> Iterator[R]:
    for key in sorted(world.resources):
        value = world.resources[key]
        if isinstance(value, kind):
            yield value


def _labels(nodes: Mapping[str, NodeAddress], name: str) -> Mapping[str, str]:
    return nodes[name].labels if name in nodes else {}


def _routes(world: World, view: View) -> dict[RouteKey, Route]:
    workloads: dict[str, WorkloadEndpoint] = {}
    for id_ in sorted(world.attachments, reverse=True):
        for address in world.attachments[id_].addresses:
            workloads[host_prefix(address)] = world.attachments[id_]
    blocks = _blocks(world)
    pods = _remote_pods(world, view, blocks)
    found: dict[RouteKey, Route] = {}
    for prefix in {*workloads, *blocks, *pods, *world.learned}:
        claims = Claims(
            workload=workloads.get(prefix),
            block=blocks.get(prefix),
            pod=pods.get(prefix),
            learned=world.learned.get(prefix),
        )
        route = routes.winner(view, prefix, claims)
        if route is not None:
            found[route.key] = route
    return found


def _blocks(world: World) -> dict[str, str]:
    """Confirmed block -> node; where two nodes claim one, the first name."""
    blocks: dict[str, str] = {}
    for affinity in _all(world, BlockAffinity):
        if affinity.confirmed:
            cidr = affinity.spec.cidr
            blocks[cidr] = min(affinity.spec.node, blocks.get(cidr, affinity.spec.node))
    return blocks


def _remote_pods(world: World, view: View, blocks: Mapping[str, str]) -> dict[str, str]:
    """Address of another node's pod outside that node's own blocks -> that node."""
    found: dict[str, str] = {}
    for pod in _all(world, Pod):
        node = pod.spec.node_name
        if not node or node == world.node:
            continue
        for address in pod_addresses(pod):
            prefix = host_prefix(address)
            block = routes.block_of(view.pools, address)
            if block is not None and blocks.get(block) != node:
                found[prefix] = min(node, found.get(prefix, node))
    return found
