"""rtnetlink (linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h): links, addresses, routes, neighbours.

Values in, Message out; a dump's or notification's body in, value out. Addresses are canonical text, prefixes CIDR text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from socket import inet_pton
from typing import Literal

from msgspec import Struct

from calipy.netlink import attributes as nla
from calipy.netlink.messages import APPEND, CREATE, EXCLUSIVE, REPLACE, Message

AF_UNSPEC, AF_INET, AF_INET6, AF_BRIDGE = 0, 2, 10, 7
NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30

NEW_NETWORK_CONFIGURATION = 80

GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV4_ROUTE, GROUP_IPV6_ADDRESS, GROUP_IPV6_ROUTE = 1, 5, 7, 9, 11
GROUP_IPV4_CONFIGURATION, GROUP_IPV6_CONFIGURATION = 24, 25

IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST, SCOPE_NOWHERE = 0, 253, 254, 255
PROTOCOL_KERNEL, PROTOCOL_BOOT, PROTOCOL_ADVERTISED = 2, 3, 9
NUD_PERMANENT = 0x80
NTF_SELF, NTF_PROXY = 0x02, 0x08

IPV4_FORWARDING, IPV4_PROXY_ARP, IPV4_RP_FILTER, IPV4_ROUTE_LOCALNET = 1, 3, 8, 26
"""Ids of per-device IPv4 settings (linux/ip.h, IPV4_DEVCONF_*)."""
ADDRESS_GENERATION_NONE = 1
"""IN6_ADDR_GEN_MODE_NONE: the kernel gives the link no link-local address of its own."""

_IFINFO = struct.Struct("=BBHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BBHiHBB")
_NEXTHOP = struct.Struct("=HBBi")
_ONLINK, _CLONED = 4, 0x200
_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_KIND_NUMBERS = {name: number for number, name in _KINDS.items()}
_WIDTH = {AF_INET: 32, AF_INET6: 128}


class Vxlan(Struct, frozen=True, gc=False, kw_only=True):
    """A link's VXLAN part."""

    vni: int
    port: int
    local: str | None = None
    device: int | None = None
    learning: bool = False
    group: str | None = None


class Link(Struct, frozen=True, gc=False, kw_only=True):
    """A network device."""

    index: int
    name: str
    flags: int = 0
    mtu: int = 0
    mac: str = ""
    alias: str = ""
    kind: str = ""
    group: int = 0
    carrier: bool = False
    vxlan: Vxlan | None = None

    @property
    def up(self) -> bool:
        """IFF_UP."""
        return bool(self.flags & IFF_UP)


class Address(Struct, frozen=True, gc=False, kw_only=True):
    """An address on a link. `family` is AF_INET or AF_INET6."""

    index: int
    family: int
    address: str
    prefix_length: int
    scope: int = SCOPE_UNIVERSE
    flags: int = 0


class NextHop(Struct, frozen=True, gc=False, kw_only=True):
    """One of several ways of a route."""

    gateway: str | None
    device: int | None
    weight: int = 1
    onlink: bool = False


class Route(Struct, frozen=True, gc=False, kw_only=True):
    """A route. `family` is 4 or 6; one way is in gateway, device and onlink, several are in `next_hops`."""

    family: int
    destination: str
    table: int = 254
    metric: int = 0
    protocol: int = 0
    scope: int = SCOPE_UNIVERSE
    kind: str = "unicast"
    gateway: str | None = None
    device: int | None = None
    onlink: bool = False
    source: str | None = None
    mtu: int | None = None
    next_hops: tuple[NextHop, ...] = ()
    cloned: bool = False


class Neighbour(Struct, frozen=True, gc=False, kw_only=True):
    """A neighbour, proxy or forwarding entry. `family` is AF_INET, AF_INET6 or AF_BRIDGE."""

    index: int
    family: int
    address: str | None = None
    mac: str | None = None
    state: int = 0
    flags: int = 0


class NetworkConfiguration(Struct, frozen=True, gc=False, kw_only=True):
    """A change of per-link settings (linux/netconf.h); index -1 is the namespace's own."""

    family: int
    index: int
    forwarding: int | None = None


# --- links ---


def new_veth(
    name: str,
    *,
    mac: str,
    mtu: int,
    peer_name: str,
    peer_namespace: int,
    peer_mac: str = "",
    queues: int = 1,
    up: bool = True,
) -> Message:
    """A veth pair: one end here, the other made at once in the namespace of a descriptor, never moved. The peer can't
    be brought up in the same breath (ENOTCONN), and an alias counts only in `set_link`."""
    queue = nla.u32(31, queues) + nla.u32(32, queues)  # IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES
    peer = _ifinfo() + nla.string(3, peer_name) + nla.u32(28, peer_namespace) + nla.u32(4, mtu) + queue
    if peer_mac:
        peer += nla.attribute(1, _mac(peer_mac))
    body = _ifinfo(up=up) + nla.string(3, name) + nla.attribute(1, _mac(mac)) + nla.u32(4, mtu) + queue
    body += nla.nested(18, nla.string(1, "veth"), nla.nested(2, nla.attribute(1 | nla.NESTED, peer)))
    return Message(NEW_LINK, CREATE | EXCLUSIVE, body)


