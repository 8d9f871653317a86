"""What ExaBGP says, as values; `event_lines` and `answer_lines` read them. Peers go by address."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Direction = Literal["sent", "received"]
Origin = Literal["igp", "egp", "incomplete"]


class Path(Struct, frozen=True, gc=False, kw_only=True, order=True):
    """One way to one prefix, as a peer announced it (RFC 4271 5)."""

    prefix: str
    next_hop: str
    origin: Origin = "igp"
    as_path: tuple[tuple[int, ...], ...] = ()
    """AS_SEQUENCE members each alone, an AS_SET's members together: its length is that of the decision process."""
    med: int | None = None
    local_preference: int | None = None
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    """`aa:nn`, then `aa:nn:mm`."""


class Connected(Struct, frozen=True, gc=False, kw_only=True):
    """TCP is there."""

    peer: str


class Opened(Struct, frozen=True, gc=False, kw_only=True):
    """The peer's OPEN."""

    peer: str
    router_id: str
    as_number: int
    hold_time_s: int
    restart_time_s: int | None = None
    """Graceful restart (RFC 4724 3); None = the peer doesn't do it."""
    restarting: bool = False
    """R bit: the peer has restarted and has lost what it had learned."""
    families_kept: tuple[int, ...] = ()
    """F bits: families, 4 or 6, for which the peer went on forwarding all the while."""


class Up(Struct, frozen=True, gc=False, kw_only=True):
    """The session is established."""

    peer: str
    router_id: str
    """OURS: the peer's is in `Opened`."""


class Down(Struct, frozen=True, gc=False, kw_only=True):
    """The session, or an attempt at one, has ended."""

    peer: str
    reason: str


class Updated(Struct, frozen=True, gc=False, kw_only=True):
    """An UPDATE."""

    peer: str
    announced: tuple[Path, ...] = ()
    withdrawn: tuple[str, ...] = ()


class EndOfRib(Struct, frozen=True, gc=False, kw_only=True):
    """End-of-RIB (RFC 4724 2)."""

    peer: str
    family: int
    """4 or 6."""


class Notified(Struct, frozen=True, gc=False, kw_only=True):
    """A NOTIFICATION (RFC 4271 4.5). ExaBGP tells of those that it sent only in `down`'s reason."""

    peer: str
    direction: Direction
    code: int
    subcode: int
    text: str = ""


class Shutdown(Struct, frozen=True, gc=False):
    """ExaBGP is about to end."""


class Unreadable(Struct, frozen=True, gc=False):
    """A line that isn't as ExaBGP writes them: all of it is refused."""

    text: str
    """How it begins."""
    reason: str

    @classmethod
    def of(cls, line: bytes, error: Exception) -> Unreadable:
        """For a line at which decoding failed."""
        return cls(line[:_MOST_SHOWN].decode(errors="replace").strip(), str(error))


_MOST_SHOWN = 200

Message = Connected | Opened | Up | Down | Updated | EndOfRib | Notified | Shutdown | Unreadable


class Neighbor(Struct, frozen=True, gc=False, kw_only=True):
    """A peer in ExaBGP's own account (`show neighbor json`)."""

    peer: str
    local_address: str
    as_number: int
    local_as: int
    state: str
    """ExaBGP's state machine: IDLE, ACTIVE, CONNECT, OPENSENT, OPENCONFIRM or ESTABLISHED."""
    router_id: str = ""
    """The peer's; empty while there is no session."""
    duration_s: int = 0
    """How long it has been up, or down."""
    graceful_restart: bool = False
    """The peer does it (RFC 4724)."""
    route_refresh: bool = False
    """The peer takes requests to tell all again (RFC 2918); another takes one for an error."""
