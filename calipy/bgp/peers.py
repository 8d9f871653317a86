"""Who this node speaks BGP with, and what it tells them: the values between decisions, configuration and session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from calipy.resources.cidrs import family_of
from calipy.resources.secrets import SecretKeySelector

NextHopMode = Literal["Auto", "Self", "Keep"]
DEFAULT_HOLD_S = 90


class Peer(Struct, frozen=True, gc=False, kw_only=True, order=True):
    """One session, of one address family (that of its addresses)."""

    name: str
    """Calico's: `Mesh_10_9_0_12`, `Global_10_9_0_1`, `Node_10_9_0_1`, with `_port_N` where the port isn't 179."""
    address: str
    as_number: int
    local_address: str
    local_as: int
    port: int = 179
    passive: bool = False
    """It waits for the other side to connect (RFC 4271 8.1.3): one side only, or sessions collide."""
    hold_time_s: int = DEFAULT_HOLD_S
    restart_time_s: int = 120
    """Graceful restart (RFC 4724); 0 = none."""
    ttl_security: int = 0
    """GTSM (RFC 5082): hops that the peer may be away; 0 = off."""
    multihop: bool = True
    password: SecretKeySelector | None = None
    next_hop_mode: NextHopMode = "Auto"
    reachable_by: str = ""
    """A gateway through which the peer is reached; empty = as the kernel says."""
    own_as_allowed: int = 0
    """How often this AS may stand in a path from the peer (numAllowedLocalASNumbers)."""
    node: str = ""
    """The cluster's node at the far end; empty = somebody outside."""
    kind: Literal["mesh", "global", "node"] = "mesh"

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.address)

    @property
    def external(self) -> bool:
        """True between autonomous systems (eBGP)."""
        return self.as_number != self.local_as


class Topology(Struct, frozen=True, gc=False, kw_only=True):
    """All sessions of this node."""

    node: str
    router_id: str = ""
    """Empty while the node has no IPv4 address and none was set."""
    port: int = 179
    """Where it listens, on each session's local address."""
    peers: tuple[Peer, ...] = ()
    """By name."""
    problems: tuple[str, ...] = ()
    """What of the configuration can't be followed, each with object, field, value, reason and remedy."""

    @property
    def shortest_hold_s(self) -> int:
        """Peers without a hold time (0) don't count."""
        return min((peer.hold_time_s for peer in self.peers if peer.hold_time_s), default=DEFAULT_HOLD_S)


def guarded_addresses(peers: Iterable[Peer]) -> frozenset[str]:
    """Local addresses whose listening socket may ask for a minimum TTL (RFC 5082). ExaBGP has one socket an address,
    and the kernel's minimum holds for all of its peers: it can be asked for only where each of them uses ttlSecurity.
    Elsewhere GTSM holds at most for the connections that we open, not for those that we accept."""
    some = tuple(peers)
    open_ones = {peer.local_address for peer in some if not peer.ttl_security}
    return frozenset(peer.local_address for peer in some if peer.ttl_security) - open_ones


class Announcement(Struct, frozen=True, gc=False, kw_only=True, order=True):
    """One prefix as one peer is to hear of it."""

    prefix: str
    next_hop: str
    local_preference: int = 2147483647 - 1024
    """2147483647 - metric of the route, as Calico's nodes have it; told to peers of the own AS only."""
    communities: tuple[str, ...] = ()
    """`aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092)."""
