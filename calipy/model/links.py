"""What the kernel says of itself: links, addresses and the routes that aren't ours."""

from __future__ import annotations

from msgspec import Struct


class Link(Struct, frozen=True, gc=False, kw_only=True):
    """A network device of this node."""

    index: int
    name: str
    kind: str = ""
    """rtnetlink IFLA_INFO_KIND: veth, vxlan, bridge, ...; empty for physical ones and loopback."""
    up: bool = False
    """IFF_UP: administratively up."""
    carrier: bool = False
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    """IFLA_IFALIAS: on our veths the container ID."""


class LinkAddress(Struct, frozen=True, gc=False, order=True):
    """An address on a link."""

    index: int
    address: str
    prefix_length: int


class ForeignRoute(Struct, frozen=True, gc=False, kw_only=True):
    """A unicast route of the main table that others wrote (kernel, administrator, DHCP): next hops of BGP resolve
    through these."""

    prefix: str
    metric: int
    next_hops: tuple[tuple[str | None, int], ...]
    """(gateway or None, link index)."""