def new_vxlan(name: str, *, vni: int, port: int, local: str, device: int, mac: str, mtu: int) -> Message:
    """A VXLAN device (RFC 7348), without learning and without a multicast group, up."""
    local_kind = 17 if ":" in local else 4  # IFLA_VXLAN_LOCAL6, IFLA_VXLAN_LOCAL
    data = nla.nested(
        2,
        nla.u32(1, vni),
        nla.u32(3, device),
        nla.address(local_kind, local),
        nla.u8(7, 0),  # IFLA_VXLAN_LEARNING
        nla.be16(15, port),
    )
    body = _ifinfo(up=True) + nla.string(3, name) + nla.attribute(1, _mac(mac)) + nla.u32(4, mtu)
    return Message(NEW_LINK, CREATE | EXCLUSIVE, body + nla.nested(18, nla.string(1, "vxlan"), data))


def set_link(
    index: int,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    alias: str | None = None,
    name: str | None = None,
    group: int | None = None,
    address_generation: int | None = None,
    ipv4_settings: Mapping[int, int] | None = None,
) -> Message:
    """Changes of a link; `ipv4_settings` are net.ipv4.conf.<link>.* by id, written without /proc."""
    body = _IFINFO.pack(0, 0, 0, index, int(bool(up)), int(up is not None))
    for kind, value in ((4, mtu), (27, group)):
        if value is not None:
            body += nla.u32(kind, value)
    if mac is not None:
        body += nla.attribute(1, _mac(mac))
    if alias is not None:
        body += nla.attribute(20, alias.encode())
    if name is not None:
        body += nla.string(3, name)
    families = b""
    if ipv4_settings:
        families += nla.nested(AF_INET, nla.nested(1, *(nla.u32(id_, value) for id_, value in ipv4_settings.items())))
    if address_generation is not None:
        families += nla.nested(AF_INET6, nla.u8(8, address_generation))
    return Message(SET_LINK, 0, body + (nla.nested(26, families) if families else b""))


def delete_link(index: int) -> Message:
    """Deletes a link; blocks for an RCU grace period."""
    return Message(DELETE_LINK, 0, _ifinfo(index))


def delete_group(group: int) -> Message:
    """Deletes all links of a group in one RCU grace period."""
    return Message(DELETE_LINK, 0, _ifinfo() + nla.u32(27, group))


def get_link(which: int | str) -> Message:
    """Asks for a link by index or name."""
    if isinstance(which, int):
        return Message(GET_LINK, 0, _ifinfo(which))
    return Message(GET_LINK, 0, _ifinfo() + nla.string(3, which))


def dump_links() -> Message:
    """Asks for all links."""
    return Message(GET_LINK, 0, _ifinfo())


def parse_link(body: nla.Data) -> Link:
    """A link from a dump or notification."""
    _, _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = nla.attributes(memoryview(body)[_IFINFO.size :])
    kind, vxlan = "", None
    if 18 in found:
        info = nla.attributes(found[18])
        kind = nla.as_text(info[1]) if 1 in info else ""
        if kind == "vxlan" and 2 in info:
            vxlan = _vxlan(nla.attributes(info[2]))
    return Link(
        index=index,
        name=nla.as_text(found[3]) if 3 in found else "",
        flags=flags,
        mtu=nla.as_u32(found[4]) if 4 in found else 0,
        mac=nla.as_mac(found[1]) if 1 in found else "",
        alias=nla.as_text(found[20]) if 20 in found else "",
        kind=kind,
        group=nla.as_u32(found[27]) if 27 in found else 0,
        carrier=bool(found[33][0]) if 33 in found else False,
        vxlan=vxlan,
    )


def _vxlan(data: Mapping[int, memoryview]) -> Vxlan:
    local, group = data.get(4, data.get(17)), data.get(2, data.get(16))
    return Vxlan(
        vni=nla.as_u32(data[1]),
        port=nla.as_be16(data[15]) if 15 in data else 0,
        local=nla.as_address(local) if local is not None else None,
        device=nla.as_u32(data[3]) if 3 in data else None,
        learning=bool(data[7][0]) if 7 in data else False,
        group=nla.as_address(group) if group is not None else None,
    )


def _ifinfo(index: int = 0, *, up: bool = False) -> bytes:
    return _IFINFO.pack(0, 0, 0, index, int(up), int(up))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


