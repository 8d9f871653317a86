"""ctnetlink (linux/netfilter/nfnetlink_conntrack.h): dumping flows, and deleting those of one address."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from msgspec import Struct

from calipy.netlink import attributes as nla
from calipy.netlink.messages import CREATE, EXCLUSIVE, Message

_NFGENMSG = struct.Struct("=BBH")
_VERSION = 1
"""From version 1 on a deletion keeps to the header's family."""
_SUBSYSTEM = 1 << 8
_NEW, _GET, _DELETE = _SUBSYSTEM, _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _STATUS, _TIMEOUT, _MARK, _ZONE, _FILTER = 1, 2, 3, 7, 8, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_FILTER_ORIGINAL_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FILTER_SOURCE, _FILTER_DESTINATION = 1 << 0, 1 << 1
"""CTA_FILTER_F_CTA_IP_SRC and _DST."""
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


class Flow(Struct, frozen=True, gc=False, kw_only=True):
    """A tracked flow."""

    family: int
    original: Direction
    reply: Direction
    status: int = 0
    mark: int = 0


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
    """Deletes one dumped flow."""
    found = nla.attributes(memoryview(body)[_NFGENMSG.size :])
    head = bytes(memoryview(body)[: _NFGENMSG.size])
    parts = nla.attribute(_TUPLE_ORIGINAL | nla.NESTED, found[_TUPLE_ORIGINAL])
    if _ZONE in found:
        parts += nla.attribute(_ZONE, found[_ZONE])
    return Message(_DELETE, 0, head + parts)


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
    return Direction(
        source=nla.as_address(addresses[source]),
        destination=nla.as_address(addresses[destination]),
        protocol=protocol[1][0],
        source_port=nla.as_be16(protocol[2]) if 2 in protocol else 0,
        destination_port=nla.as_be16(protocol[3]) if 3 in protocol else 0,
    )
