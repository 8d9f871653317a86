"""VXLAN devices: whether this node needs one, and what it looks like (calico.md 3.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from calipy.felix.calc.sets import host_of
from calipy.felix.calc.settings import FelixSettings
from calipy.model.links import Link, LinkAddress
from calipy.model.nodes import NodeAddress
from calipy.model.tunnels import Tunnel, TunnelPeer
from calipy.resources.ip_pools import IPPool

DEVICES = {4: "vxlan.calico", 6: "vxlan-v6.calico"}
OVERHEAD = {4: 50, 6: 70}
"""Bytes that VXLAN adds to a packet, by outer family."""


def wanted(pools: Iterable[IPPool], settings: FelixSettings, family: int) -> bool:
    """True if some pool of the family uses VXLAN, or vxlanEnabled says so."""
    if family == 6 and not settings.ipv6_support:
        return False
    if settings.vxlan_enabled is not None:
        return settings.vxlan_enabled
    return any(pool.family == family and pool.spec.vxlan_mode != "Never" for pool in pools)


def tunnel(
    me: str,
    nodes: Mapping[str, NodeAddress],
    links: Mapping[int, Link],
    addresses: Iterable[LinkAddress],
    settings: FelixSettings,
    family: int,
) -> Tunnel | None:
    """This node's tunnel of a family. None while the node's own address or tunnel address isn't known: there is
    nothing to name it by; it waits where the address isn't on any link."""
    mine = nodes.get(me)
    if mine is None or family not in mine.addresses or family not in mine.vxlan:
        return None
    local = host_of(mine.addresses[family])
    parents = [links[a.index] for a in addresses if a.address == local and a.index in links]
    parent = min(parents, key=lambda link: link.index, default=None)
    mtu = settings.vxlan_mtu if family == 4 else settings.vxlan_mtu_v6
    return Tunnel(
        name=DEVICES[family],
        family=family,
        vni=settings.vxlan_vni,
        port=settings.vxlan_port,
        local=local,
        parent=parent.name if parent else "",
        mac=mine.vxlan[family].mac,
        mtu=mtu or ((parent.mtu if parent else 1500) - OVERHEAD[family]),
        address=mine.vxlan[family].address,
        offload=not settings.checksum_offload_broken,
        peers=tuple(sorted(_peers(me, nodes, family))),
        waits_for="" if parent else f"no link has the node's address {local}",
    )


def _peers(me: str, nodes: Mapping[str, NodeAddress], family: int) -> Iterable[TunnelPeer]:
    for name, node in nodes.items():
        if name != me and family in node.addresses and family in node.vxlan:
            end = node.vxlan[family]
            yield TunnelPeer(name, end.address, end.mac, host_of(node.addresses[family]))
