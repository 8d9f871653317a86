"""Tunnels: a VXLAN device of this node and the nodes at its far ends."""

from __future__ import annotations

from msgspec import Struct


class TunnelPeer(Struct, frozen=True, gc=False, order=True):
    """A far end: a permanent neighbour `address` -> `mac`, and an FDB entry `mac` -> `remote`."""

    node: str
    address: str
    mac: str
    remote: str
    """The node's own address, the outer destination."""


class Tunnel(Struct, frozen=True, gc=False, kw_only=True):
    """A VXLAN device as it is to be (calico.md 3.8)."""

    name: str
    family: int
    vni: int
    port: int
    local: str
    """Outer source address."""
    parent: str
    """Device that holds `local`."""
    mac: str
    mtu: int
    address: str
    """The device's own address, without prefix length."""
    offload: bool = True
    """Whether checksums are left to the driver below; False is a cure for Linux up to 5.7."""
    peers: tuple[TunnelPeer, ...] = ()
    waits_for: str = ""
    """Not empty: can't be made now, and why."""