# --- addresses ---


def add_address(address: Address) -> Message:
    """Gives a link an address, without duplicate address detection."""
    return Message(NEW_ADDRESS, CREATE | REPLACE, _address(address, no_detection=True))


def delete_address(address: Address) -> Message:
    """Takes an address from a link."""
    return Message(DELETE_ADDRESS, 0, _address(address, no_detection=False))


def dump_addresses(family: int = AF_UNSPEC) -> Message:
    """Asks for all addresses."""
    return Message(GET_ADDRESS, 0, _IFADDR.pack(family, 0, 0, 0, 0))


def parse_address(body: nla.Data) -> Address:
    """An address from a dump or notification."""
    family, length, flags, scope, index = _IFADDR.unpack_from(body)
    found = nla.attributes(memoryview(body)[_IFADDR.size :])
    own = found.get(2, found.get(1))  # IFA_LOCAL is the own end of a point-to-point address
    return Address(
        index=index,
        family=family,
        address=nla.as_address(own) if own is not None else "",
        prefix_length=length,
        scope=scope,
        flags=nla.as_u32(found[8]) if 8 in found else flags,
    )


def _address(address: Address, *, no_detection: bool) -> bytes:
    flags = 0x02 if no_detection and address.family == AF_INET6 else 0  # IFA_F_NODAD
    body = _IFADDR.pack(address.family, address.prefix_length, flags, address.scope, address.index)
    packed = nla.pack_address(address.address)
    body += nla.attribute(2, packed) if address.family == AF_INET else b""
    return body + nla.attribute(1, packed)


# --- routes ---


def _prefix(text: str) -> tuple[bytes, int]:
    address, _, length = text.partition("/")
    return nla.pack_address(address), int(length)


def put_route(route: Route) -> Message:
    """Creates a route, or replaces that of the same table, prefix and metric."""
    return Message(NEW_ROUTE, CREATE | REPLACE, _route(route))


