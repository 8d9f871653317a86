"""ctnetlink (linux/netfilter/nfnetlink_conntrack.h): dumping flows, and deleting those of one address."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping

from msgspec import Struct

from calipy.netlink import attributes as nla
from calipy.netlink.messages import CREATE, EXCLUSIVE, Message

_NFGENMSG = struct.Struct("=BBH")
_VERSION = 1
"""From version 1 on a deletion keeps to the header's family."""
_SUBSYSTEM = 1 << 8
_NEW, _GET, _DELETE = _SUBSYSTEM, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _STATUS, _TIMEOUT, _MARK, _ID, _ZONE, _MARK_MASK, _FILTER = 1, 2, 3, 7, 8, 12, 18, 21, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_FILTER_ORIGINAL_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FILTER_SOURCE, _FILTER_DESTINATION = 1 << 0, 1 << 1
"""CTA_FILTER_F_CTA_IP_SRC and _DST."""
_ICMP = {1: (5, 6), 58: (8, 9)}
"""Protocol -> (type, code) within CTA_TUPLE_PROTO."""
_EXPECTED, _SEEN_REPLY, _ASSURED, _CONFIRMED, _FIXED_TIMEOUT = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 10
"""IPS_*; the last: packets no longer prolong the flow's life."""
_FIRST_ADDRESS = 12
"""From a tuple's head to its source address: heads of the tuple, of CTA_TUPLE_IP and of the address."""
_FAMILIES = {0: 0, 4: 2, 6: 10}
_ATTRIBUTES = {4: (1, 2), 6: (3, 4)}
"""Family -> (source, destination) within CTA_TUPLE_IP."""


class Direction(Struct, frozen=True, gc=False, kw_only=True):
    """One direction of a flow."""

    source: str
    destination: str
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    icmp_code: int = 0


class Flow(Struct, frozen=True, gc=False, kw_only=True):
    """A tracked flow."""

    family: int
    original: Direction
    reply: Direction
    status: int = 0
    mark: int = 0

    @property
    def expected(self) -> bool:
        """True if another flow has announced it: its first packet was of state `related`."""
        return bool(self.status & _EXPECTED)


def delete_flows(address: str) -> Iterator[Message]:
    """Four messages that delete every IPv4 flow with `address` as source or destination of either direction: so
    translated flows too. The kernel filters (CTA_FILTER, Linux 5.8).

    IPv4 only: Linux (seen on 6.18) compares IPv6 addresses the wrong way round and deletes all flows but the address's
    own. For IPv6: `dump_flows`, `mentions`, `delete_flow`.
    """
    if ":" in address:
        raise ValueError(f"{address}: the kernel's filter is wrong for IPv6; dump and delete one by one")
    packed = nla.pack_address(address)
    for tuple_, flags_kind in ((_TUPLE_ORIGINAL, _FILTER_ORIGINAL_FLAGS), (_TUPLE_REPLY, _FILTER_REPLY_FLAGS)):
        for end, flag in enumerate((_FILTER_SOURCE, _FILTER_DESTINATION)):
            body = _NFGENMSG.pack(_FAMILIES[4], _VERSION, 0)
            body += nla.nested(tuple_, nla.nested(_TUPLE_IP, nla.attribute(_ATTRIBUTES[4][end], packed)))
            body += nla.nested(_FILTER, nla.u32(flags_kind, flag))
            yield Message(_DELETE, 0, body)


def mentions(body: nla.Data, address: str) -> bool:
    """True if a dumped flow has `address` in any place; without parsing the rest."""
    found = nla.attributes(memoryview(body)[_NFGENMSG.size :])
    packed = nla.pack_address(address)
    return any(
        bytes(part) == packed
        for kind in (_TUPLE_ORIGINAL, _TUPLE_REPLY)
        for part in nla.attributes(nla.attributes(found[kind])[_TUPLE_IP]).values()
    )


def delete_flow(body: nla.Data) -> Message:
    """Deletes one dumped flow, and none that has the same ends since, as far as the kernel tells them apart."""
    found = nla.attributes(memoryview(body)[_NFGENMSG.size :])
    identity = nla.attribute(_ID, found[_ID]) if _ID in found else b""
    return Message(_DELETE, 0, _named(body, found) + identity)


def mark_flow(body: nla.Data, mark: int, seconds: int) -> Message:
    """Sets bits of a dumped flow's mark, and has it end in so many seconds whatever is sent. One whose end was fixed by
    then keeps it; where it has been since, the kernel refuses all of it (EPERM)."""
    found = nla.attributes(memoryview(body)[_NFGENMSG.size :])
    # Bits that the kernel lets nobody clear are said to be set: some may have been, since the dump.
    before = nla.as_be32(found[_STATUS])
    settings = nla.be32(_STATUS, before | _SEEN_REPLY | _ASSURED | _CONFIRMED | _FIXED_TIMEOUT)
    if not before & _FIXED_TIMEOUT:
        settings += nla.be32(_TIMEOUT, seconds)
    return Message(_NEW, 0, _named(body, found) + settings + nla.be32(_MARK, mark) + nla.be32(_MARK_MASK, mark))


