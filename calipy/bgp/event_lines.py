"""What ExaBGP 5.0.15 writes unasked: one JSON object a line, about a session, an UPDATE, or its own end."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct, field

from calipy.bgp.attributes import FAMILIES, Attributes, address, path, prefix
from calipy.bgp.messages import (
    Connected,
    Direction,
    Down,
    EndOfRib,
    Message,
    Notified,
    Opened,
    Path,
    Shutdown,
    Unreadable,
    Up,
    Updated,
)


class _Addresses(Struct, frozen=True, gc=False):
    peer: str


class _Attributes(Attributes, frozen=True, gc=False, rename="kebab"):
    community: tuple[tuple[int, ...], ...] = ()
    large_community: tuple[tuple[int, ...], ...] = ()


class _Nlri(Struct, frozen=True, gc=False):
    nlri: str


class _Update(Struct, frozen=True, gc=False):
    attribute: _Attributes = _Attributes()
    announce: dict[str, dict[str, tuple[_Nlri, ...]]] = {}
    """Family -> next hop -> prefixes."""
    withdraw: dict[str, tuple[_Nlri, ...]] = {}


class _Eor(Struct, frozen=True, gc=False):
    afi: str
    safi: str


class _Content(Struct, frozen=True, gc=False):
    update: _Update | None = None
    eor: _Eor | None = None


class _Refresh(Struct, frozen=True, gc=False):
    afi: str
    safi: str
    subtype: str = ""


class _Restart(Struct, frozen=True, gc=False, rename="kebab"):
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
    neighbor: _Session | None = None
    notification: str = ""


_LINE = msgspec.json.Decoder(_Line)
_RESTART = msgspec.json.Decoder(_Restart)
_GRACEFUL_RESTART = "64"
"""RFC 4724: the capability's code, which ExaBGP takes for a key."""
_SENT = re.compile(r"notification sent \((\d+),(\d+)\)")


def decode(line: bytes) -> tuple[Message, ...]:
    """The messages in one line; none in an event of a kind that isn't followed. Never raises: a line of which anything
    can't be read is `Unreadable` as a whole."""
    try:
        return _event(_LINE.decode(line))
    except (msgspec.MsgspecError, ValueError) as error:
        return (Unreadable.of(line, error),)


def _event(line: _Line) -> tuple[Message, ...]:
    if line.notification == "shutdown":
        return (Shutdown(),)
    read = _READERS.get(line.type)
    if read is None:
        return ()
    if line.neighbor is None:
        raise ValueError(f"{line.type} without a neighbor")
    return read(line.neighbor, address(line.neighbor.address.peer))


def _state(session: _Session, peer: str) -> tuple[Message, ...]:
    match session.state:
        case "connected":
            return (Connected(peer=peer),)
        case "up":
            return (Up(peer=peer, router_id=session.router_id),)
        case "down":
            down = Down(peer=peer, reason=session.reason)
            sent = _SENT.fullmatch(session.reason)
            if sent is None:
                return (down,)
            return (Notified(peer=peer, direction="sent", code=int(sent[1]), subcode=int(sent[2])), down)
    raise ValueError(f"state {session.state!r} is unknown")


def _opened(session: _Session, peer: str) -> tuple[Message, ...]:
    if session.direction != "receive":
        return ()
    opened = session.open_
    if opened is None:
        raise ValueError("open without content")
    raw = opened.capabilities.get(_GRACEFUL_RESTART)
    restart = _RESTART.decode(raw) if raw is not None else None
    return (
        Opened(
            peer=peer,
            router_id=opened.router_id,
            as_number=opened.asn,
            hold_time_s=opened.hold_time,
            restart_time_s=restart.time if restart else None,
            # ExaBGP names the R bit (RFC 4724 3) "forwarding" and the F bit "restart".
            restarting=restart is not None and "forwarding" in restart.restart_flags,
            families_kept=_families_kept(restart.address_family_flags) if restart else (),
        ),
    )


def _families_kept(flags: Mapping[str, tuple[str, ...]]) -> tuple[int, ...]:
    known = {name.replace(" ", "/"): family for name, family in FAMILIES.items()}
    return tuple(sorted(known[name] for name, flags in flags.items() if "restart" in flags and name in known))


def _notified(session: _Session, peer: str) -> tuple[Message, ...]:
    told = session.notification
    if told is None:
        raise ValueError("notification without content")
    direction: Direction = "sent" if session.direction == "send" else "received"
    return (Notified(peer=peer, direction=direction, code=told.code, subcode=told.subcode, text=told.message),)


def _refreshed(session: _Session, peer: str) -> tuple[Message, ...]:
    """The end of what the peer tells on request (RFC 7313 4) says what End-of-RIB says. Requests of the peer's own are
    ExaBGP's business."""
    refresh = session.route_refresh
    if refresh is None:
        raise ValueError("refresh without content")
    return _end_of_rib(peer, refresh) if refresh.subtype == "end" else ()


def _end_of_rib(peer: str, said: _Eor | _Refresh) -> tuple[Message, ...]:
    family = FAMILIES.get(f"{said.afi} {said.safi}")
    return (EndOfRib(peer=peer, family=family),) if family else ()


def _updated(session: _Session, peer: str) -> tuple[Message, ...]:
    if session.message.eor is not None:
        return _end_of_rib(peer, session.message.eor)
    update = session.message.update
    if update is None:
        return ()
    announced = tuple(_announced(update).values())
    withdrawn = tuple(
        prefix(FAMILIES[name], nlri.nlri)
        for name, nlris in update.withdraw.items() if name in FAMILIES
        for nlri in nlris
    )  # fmt: skip
    if not announced and not withdrawn:
        return ()
    return (Updated(peer=peer, announced=announced, withdrawn=withdrawn),)


def _announced(update: _Update) -> dict[str, Path]:
    """By prefix. A route with a global and a link-local next hop (RFC 2545 3) comes once under each: the global one
    counts."""
    attributes = update.attribute
    communities = [":".join(map(str, value)) for value in (*attributes.community, *attributes.large_community)]
    announced: dict[str, Path] = {}
    for name, by_next_hop in update.announce.items():
        for next_hop in sorted(by_next_hop, key=_is_global) if name in FAMILIES else ():
            for nlri in by_next_hop[next_hop]:
                found = path(FAMILIES[name], nlri.nlri, next_hop, attributes, communities)
                announced[found.prefix] = found
    return announced


def _is_global(text: str) -> bool:
    return not ipaddress.ip_address(text).is_link_local


_READERS: Mapping[str, Callable[[_Session, str], tuple[Message, ...]]] = {
    "state": _state,
    "update": _updated,
    "refresh": _refreshed,
    "open": _opened,
    "notification": _notified,
}