def put_routes(route: Route) -> Callable[[str], Message]:
    """`put_route` for many destinations (CIDR text) in place of the route's own: a node's many routes go a few ways,
    and all else in their messages is made once."""
    family = AF_INET if route.family == 4 else AF_INET6
    tail = _way(route)
    heads: dict[str, bytes] = {}
    attribute_header = nla.attribute(1, bytes(_WIDTH[family] // 8))[:4]

    def put(destination: str) -> Message:
        address, _, length = destination.partition("/")
        head = heads.get(length)
        if head is None:
            head = heads[length] = _header(route, int(length)) + attribute_header
        return Message(NEW_ROUTE, CREATE | REPLACE, head + inet_pton(family, address) + tail)

    return put


def add_route(route: Route) -> Message:
    """Creates a route that must not be there yet (EEXIST)."""
    return Message(NEW_ROUTE, CREATE | EXCLUSIVE, _route(route))


def append_route(route: Route) -> Message:
    """Creates an IPv6 route besides those of the same prefix and metric through other links."""
    return Message(NEW_ROUTE, CREATE | APPEND, _route(route))


def delete_route(route: Route) -> Message:
    """Deletes the route of that table, prefix, metric and protocol (0 = any)."""
    packed, length = _prefix(route.destination)
    family = AF_INET if route.family == 4 else AF_INET6
    table = route.table if route.table < 256 else 0
    body = _RTMSG.pack(family, length, 0, 0, table, route.protocol, SCOPE_NOWHERE, 0, 0)
    body += nla.attribute(1, packed) + nla.u32(15, route.table)
    return Message(DELETE_ROUTE, 0, body + (nla.u32(6, route.metric) if route.metric else b""))


def dump_routes(family: Literal[4, 6] | int, table: int = 254) -> Message:
    """Asks for the routes of a table; the kernel filters."""
    header = _RTMSG.pack(AF_INET if family == 4 else AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
    return Message(GET_ROUTE, 0, header + nla.u32(15, table))


def _route(route: Route) -> bytes:
    packed, length = _prefix(route.destination)
    return _header(route, length) + nla.attribute(1, packed) + _way(route)


def _header(route: Route, length: int) -> bytes:
    family = AF_INET if route.family == 4 else AF_INET6
    flags = _ONLINK if route.onlink else 0
    table = route.table if route.table < 256 else 0
    kind = _KIND_NUMBERS[route.kind]
    return _RTMSG.pack(family, length, 0, 0, table, route.protocol, route.scope, kind, flags)


def _way(route: Route) -> bytes:
    """All attributes but the destination."""
    parts = [nla.u32(15, route.table)]
    if route.metric:
        parts.append(nla.u32(6, route.metric))
    if route.gateway is not None:
        parts.append(nla.address(5, route.gateway))
    if route.device is not None:
        parts.append(nla.u32(4, route.device))
    if route.source is not None:
        parts.append(nla.address(7, route.source))
    if route.mtu is not None:
        parts.append(nla.nested(8, nla.u32(2, route.mtu)))
    if route.next_hops:
        parts.append(nla.attribute(9, b"".join(map(_hop, route.next_hops))))
    return b"".join(parts)


def _hop(hop: NextHop) -> bytes:
    gateway = nla.address(5, hop.gateway) if hop.gateway is not None else b""
    flags = _ONLINK if hop.onlink else 0
    return _NEXTHOP.pack(_NEXTHOP.size + len(gateway), flags, hop.weight - 1, hop.device or 0) + gateway


def parse_route(body: nla.Data) -> Route:
    """A route from a dump or notification."""
    family, length, _, _, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    found = nla.attributes(memoryview(body)[_RTMSG.size :])
    if 1 in found:
        destination = nla.as_address(found[1])
    else:
        destination = "0.0.0.0" if family == AF_INET else "::"
    metrics = nla.attributes(found[8]) if 8 in found else {}
    return Route(
        family=4 if family == AF_INET else 6,
        destination=f"{destination}/{length}",
        table=nla.as_u32(found[15]) if 15 in found else table,
        metric=nla.as_u32(found[6]) if 6 in found else 0,
        protocol=protocol,
        scope=scope,
        kind=_KINDS.get(kind, str(kind)),
        gateway=_gateway(found),
        device=nla.as_u32(found[4]) if 4 in found else None,
        onlink=bool(flags & _ONLINK),
        source=nla.as_address(found[7]) if 7 in found else None,
        mtu=nla.as_u32(metrics[2]) if 2 in metrics else None,
        next_hops=_hops(found[9]) if 9 in found else (),
        cloned=bool(flags & _CLONED),
    )


def _gateway(found: Mapping[int, memoryview]) -> str | None:
    if 5 in found:
        return nla.as_address(found[5])
    if 18 in found:  # RTA_VIA (RFC 8950): a gateway of the other family
        return nla.as_address(found[18][2:])
    return None


def _hops(data: memoryview) -> tuple[NextHop, ...]:
    hops, offset = [], 0
    while offset + _NEXTHOP.size <= len(data):
        length, flags, weight, device = _NEXTHOP.unpack_from(data, offset)
        found = nla.attributes(data[offset + _NEXTHOP.size : offset + length])
        hops.append(NextHop(gateway=_gateway(found), device=device, weight=weight + 1, onlink=bool(flags & _ONLINK)))
        offset += (length + 3) & ~3
    return tuple(hops)


# --- neighbours ---


def put_neighbour(entry: Neighbour) -> Message:
    """Creates or replaces an entry."""
    return Message(NEW_NEIGHBOUR, CREATE | REPLACE, _neighbour(entry))


def delete_neighbour(entry: Neighbour) -> Message:
    """Deletes an entry."""
    return Message(DELETE_NEIGHBOUR, 0, _neighbour(entry))


def dump_neighbours(family: int) -> Message:
    """Asks for all entries of AF_INET, AF_INET6 or AF_BRIDGE."""
    if family == AF_BRIDGE:
        return Message(GET_NEIGHBOUR, 0, _NDMSG.pack(family, 0, 0, 0, 0, 0, 0))
    return Message(GET_NEIGHBOUR, 0, _NDMSG.pack(family, 0, 0, 0, 0, 0, 0))


def parse_neighbour(body: nla.Data) -> Neighbour:
    """An entry from a dump or notification."""
    family, _, _, index, state, flags, _ = _NDMSG.unpack_from(body)
    found = nla.attributes(memoryview(body)[_NDMSG.size :])
    return Neighbour(
        index=index,
        family=family,
        address=nla.as_address(found[1]) if 1 in found and len(found[1]) in (4, 16) else None,
        mac=nla.as_mac(found[2]) if 2 in found else None,
        state=state,
        flags=flags,
    )


def _neighbour(entry: Neighbour) -> bytes:
    body = _NDMSG.pack(entry.family, 0, 0, entry.index, entry.state, entry.flags, 0)
    if entry.address is not None:
        body += nla.address(1, entry.address)
    return body + (nla.attribute(2, _mac(entry.mac)) if entry.mac is not None else b"")


# --- settings of links ---


def parse_network_configuration(body: nla.Data) -> NetworkConfiguration:
    """A notification of RTNLGRP_IPV4_NETCONF or RTNLGRP_IPV6_NETCONF."""
    found = nla.attributes(memoryview(body)[4:])  # struct netconfmsg: one byte, padded
    return NetworkConfiguration(
        family=4 if body[0] == AF_INET else 6,
        index=nla.as_s32(found[1]),
        forwarding=nla.as_s32(found[2]) if 2 in found else None,
    )
