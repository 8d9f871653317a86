"""What ExaBGP 5.0.15 says to its API process, and how commands to it are spelled.

ExaBGP writes one JSON object a line for events, and for commands first the answer's own lines, then `done` or `error`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct, field

from calipy.bgp.peers import Announcement

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
    time_s: float = 0.0


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
    time_s: float = 0.0


class Up(Struct, frozen=True, gc=False, kw_only=True):
    """The session is established."""

    peer: str
    router_id: str
    """OURS: the peer's is in `Opened`."""
    time_s: float = 0.0


class Down(Struct, frozen=True, gc=False, kw_only=True):
    """The session, or an attempt at one, has ended."""

    peer: str
    reason: str
    time_s: float = 0.0


class Updated(Struct, frozen=True, gc=False, kw_only=True):
    """An UPDATE."""

    peer: str
    announced: tuple[Path, ...] = ()
    withdrawn: tuple[str, ...] = ()
    time_s: float = 0.0


class EndOfRib(Struct, frozen=True, gc=False, kw_only=True):
    """End-of-RIB (RFC 4724 2)."""

    peer: str
    family: int
    """4 or 6."""
    time_s: float = 0.0


class Notified(Struct, frozen=True, gc=False, kw_only=True):
    """A NOTIFICATION (RFC 4271 4.5). ExaBGP tells of those that it sent only in `down`'s reason."""

    peer: str
    direction: Direction
    code: int
    subcode: int
    text: str = ""
    time_s: float = 0.0


class Done(Struct, frozen=True, gc=False):
    """A command was accepted: parsed and queued, not yet sent."""


class Failed(Struct, frozen=True, gc=False):
    """A command was refused; the reason is in ExaBGP's log only."""


class Shutdown(Struct, frozen=True, gc=False):
    """ExaBGP is about to end."""


class Neighbor(Struct, frozen=True, gc=False, kw_only=True):
    """One entry of `show neighbor json`."""

    peer: str
    local_address: str
    as_number: int
    local_as: int
    up: bool
    state: str
    """ExaBGP's state machine: IDLE, ACTIVE, CONNECT, OPENSENT, OPENCONFIRM or ESTABLISHED."""
    router_id: str = ""
    """The peer's; empty while there is no session."""
    duration_s: int = 0
    """How long it has been up, or down."""
    received: int = 0
    """UPDATE messages."""
    sent: int = 0
    graceful_restart: bool = False
    """The peer does it (RFC 4724)."""
    route_refresh: bool = False
    """The peer takes requests to tell all again (RFC 2918); another takes one for an error."""


class Neighbors(Struct, frozen=True, gc=False):
    """The answer to `show neighbor json`."""

    neighbors: tuple[Neighbor, ...]


class Other(Struct, frozen=True, gc=False):
    """Anything else, for the log."""

    text: str


Message = (
    Connected
    | Opened
    | Up
    | Down
    | Updated
    | EndOfRib
    | Notified
    | Done
    | Failed
    | Shutdown
    | Neighbors
    | Other
)  # fmt: skip


class _Addresses(Struct, frozen=True, gc=False):
    peer: str


class _Segment(Struct, frozen=True, gc=False):
    element: str
    value: tuple[int, ...]


class _Attributes(Struct, frozen=True, gc=False, rename="kebab"):
    origin: Origin = "igp"
    as_path: dict[str, _Segment] = {}
    med: int | None = None
    local_preference: int | None = None
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()
    community: tuple[tuple[int, ...], ...] = ()
    large_community: tuple[tuple[int, ...], ...] = ()


class _Nlri(Struct, frozen=True, gc=False):
    nlri: str


class _Update(Struct, frozen=True, gc=False):
    attribute: _Attributes = _Attributes()
    announce: dict[str, dict[str, tuple[_Nlri, ...]]] = {}
    withdraw: dict[str, tuple[_Nlri, ...]] = {}


class _Eor(Struct, frozen=True, gc=False):
    afi: str
    safi: str


class _Refresh(Struct, frozen=True, gc=False):
    afi: str
    safi: str
    subtype: str = ""


class _Content(Struct, frozen=True, gc=False):
    update: _Update | None = None
    eor: _Eor | None = None


class _Restart(Struct, frozen=True, gc=False, rename="kebab"):
    name: str = ""
    time: int = 0
    restart_flags: tuple[str, ...] = ()
    address_family_flags: dict[str, tuple[str, ...]] = {}


