"""Routes: what BGP has learned, and what the kernel is to hold."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from calipy.model.origins import Origin
from calipy.resources.cidrs import family_of

MAIN_TABLE = 254
NORMAL_METRIC = 1024
PROTOCOL_CALIPY = 80
PROTOCOL_BIRD = 12
"""rtnetlink protocol of routes learned by BGP, as BIRD writes it."""


class RouteKey(NamedTuple):
    """What tells two kernel routes apart: table, prefix (CIDR text), metric."""

    table: int
    prefix: str
    metric: int


class LearnedRoute(Struct, frozen=True, gc=False, kw_only=True):
    """The outcome of BGP's decision process for one prefix (RFC 4271 9.1), multipath already joined."""

    prefix: str
    next_hops: tuple[str, ...]
    """BGP next hops, sorted; perhaps not on a connected subnet."""
    peers: tuple[str, ...]
    """Addresses of the peers that it was learned from."""
    metric: int = NORMAL_METRIC
    """2147483647 - local preference where the peer carries Calico's convention, else 1024."""


class NextHop(Struct, frozen=True, gc=False, order=True):
    """One way out: gateway (None = the destination is on the link), device by name and index."""

    gateway: str | None
    device: str
    index: int
    onlink: bool = False


class Route(Struct, frozen=True, gc=False, kw_only=True):
    """A route as the kernel is to hold it, or the reason why it can't yet be there."""

    prefix: str
    origin: Origin
    kind: Literal["unicast", "blackhole"] = "unicast"
    next_hops: tuple[NextHop, ...] = ()
    """Sorted; empty for blackhole."""
    table: int = MAIN_TABLE
    metric: int = NORMAL_METRIC
    protocol: int = PROTOCOL_CALIPY
    scope: Literal["global", "link"] = "global"
    source: str | None = None
    mtu: int | None = None
    waits_for: str = ""
    """Not empty: not to be programmed now, and why (a link that is absent or down, a next hop without a way)."""

    @property
    def key(self) -> RouteKey:
        """Its place in the kernel."""
        return RouteKey(self.table, self.prefix, self.metric)

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.prefix)
