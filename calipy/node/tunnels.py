"""This node's tunnel addresses: drawn from the pools where a tunnel is needed, kept in annotations, given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from calipy.conversion.nodes import vxlan_mac
from calipy.resources import nodes
from calipy.resources.ip_pools import IPPool
from calipy.resources.selectors import parse

_HANDLES = {4: "vxlan-tunnel-addr-", 6: "vxlan-v6-tunnel-addr-"}
_TYPES = {4: "vxlanTunnelAddress", 6: "vxlanV6TunnelAddress"}
_ANNOTATIONS = {4: (nodes.VXLAN_ADDRESS, nodes.VXLAN_MAC), 6: (nodes.VXLAN_V6_ADDRESS, nodes.VXLAN_V6_MAC)}
ANNOTATIONS = tuple(name for pair in _ANNOTATIONS.values() for name in pair)
"""All that `settle` tells of."""


class Addresses(Protocol):
    """The allocator, as far as tunnels need it."""

    async def tunnel_address(self, handle: str, family: int, kind: str) -> str:
        """One address for a tunnel from a pool with Tunnel use; the same again where the handle holds one."""
        ...

    async def release(self, handle: str) -> object:
        """Gives a handle's addresses back; fine where it holds none."""
        ...


def needed(pools: Iterable[IPPool], labels: Mapping[str, str], family: int) -> bool:
    """True if an enabled pool for tunnels uses VXLAN on this node."""
    return any(
        pool.family == family
        and pool.spec.vxlan_mode != "Never"
        and "Tunnel" in pool.spec.allowed_uses
        and not pool.spec.disabled
        and parse(pool.spec.node_selector).matches(labels)
        for pool in pools
    )


async def settle(
    node: str, addresses: Addresses, pools: Iterable[IPPool], labels: Mapping[str, str]
) -> dict[str, str | None]:
    """Draws or gives back this node's VXLAN addresses; the annotations that say so (None = to be taken away)."""
    pools = list(pools)
    notes: dict[str, str | None] = {}
    for family in (4, 6):
        address_note, mac_note = _ANNOTATIONS[family]
        handle = f"{_HANDLES[family]}{node}"
        if needed(pools, labels, family):
            notes[address_note] = await addresses.tunnel_address(handle, family, _TYPES[family])
            notes[mac_note] = vxlan_mac(node, family)
        else:
            await addresses.release(handle)
            notes[address_note] = notes[mac_note] = None
    return notes
