"""What ExaBGP 5.0.15 answers when it is asked where it stands (`commands.SHOW_NEIGHBORS`, `SHOW_RECEIVED`,
`SHOW_TOLD`): JSON, one line for all neighbors, one line a route."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from calipy.bgp.attributes import FAMILIES, Attributes, address, path
from calipy.bgp.messages import Neighbor, Unreadable, Updated


class _End(Struct, frozen=True, gc=False, rename={"as_number": "as"}):
    address: str
    as_number: int
    id: str | None = None
    capabilities: dict[str, bool | None] = {}


class _Neighbor(Struct, frozen=True, gc=False):
    fsm: str
    local: _End
    peer: _End
    duration: int = 0


class _Family(Struct, frozen=True, gc=False):
    afi: str
    safi: str


class _Nlri(Struct, frozen=True, gc=False):
    prefix: str
    nexthop: str
    family: _Family


class _Attributes(Attributes, frozen=True, gc=False, rename="kebab"):
    community: tuple[str, ...] = ()
    large_community: tuple[str, ...] = ()


class _Route(Struct, frozen=True, gc=False):
    nlri: _Nlri
    attributes: _Attributes = _Attributes()


class _Peer(Struct, frozen=True, gc=False):
    address: str


class _Line(Struct, frozen=True, gc=False):
    peer: _Peer
    route: _Route


_NEIGHBORS = msgspec.json.Decoder(tuple[_Neighbor, ...])
_LINE = msgspec.json.Decoder(_Line)


def decode_neighbors(line: bytes) -> tuple[Neighbor, ...] | Unreadable:
    """The answer to SHOW_NEIGHBORS. Never raises."""
    try:
        return tuple(map(_neighbor, _NEIGHBORS.decode(line)))
    except (msgspec.MsgspecError, ValueError) as error:
        return Unreadable.of(line, error)


def _neighbor(entry: _Neighbor) -> Neighbor:
    return Neighbor(
        peer=address(entry.peer.address),
        local_address=address(entry.local.address),
        as_number=entry.peer.as_number,
        local_as=entry.local.as_number,
        state=entry.fsm,
        router_id=entry.peer.id or "",
        duration_s=entry.duration,
        graceful_restart=bool(entry.peer.capabilities.get("graceful-restart")),
        route_refresh=bool(entry.peer.capabilities.get("route-refresh")),
    )


def decode_route(line: bytes) -> Updated | Unreadable | None:
    """One line of the answer to SHOW_RECEIVED or SHOW_TOLD, as the UPDATE that would say the same; None = it is of
    another family. Never raises."""
    try:
        stored = _LINE.decode(line)
        nlri, attributes = stored.route.nlri, stored.route.attributes
        family = FAMILIES.get(f"{nlri.family.afi} {nlri.family.safi}")
        if family is None:
            return None
        communities = (*attributes.community, *attributes.large_community)
        announced = path(family, nlri.prefix, nlri.nexthop, attributes, communities)
        return Updated(peer=address(stored.peer.address), announced=(announced,))
    except (msgspec.MsgspecError, ValueError) as error:
        return Unreadable.of(line, error)