class _Open(Struct, frozen=True, gc=False):
    router_id: str
    asn: int
    hold_time: int
    capabilities: dict[str, msgspec.Raw] = {}


class _Notification(Struct, frozen=True, gc=False):
    code: int
    subcode: int
    message: str = ""


class _Session(Struct, frozen=True, gc=False, rename="kebab"):
    address: _Addresses
    direction: str = ""
    router_id: str = ""
    state: str = ""
    reason: str = ""
    message: _Content = _Content()
    open_: _Open | None = field(name="open", default=None)
    notification: _Notification | None = None
    route_refresh: _Refresh | None = None


class _Line(Struct, frozen=True, gc=False):
    type: str = ""
    time: float = 0.0
    neighbor: _Session | None = None
    notification: str = ""


class _End(Struct, frozen=True, gc=False, rename={"as_number": "as"}):
    address: str
    as_number: int
    id: str | None = None
    capabilities: dict[str, bool | None] = {}


class _Counters(Struct, frozen=True, gc=False):
    sent: dict[str, int] = {}
    received: dict[str, int] = {}


class _Neighbor(Struct, frozen=True, gc=False):
    state: str
    fsm: str
    local: _End
    peer: _End
    duration: int = 0
    messages: _Counters = _Counters()


class _StoredFamily(Struct, frozen=True, gc=False):
    afi: str
    safi: str


class _StoredNlri(Struct, frozen=True, gc=False):
    prefix: str
    nexthop: str
    family: _StoredFamily


class _StoredAttributes(Struct, frozen=True, gc=False, rename="kebab"):
    origin: Origin = "igp"
    as_path: dict[str, _Segment] = {}
    med: int | None = None
    local_preference: int | None = None
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()
    community: tuple[str, ...] = ()
    large_community: tuple[str, ...] = ()


class _StoredRoute(Struct, frozen=True, gc=False):
    nlri: _StoredNlri
    attributes: _StoredAttributes = _StoredAttributes()


class _StoredPeer(Struct, frozen=True, gc=False):
    address: str


class _Stored(Struct, frozen=True, gc=False):
    peer: _StoredPeer
    route: _StoredRoute


_LINE = msgspec.json.Decoder(_Line)
_STORED = msgspec.json.Decoder(_Stored)
_NEIGHBORS = msgspec.json.Decoder(tuple[_Neighbor, ...])
_RESTART = msgspec.json.Decoder(_Restart)
_GRACEFUL_RESTART = "64"
"""RFC 4724: the capability's code, which ExaBGP takes for a key."""
_PLAIN: Mapping[bytes, Message] = {b"done": Done(), b"error": Failed(), b"shutdown": Shutdown()}
_SENT = re.compile(r"notification sent \((\d+),(\d+)\)")
_FAMILIES = {"ipv4 unicast": 4, "ipv6 unicast": 6}


def decode(line: bytes) -> tuple[Message, ...]:
    """The messages in one line. Never raises: what can't be read comes back as `Other` with the line's text."""
    text = line.strip()
    if not text:
        return ()
    plain = _PLAIN.get(text)
    if plain is not None:
        return (plain,)
    try:
        if text.startswith(b"["):
            return (Neighbors(tuple(map(_neighbor, _NEIGHBORS.decode(text)))),)
        if text.startswith(b"{"):
            return _event(_LINE.decode(text), text)
    except (msgspec.MsgspecError, ValueError):
        pass  # read below as what it is: something unknown
    return (Other(text.decode(errors="replace")),)


def decode_route(line: bytes) -> Updated | None:
    """One line of the answer to SHOW_RECEIVED or SHOW_TOLD, as the UPDATE that would say the same; None = it is of
    another kind, or another family."""
    try:
        stored = _STORED.decode(line)
    except (msgspec.MsgspecError, ValueError):
        return None
    nlri, attributes = stored.route.nlri, stored.route.attributes
    if f"{nlri.family.afi} {nlri.family.safi}" not in _FAMILIES:
        return None
    path = Path(
        prefix=_prefix(nlri.prefix),
        next_hop=str(ipaddress.ip_address(nlri.nexthop)),
        origin=attributes.origin,
        as_path=_as_path(attributes.as_path),
        med=attributes.med,
        local_preference=attributes.local_preference,
        originator_id=attributes.originator_id,
        cluster_list=attributes.cluster_list,
        communities=(*attributes.community, *attributes.large_community),
    )
    return Updated(peer=str(ipaddress.ip_address(stored.peer.address)), announced=(path,))


