"""What this node tells each of its peers (calico.md 4.4, as far as it applies to a speaker that only originates).

A confirmed block goes out as a whole and stands for all that lies in it, whatever has become of its pool. The address
of an endpoint outside of them (borrowed from another node's block) goes out as a /32 or /128, inside an enabled pool
only. Nothing goes out from a pool with disableBGPExport.
Routes learned from one peer are never told to another.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from calipy.bgp.peers import Announcement, Peer, Topology
from calipy.resources.bgp_configurations import BGPConfiguration, BGPConfigurationSpec
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_GREATEST_PREFERENCE = 2147483647
_NORMAL_METRIC = 1024
_COMMUNITY = re.compile(r"\d+:\d+(:\d+)?")
"""A name that no community bears doesn't match and is left out."""


class _Tag(Struct, frozen=True, gc=False):
    network: _Network
    communities: tuple[str, ...]


def compute(
    node: str,
    topology: Topology,
    affinities: Iterable[BlockAffinity],
    pools: Iterable[IPPool],
    addresses: Iterable[str],
    configurations: Iterable[BGPConfiguration],
) -> Mapping[str, tuple[Announcement, ...]]:
    """What each peer (by name) is to hear, sorted. `addresses` are those of this node's endpoints, without prefix
    length. A peer that is to hear nothing stands there with an empty tuple."""
    blocks = sorted(_blocks(node, affinities), key=str)
    pool_list = [(ipaddress.ip_network(pool.spec.cidr, strict=False), pool) for pool in pools]
    prefixes = [
        prefix
        for prefix in (*blocks, *_borrowed(addresses, blocks))
        if _exported(prefix, pool_list, block=prefix in blocks)
    ]
    by_name = {configuration.metadata.name: configuration.spec for configuration in configurations}
    default, own = by_name.get("default"), by_name.get(f"node.{node}")
    tags = _tags(own if own is not None and own.prefix_advertisements else default)
    metrics = {
        4: (default and default.ipv4_normal_route_priority) or _NORMAL_METRIC,
        6: (default and default.ipv6_normal_route_priority) or _NORMAL_METRIC,
    }
    return {
        peer.name: tuple(sorted(_announcement(peer, prefix, tags, metrics[peer.family]) for prefix in prefixes
                                if prefix.version == peer.family))
        for peer in topology.peers
    }  # fmt: skip


def _blocks(node: str, affinities: Iterable[BlockAffinity]) -> Iterator[_Network]:
    for affinity in affinities:
        if affinity.spec.node == node and affinity.confirmed and affinity.spec.type != "virtual":
            yield ipaddress.ip_network(affinity.spec.cidr, strict=False)


def _borrowed(addresses: Iterable[str], blocks: list[_Network]) -> Iterator[_Network]:
    for text in sorted(set(addresses)):
        address = ipaddress.ip_address(text)
        if not any(address in block for block in blocks):
            yield ipaddress.ip_network(address)


def _exported(prefix: _Network, pools: list[tuple[_Network, IPPool]], *, block: bool) -> bool:
    """Steps 3, 7 and 9 of the export filter."""
    around = [pool for network, pool in pools if _inside(prefix, network)]
    if any(pool.spec.disable_bgp_export for pool in around):
        return False
    return block or any(not pool.spec.disabled for pool in around)


def _inside(prefix: _Network, network: _Network) -> bool:
    return prefix.version == network.version and prefix.subnet_of(network)  # type: ignore[arg-type]


def _tags(spec: BGPConfigurationSpec | None) -> list[_Tag]:
    if spec is None:
        return []
    named = {community.name: community.value for community in spec.communities}
    return [
        _Tag(
            ipaddress.ip_network(advertisement.cidr, strict=False),
            tuple(filter(_COMMUNITY.fullmatch, (named.get(name, name) for name in advertisement.communities))),
        )
        for advertisement in spec.prefix_advertisements
    ]


def _announcement(peer: Peer, prefix: _Network, tags: list[_Tag], metric: int) -> Announcement:
    communities = {value for tag in tags if _inside(prefix, tag.network) for value in tag.communities}
    return Announcement(
        prefix=str(prefix),
        next_hop=peer.local_address,
        local_preference=_GREATEST_PREFERENCE - metric,
        communities=tuple(sorted(communities)),
    )
