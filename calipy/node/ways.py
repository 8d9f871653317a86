"""The ways that pods' packets take over a node, and what is known of a packet on each before a rule is asked.

A packet isn't one value of a field but all that it may have there: addresses of our pools, interfaces whose names begin
with a prefix. So a test holds for all of a way's packets, for some, or for none.
"""

from __future__ import annotations

import ipaddress
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct, structs

Hold = Literal["always", "some", "unread", "far", "never"]
"""For which of a way's packets a test holds. `unread`: nobody can say; `far`: for a few, by where they come from or go
to outside of the cluster."""
Hook = Literal["prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"]
Family = Literal[4, 6]
Range = tuple[int, int]
"""First and last, as numbers in network order."""

_ORDER: Sequence[Hold] = ("always", "some", "unread", "far", "never")
_RANK: Mapping[Hold, int] = {hold: rank for rank, hold in enumerate(_ORDER)}
_OPPOSITES: Mapping[Hold, Hold] = {
    "always": "never",
    "never": "always",
    "far": "some",
    "some": "some",
    "unread": "unread",
}
NAME_SIZE = 16
"""Bytes of an interface's name."""
_NEW, _ESTABLISHED = 8, 2
"""Of ct state."""
_FORWARDED: tuple[Hook, ...] = ("ingress", "prerouting", "forward", "postrouting", "egress")
_BETWEEN, _OTHERS, _OUTSIDE = "between pods of this node", "pods of other nodes", "outside"
FORWARDED = (_BETWEEN, *(f"{word} {end}" for end in (_OTHERS, _OUTSIDE) for word in ("from pods to", "to pods from")))
"""Names of all ways that don't end at this node."""
_LAST = 1 << 128
"""Above all fields."""
_LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}


def both(*holds: Hold) -> Hold:
    """Where all of these tests must hold."""
    return _ORDER[max(map(_RANK.__getitem__, holds))]


def either(holds: Iterable[Hold]) -> Hold:
    """Where one of them is enough; of none: never."""
    return _ORDER[min(map(_RANK.__getitem__, holds), default=_RANK["never"])]


def opposite(hold: Hold) -> Hold:
    """Where the test must not hold."""
    return _OPPOSITES[hold]


class Value(Struct, frozen=True, gc=False, kw_only=True):
    """What a field may hold: anything in these ranges, which are sorted and apart."""

    ranges: tuple[Range, ...]
    size: int
    """Bytes."""
    partly: Hold = "some"
    """What a test is that holds for a part of them."""
    hidden: int = 0
    """Low bits that a mask takes away: a test for one number is a test for all that look like it."""

    def within(self, wanted: Sequence[Range]) -> Hold:
        """For which packets the field lies in one of these ranges, which are sorted and apart."""
        if self.hidden:
            wanted = joined((low, high | self.hidden) for low, high in wanted)
        touched = covered = 0
        for low, high in self.ranges:
            at = max(0, bisect_right(wanted, (low, _LAST)) - 1)
            meets = [each for each in wanted[at : at + 2] if each[0] <= high and each[1] >= low]
            touched += bool(meets)
            covered += any(first <= low and last >= high for first, last in meets)
        if not touched:
            return "never"
        return "always" if covered == len(self.ranges) else self.partly

    def masked(self, mask: int, xor: int) -> Field:
        """The field as a rule sees it behind a mask."""
        hidden = ((1 << 8 * self.size) - 1) & ~mask
        if all(low == high for low, high in self.ranges):
            points = joined((low & mask ^ xor,) * 2 for low, _ in self.ranges)
            return Value(ranges=points, size=self.size, partly=self.partly)
        if xor or hidden & (hidden + 1):
            return Vague("unread")
        return Value(ranges=self.ranges, size=self.size, partly=self.partly, hidden=hidden)


class Vague(Struct, frozen=True, gc=False):
    """A field of which nothing is known."""

    hold: Hold


Field = Value | Vague


class Way(Struct, frozen=True, gc=False, kw_only=True):
    """Packets that go the same way."""

    name: str
    """`from pods to outside`."""
    family: Family
    from_pods: bool
    """Pods of this node send them."""
    hooks: tuple[Hook, ...]
    enters: tuple[str, ...]
    """Devices by which they come: names, or with `*` behind it a prefix; none: this node makes them."""
    leaves: tuple[str, ...]
    """Devices by which they go; none: they are for this node."""
    incoming: Field
    outgoing: Field
    incoming_index: Field
    outgoing_index: Field
    source: Field
    destination: Field
    state: Field


class Pods(Struct, frozen=True, gc=False, kw_only=True):
    """What of a node the ways follow from."""

    prefixes: tuple[str, ...]
    """Names of workloads' interfaces begin so."""
    nets: tuple[str, ...]
    """CIDRs of the pools."""
    own: tuple[str, ...]
    """The node's own addresses."""
    carriers: tuple[str, ...]
    """Interfaces by which pods' packets come to the node and leave it."""
    links: Mapping[int, str]
    """Index -> name of all its interfaces."""
    to_node: bool = False
    """True if pods may talk to the node (defaultEndpointToHostAction ACCEPT)."""