def _named(body: nla.Data, found: Mapping[int, memoryview]) -> bytes:
    """The head of a request for a dumped flow, and what tells it from others."""
    head = bytes(memoryview(body)[: _NFGENMSG.size])
    parts = nla.attribute(_TUPLE_ORIGINAL | nla.NESTED, found[_TUPLE_ORIGINAL])
    return head + parts + (nla.attribute(_ZONE, found[_ZONE]) if _ZONE in found else b"")


def new_flow(flow: Flow, timeout_s: int) -> Message:
    """Makes the kernel track a flow that nobody has seen."""
    body = _NFGENMSG.pack(_FAMILIES[flow.family], 0, 0)
    for kind, direction in ((_TUPLE_ORIGINAL, flow.original), (_TUPLE_REPLY, flow.reply)):
        source, destination = _ATTRIBUTES[flow.family]
        body += nla.nested(
            kind,
            nla.nested(
                _TUPLE_IP, nla.address(source, direction.source), nla.address(destination, direction.destination)
            ),
            nla.nested(
                _TUPLE_PROTOCOL,
                nla.u8(1, direction.protocol),
                nla.be16(2, direction.source_port),
                nla.be16(3, direction.destination_port),
            ),
        )
    return Message(_NEW, CREATE | EXCLUSIVE, body + nla.be32(_TIMEOUT, timeout_s))


def dump_flows(family: int) -> Message:
    """Asks for all flows of a family, 4 or 6; 0: of both."""
    return Message(_GET, 0, _NFGENMSG.pack(_FAMILIES[family], 0, 0))


def dump_flows_of(address: str) -> Iterator[Message]:
    """Two requests: for the flows whose first packet an IPv4 address sent, and for those that it answers. The kernel
    filters, for IPv4 alone (`delete_flows`)."""
    if ":" in address:
        raise ValueError(f"{address}: the kernel's filter is wrong for IPv6; dump all of them")
    source = nla.attribute(_ATTRIBUTES[4][0], nla.pack_address(address))
    for tuple_, flags_kind in ((_TUPLE_ORIGINAL, _FILTER_ORIGINAL_FLAGS), (_TUPLE_REPLY, _FILTER_REPLY_FLAGS)):
        body = _NFGENMSG.pack(_FAMILIES[4], 0, 0) + nla.nested(tuple_, nla.nested(_TUPLE_IP, source))
        yield Message(_GET, 0, body + nla.nested(_FILTER, nla.u32(flags_kind, _FILTER_SOURCE)))


def sources(body: nla.Data) -> tuple[bytes, bytes]:
    """Who sent a dumped flow's first packet and who answers it, packed, without parsing: a dump begins with both
    tuples, and each of them with its source."""
    view = memoryview(body)
    length = 4 if view[0] == _FAMILIES[4] else 16
    start = _NFGENMSG.size
    other = start + (int.from_bytes(view[start : start + 2], sys.byteorder) + 3 & ~3)
    first, second = start + _FIRST_ADDRESS, other + _FIRST_ADDRESS
    return bytes(view[first : first + length]), bytes(view[second : second + length])


def parse_flow(body: nla.Data) -> Flow:
    """A flow from a dump."""
    family = 4 if _NFGENMSG.unpack_from(body)[0] == _FAMILIES[4] else 6
    found = nla.attributes(memoryview(body)[_NFGENMSG.size :])
    return Flow(
        family=family,
        original=_direction(family, nla.attributes(found[_TUPLE_ORIGINAL])),
        reply=_direction(family, nla.attributes(found[_TUPLE_REPLY])),
        status=nla.as_be32(found[_STATUS]) if _STATUS in found else 0,
        mark=nla.as_be32(found[_MARK]) if _MARK in found else 0,
    )


def _direction(family: int, found: Mapping[int, memoryview]) -> Direction:
    addresses, protocol = nla.attributes(found[_TUPLE_IP]), nla.attributes(found[_TUPLE_PROTOCOL])
    source, destination = _ATTRIBUTES[family]
    number = protocol[1][0]
    kind, code = _ICMP.get(number, (0, 0))
    return Direction(
        source=nla.as_address(addresses[source]),
        destination=nla.as_address(addresses[destination]),
        protocol=number,
        source_port=nla.as_be16(protocol[2]) if 2 in protocol else 0,
        destination_port=nla.as_be16(protocol[3]) if 3 in protocol else 0,
        icmp_type=protocol[kind][0] if kind in protocol else 0,
        icmp_code=protocol[code][0] if code in protocol else 0,
    )
