"""Prefixes and path attributes (RFC 4271 5) as ExaBGP 5.0.15 writes them into its JSON, in events and answers alike."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from msgspec import Struct

from calipy.bgp.messages import Origin, Path

FAMILIES: Mapping[str, int] = {"ipv4 unicast": 4, "ipv6 unicast": 6}
"""`afi safi` -> the family."""


class Segment(Struct, frozen=True, gc=False):
    """A segment of the AS path."""

    element: str
    value: tuple[int, ...]


class Attributes(Struct, frozen=True, gc=False, rename="kebab"):
    """All but the communities, which events and answers spell differently."""

    origin: Origin = "igp"
    as_path: dict[str, Segment] = {}
    """By position, a number."""
    med: int | None = None
    local_preference: int | None = None
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()


def path(family: int, text: str, next_hop: str, attributes: Attributes, communities: Iterable[str]) -> Path:
    """The way to a prefix of a family, 4 or 6. Raises ValueError where an address, the prefix or a segment's position
    is none, or one is of another family: next hops of the other one (RFC 8950) are never negotiated."""
    way = address(next_hop)
    if (":" in way) != (family == 6):
        raise ValueError(f"{next_hop!r} is no IPv{family} address")
    return Path(
        prefix=prefix(family, text),
        next_hop=way,
        origin=attributes.origin,
        as_path=_as_path(attributes.as_path),
        med=attributes.med,
        local_preference=attributes.local_preference,
        originator_id=attributes.originator_id,
        cluster_list=attributes.cluster_list,
        communities=tuple(communities),
    )


def prefix(family: int, text: str) -> str:
    """In canonical spelling. Raises ValueError where it is none of the family."""
    network = ipaddress.ip_network(text, strict=False)
    if network.version != family:
        raise ValueError(f"{text!r} is no IPv{family} prefix")
    return str(network)


def address(text: str) -> str:
    """In canonical spelling. Raises ValueError."""
    return str(ipaddress.ip_address(text))


def _as_path(segments: Mapping[str, Segment]) -> tuple[tuple[int, ...], ...]:
    hops: list[tuple[int, ...]] = []
    for _, segment in sorted(segments.items(), key=lambda item: int(item[0])):
        if segment.element == "as-set":
            hops.append(segment.value)
        elif segment.element == "as-sequence":
            hops.extend((number,) for number in segment.value)
    return tuple(hops)
