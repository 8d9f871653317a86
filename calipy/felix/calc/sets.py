"""The sets that every node has: pools, masqueraded pools, hosts (calico.md 3.5)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from calipy.felix.calc.change import SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.model.nodes import NodeAddress
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS, SetKind
from calipy.resources.ip_pools import IPPool

Members = Mapping[SetKey, tuple[SetKind, frozenset[str]]]


def families(settings: FelixSettings) -> tuple[int, ...]:
    """The address families in force."""
    return (4, 6) if settings.ipv6_support else (4,)


def pool_sets(pools: Iterable[IPPool], settings: FelixSettings) -> Members:
    """All pools of pods and tunnels, disabled ones too (their addresses live on), and those with natOutgoing."""
    pools = [pool for pool in pools if "LoadBalancer" not in pool.spec.allowed_uses]
    sets: dict[SetKey, tuple[SetKind, frozenset[str]]] = {}
    for family in families(settings):
        mine = [pool for pool in pools if pool.family == family]
        for id_, chosen in (
            (NETWORK_IP_POOLS, mine),
            (MASQUERADED_IP_POOLS, [pool for pool in mine if pool.spec.nat_outgoing]),
        ):
            cidrs = frozenset(str(ipaddress.ip_network(pool.spec.cidr)) for pool in chosen)
            sets[SetKey(id_, family)] = ("prefixes", cidrs)
    return sets


def host_sets(me: str, nodes: Iterable[NodeAddress], settings: FelixSettings) -> Members:
    """All nodes' addresses with externalNodesList, and those that may send VXLAN to this node."""
    nodes = list(nodes)
    sets: dict[SetKey, tuple[SetKind, frozenset[str]]] = {}
    for family in families(settings):
        hosts = frozenset(_addresses(nodes, family)) | _external(settings, family)
        sets[SetKey(ALL_HOSTS, family)] = ("prefixes" if any("/" in host for host in hosts) else "addresses", hosts)
        remote = [node for node in nodes if node.name != me and family in node.vxlan]
        sets[SetKey(VXLAN_HOSTS, family)] = ("addresses", frozenset(_addresses(remote, family)))
    return sets


@lru_cache(maxsize=16384)
def host_of(interface: str) -> str:
    """`10.9.0.11/24` -> `10.9.0.11`, canonical."""
    return str(ipaddress.ip_interface(interface).ip)


def _addresses(nodes: Iterable[NodeAddress], family: int) -> Iterator[str]:
    for node in nodes:
        if family in node.addresses:
            yield host_of(node.addresses[family])


def _external(settings: FelixSettings, family: int) -> frozenset[str]:
    networks = [ipaddress.ip_network(text, strict=False) for text in settings.external_nodes]
    whole = {4: 32, 6: 128}[family]
    return frozenset(
        str(network.network_address) if network.prefixlen == whole else str(network)
        for network in networks
        if network.version == family
    )