def at(way: Way, hook: Hook) -> Way:
    """What of a way's packets is known at a hook: by which device they leave not before it is decided. What isn't there
    has an empty name and the index 0."""
    if hook in ("ingress", "prerouting", "input"):
        return structs.replace(way, outgoing=_named(()), outgoing_index=_numbered((), {}))
    if hook == "egress":
        return structs.replace(way, incoming=_named(()), incoming_index=_numbered((), {}))
    return way


def ways(pods: Pods) -> Iterator[Way]:
    """All ways of pods' packets, by families that have pools."""
    for family in (4, 6):
        nets = [net for net in map(ipaddress.ip_network, pods.nets) if net.version == family]
        if nets:
            yield from _Ways(pods, family, _spans(nets)).all()


class _Ways:
    def __init__(self, pods: Pods, family: Family, spans: Sequence[Range]) -> None:
        self._pods = pods
        self._family = family
        size = 4 if family == 4 else 16
        loopback = _spans([ipaddress.ip_network(_LOOPBACK[family])])
        self._pool = Value(ranges=joined(spans), size=size)
        self._outside = Value(ranges=_rest(joined([*spans, *loopback]), size), size=size, partly="far")
        own = _spans([net for net in map(ipaddress.ip_network, pods.own) if net.version == family])
        self._node = Value(ranges=joined(own), size=size)
        self._workloads = tuple(f"{prefix}*" for prefix in pods.prefixes)

    def all(self) -> Iterator[Way]:
        yield self._way(_BETWEEN, self._workloads, self._workloads, self._pool, self._pool)
        for carrier in ((name,) for name in self._pods.carriers):
            for name, far in ((_OTHERS, self._pool), (_OUTSIDE, self._outside)):
                yield self._way(f"from pods to {name}", self._workloads, carrier, self._pool, far)
                yield self._way(f"to pods from {name}", carrier, self._workloads, far, self._pool)
        here: tuple[Hook, ...] = ("ingress", "prerouting", "input")
        if self._pods.to_node:
            yield self._way("from pods to this node", self._workloads, (), self._pool, self._node, here)
        yield self._way(
            "from this node to its pods",
            (),
            self._workloads,
            self._node,
            self._pool,
            ("output", "postrouting", "egress"),
        )
        yield self._way(
            "from pods answering this node", self._workloads, (), self._pool, self._node, ("input",), _ESTABLISHED
        )

    def _way(
        self,
        name: str,
        enters: tuple[str, ...],
        leaves: tuple[str, ...],
        source: Value,
        destination: Value,
        hooks: tuple[Hook, ...] = _FORWARDED,
        state: int = _NEW,
    ) -> Way:
        links = self._pods.links
        return Way(
            name=name, family=self._family, from_pods=enters == self._workloads, hooks=hooks,
            enters=enters, leaves=leaves, source=source,
            destination=destination, state=host_order(state), incoming=_named(enters), outgoing=_named(leaves),
            incoming_index=_numbered(enters, links), outgoing_index=_numbered(leaves, links),
        )  # fmt: skip


def host_order(*numbers: int) -> Value:
    """A field of 32 bits in the machine's order."""
    points = (int.from_bytes(struct.pack("=I", number), "big") for number in numbers)
    return Value(ranges=joined((point, point) for point in points), size=4)


def exactly(value: bytes) -> Value:
    """A field of which all is known."""
    return Value(ranges=((int.from_bytes(value, "big"),) * 2,), size=len(value))


def span(low: bytes, high: bytes, size: int) -> Range:
    """A range of keys that may be shorter than the field: then the rest may be anything."""
    first, last = low[:size].ljust(size, b"\0"), high[:size].ljust(size, b"\xff")
    return int.from_bytes(first, "big"), int.from_bytes(last, "big")


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same, sorted and apart."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def covers(devices: Iterable[str], name: str) -> bool:
    """True if an interface is one of these, or begins like one with `*` behind it."""
    return any(name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in devices)


def _named(devices: tuple[str, ...]) -> Field:
    if not devices:
        return exactly(bytes(NAME_SIZE))
    exact, begins = (
        [each for each in devices if not each.endswith("*")],
        [each for each in devices if each.endswith("*")],
    )
    names = [each.encode().ljust(NAME_SIZE, b"\0") for each in exact]
    spans = [span(each[:-1].encode(), each[:-1].encode(), NAME_SIZE) for each in begins]
    return Value(ranges=joined([*spans, *(span(name, name, NAME_SIZE) for name in names)]), size=NAME_SIZE)


def _numbered(devices: tuple[str, ...], links: Mapping[int, str]) -> Field:
    if not devices:
        return host_order(0)
    return host_order(*(index for index, name in links.items() if covers(devices, name)))


def _spans(nets: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> list[Range]:
    return [(int(net.network_address), int(net.broadcast_address)) for net in nets]


def _rest(ranges: Sequence[Range], size: int) -> tuple[Range, ...]:
    """All that lies in none of them."""
    found, begin = [], 0
    for low, high in ranges:
        if begin < low:
            found.append((begin, low - 1))
        begin = high + 1
    if begin < 1 << 8 * size:
        found.append((begin, (1 << 8 * size) - 1))
    return tuple(found)