def _event(line: _Line, text: bytes) -> tuple[Message, ...]:
    if line.notification == "shutdown":
        return (Shutdown(),)
    session = line.neighbor
    if session is not None:
        peer = str(ipaddress.ip_address(session.address.peer))
        if line.type == "state":
            return _state(session, peer, line.time)
        if line.type == "update":
            return _update(session.message, peer, line.time)
        if line.type == "refresh" and session.route_refresh is not None:
            return _refreshed(session.route_refresh, peer, line.time)
        if line.type == "open" and session.direction == "receive" and session.open_ is not None:
            return (_opened(session.open_, peer, line.time),)
        if line.type == "notification" and session.notification is not None:
            return (_notified(session.notification, session.direction, peer, line.time),)
    return (Other(text.decode(errors="replace")),)


def _state(session: _Session, peer: str, time_s: float) -> tuple[Message, ...]:
    match session.state:
        case "connected":
            return (Connected(peer=peer, time_s=time_s),)
        case "up":
            return (Up(peer=peer, router_id=session.router_id, time_s=time_s),)
        case "down":
            down = Down(peer=peer, reason=session.reason, time_s=time_s)
            sent = _SENT.fullmatch(session.reason)
            if sent is None:
                return (down,)
            code, subcode = int(sent[1]), int(sent[2])
            return (Notified(peer=peer, direction="sent", code=code, subcode=subcode, time_s=time_s), down)
    return (Other(f"state {session.state!r} of {peer}"),)


def _opened(opened: _Open, peer: str, time_s: float) -> Opened:
    raw = opened.capabilities.get(_GRACEFUL_RESTART)
    restart = _RESTART.decode(raw) if raw is not None else None
    return Opened(
        peer=peer,
        router_id=opened.router_id,
        as_number=opened.asn,
        hold_time_s=opened.hold_time,
        restart_time_s=restart.time if restart else None,
        # ExaBGP names the R bit (RFC 4724 3) "forwarding" and the F bit "restart".
        restarting=restart is not None and "forwarding" in restart.restart_flags,
        families_kept=tuple(
            sorted(
                _FAMILIES[family.replace("/", " ")]
                for family, flags in (restart.address_family_flags.items() if restart else ())
                if "restart" in flags and family.replace("/", " ") in _FAMILIES
            )
        ),
        time_s=time_s,
    )


def _notified(notification: _Notification, direction: str, peer: str, time_s: float) -> Notified:
    return Notified(
        peer=peer,
        direction="sent" if direction == "send" else "received",
        code=notification.code,
        subcode=notification.subcode,
        text=notification.message,
        time_s=time_s,
    )


def _refreshed(refresh: _Refresh, peer: str, time_s: float) -> tuple[Message, ...]:
    """The end of what the peer tells on request (RFC 7313 4) says what End-of-RIB says. Requests of the peer's own are
    ExaBGP's business."""
    family = _FAMILIES.get(f"{refresh.afi} {refresh.safi}")
    return (EndOfRib(peer=peer, family=family, time_s=time_s),) if family and refresh.subtype == "end" else ()


def _update(content: _Content, peer: str, time_s: float) -> tuple[Message, ...]:
    if content.eor is not None:
        family = _FAMILIES.get(f"{content.eor.afi} {content.eor.safi}")
        return (EndOfRib(peer=peer, family=family, time_s=time_s),) if family else ()
    update = content.update
    if update is None:
        return ()
    announced: dict[str, Path] = {}
    for name, by_next_hop in update.announce.items():
        # A route with a global and a link-local next hop (RFC 2545 3) comes once under each: the global one counts.
        for next_hop in sorted(by_next_hop, key=_is_global) if name in _FAMILIES else []:
            for nlri in by_next_hop[next_hop]:
                path = _path(nlri, next_hop, update.attribute)
                announced[path.prefix] = path
    withdrawn = tuple(
        _prefix(nlri.nlri) for name, nlris in update.withdraw.items() if name in _FAMILIES for nlri in nlris
    )
    if not announced and not withdrawn:
        return ()
    return (Updated(peer=peer, announced=tuple(announced.values()), withdrawn=withdrawn, time_s=time_s),)


