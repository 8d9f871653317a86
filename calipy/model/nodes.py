"""Nodes as the others see them: addresses, AS number, tunnel ends."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class TunnelEnd(Struct, frozen=True, gc=False):
    """A node's VXLAN tunnel end: the address inside the tunnel and the device's MAC."""

    address: str
    mac: str


class NodeAddress(Struct, frozen=True, gc=False, kw_only=True):
    """Where a node is. Keys of the mappings are address families, 4 and 6."""

    name: str
    addresses: Mapping[int, str]
    """Family -> address with the prefix length of its subnet, 10.9.0.11/24."""
    vxlan: Mapping[int, TunnelEnd]
    as_number: int | None = None
    cluster_id: str = ""
    """RouteReflectorClusterID: set = a reflector, not part of the mesh."""
    labels: dict[str, str] = {}