def _is_global(address: str) -> bool:
    return not ipaddress.ip_address(address).is_link_local


def _path(nlri: _Nlri, next_hop: str, attributes: _Attributes) -> Path:
    return Path(
        prefix=_prefix(nlri.nlri),
        next_hop=str(ipaddress.ip_address(next_hop)),
        origin=attributes.origin,
        as_path=_as_path(attributes.as_path),
        med=attributes.med,
        local_preference=attributes.local_preference,
        originator_id=attributes.originator_id,
        cluster_list=attributes.cluster_list,
        communities=tuple(
            ":".join(map(str, value)) for value in (*attributes.community, *attributes.large_community)
        ),
    )  # fmt: skip


def _prefix(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))


def _as_path(segments: Mapping[str, _Segment]) -> tuple[tuple[int, ...], ...]:
    hops: list[tuple[int, ...]] = []
    for _, segment in sorted(segments.items(), key=lambda item: int(item[0])):
        if segment.element == "as-set":
            hops.append(segment.value)
        elif segment.element == "as-sequence":
            hops.extend((number,) for number in segment.value)
    return tuple(hops)


def _neighbor(entry: _Neighbor) -> Neighbor:
    return Neighbor(
        peer=str(ipaddress.ip_address(entry.peer.address)),
        local_address=str(ipaddress.ip_address(entry.local.address)),
        as_number=entry.peer.as_number,
        local_as=entry.local.as_number,
        up=entry.state == "up",
        state=entry.fsm,
        router_id=entry.peer.id or "",
        duration_s=entry.duration,
        received=entry.messages.received.get("update", 0),
        sent=entry.messages.sent.get("update", 0),
        graceful_restart=bool(entry.peer.capabilities.get("graceful-restart")),
        route_refresh=bool(entry.peer.capabilities.get("route-refresh")),
    )


SHOW_NEIGHBORS = "show neighbor json"
SHOW_RECEIVED = "show adj-rib in json"
SHOW_TOLD = "show adj-rib out json"
_MOST_PREFIXES = 500
"""In one command: measured as fast as any greater number, and far below ExaBGP's limit of a line."""


def announce_commands(peer: str, announcements: Iterable[Announcement]) -> tuple[str, ...]:
    """Commands that tell `peer` (address) of these prefixes: few, for all prefixes of equal attributes share one. The
    local preference is always written: ExaBGP itself leaves it out between autonomous systems."""
    groups: dict[tuple[str, int, tuple[str, ...], bool], list[str]] = {}
    for item in announcements:
        key = (item.next_hop, item.local_preference, item.communities, ":" in item.prefix)
        groups.setdefault(key, []).append(item.prefix)
    commands = []
    for (next_hop, preference, communities, _), prefixes in sorted(groups.items()):
        attributes = f"next-hop {next_hop} local-preference {preference}{_communities(communities)}"
        commands += [
            f"neighbor {peer} announce attributes {attributes} nlri {' '.join(some)}" for some in _portions(prefixes)
        ]
    return tuple(commands)


def withdraw_commands(peer: str, prefixes: Iterable[str]) -> tuple[str, ...]:
    """Commands that take back these prefixes from `peer` (address)."""
    chosen = set(prefixes)
    families = ([p for p in chosen if ":" not in p], [p for p in chosen if ":" in p])
    return tuple(
        f"neighbor {peer} withdraw attributes nlri {' '.join(some)}"
        for family in families
        for some in _portions(family)
    )


def end_of_rib_command(peer: str, family: int) -> str:
    """The command that sends End-of-RIB to `peer` (address)."""
    return f"neighbor {peer} announce eor ipv{family} unicast"


def refresh_command(peer: str, family: int) -> str:
    """The command that asks `peer` (address) to tell all again."""
    return f"neighbor {peer} announce route-refresh ipv{family} unicast"


def _portions(prefixes: Iterable[str]) -> list[list[str]]:
    ordered = sorted(prefixes)
    return [ordered[start : start + _MOST_PREFIXES] for start in range(0, len(ordered), _MOST_PREFIXES)]


def _communities(values: Iterable[str]) -> str:
    text = ""
    for word, colons in (("community", 1), ("large-community", 2)):
        chosen = [value for value in values if value.count(":") == colons]
        if chosen:
            text += f" {word} [ {' '.join(chosen)} ]"
    return text
