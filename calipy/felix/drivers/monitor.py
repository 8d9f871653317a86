"""What the kernel says of itself: a first reading, then notifications, as facts for the calculation and as notices of
foreign changes for the dataplane.

Routes and devices of ours that somebody else touches are told by the netlink port of who did it: our own writes carry
the ports of our own sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from calipy.felix.calc.world import (
    AddressGone,
    AddressSeen,
    Event,
    ForeignRoutesRead,
    LinkGone,
    LinkSeen,
)
from calipy.felix.drivers.links import DEVICES
from calipy.model.links import ForeignRoute, Link, LinkAddress
from calipy.model.routes import MAIN_TABLE, PROTOCOL_BIRD, PROTOCOL_CALIPY
from calipy.netlink import nf_tables, rtnetlink
from calipy.netlink.messages import Overrun, Packet
from calipy.netlink.socket import NETFILTER, ROUTE, NetlinkSocket

log = logging.getLogger("calipy.felix.monitor")

_GROUP_NEIGHBOUR = 3
_GROUPS = (
    rtnetlink.GROUP_LINK,
    _GROUP_NEIGHBOUR,
    rtnetlink.GROUP_IPV4_ADDRESS,
    rtnetlink.GROUP_IPV6_ADDRESS,
    rtnetlink.GROUP_IPV4_ROUTE,
    rtnetlink.GROUP_IPV6_ROUTE,
)
_OURS = (PROTOCOL_CALIPY, PROTOCOL_BIRD)

Notice = Callable[[str, str], None]
"""Driver's name and what has happened to something of its."""


class Monitor:
    """Listens to the kernel on the event loop."""

    def __init__(self, post: Callable[[Sequence[Event]], object], notice: Notice, prefixes: tuple[str, ...]) -> None:
        self._post = post
        self._notice = notice
        self._prefixes = prefixes
        self._route = NetlinkSocket.open(ROUTE, _GROUPS)
        self._reader = NetlinkSocket.open(ROUTE)
        self._netfilter = NetlinkSocket.open(NETFILTER, (nf_tables.GROUP_NF_TABLES,))
        self.own_ports: set[int] = {0}
        """Netlink ports whose changes of routes, neighbours and tables are no news; 0 is the kernel's own doing."""
        self.links: dict[int, Link] = {}
        self.workload_links: dict[int, Link] = {}
        """Those whose name has a workload prefix."""
        self.addresses: set[LinkAddress] = set()
        self.has_routes: Callable[[Link], bool] = lambda link: True
        """Whether a workload's link has routes of ours that are lost when it goes down. One that is about to be deleted
        has none left."""
        self._foreign: dict[tuple[str, int], ForeignRoute] = {}

    def start(self) -> None:
        """Reads links, addresses and routes, posts them, and goes on with notifications."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._route.fileno(), self._on_route)
        loop.add_reader(self._netfilter.fileno(), self._on_netfilter)
        self._post(self._read())

    def close(self) -> None:
        """Stops listening."""
        loop = asyncio.get_running_loop()
        for socket in (self._route, self._netfilter):
            loop.remove_reader(socket.fileno())
            socket.close()
        self._reader.close()

    # --- reading everything ---

    def _read(self) -> list[Event]:
        events: list[Event] = []
        gone = set(self.links)
        for body in self._reader.dump(rtnetlink.dump_links()):
            link = _link(rtnetlink.parse_link(body))
            gone.discard(link.index)
            events.append(self._keep(link))
        for index in gone:
            events.append(self._forget(index))
        seen = {_address(rtnetlink.parse_address(body)) for body in self._reader.dump(rtnetlink.dump_addresses())}
        events.extend(AddressGone(address) for address in self.addresses - seen)
        events.extend(AddressSeen(address) for address in seen)
        self.addresses = seen
        return [*events, self._read_routes()]

    def _read_routes(self) -> ForeignRoutesRead:
        self._foreign = {}
        for family in (4, 6):
            for body in self._reader.dump(rtnetlink.dump_routes(family, MAIN_TABLE)):
                route = rtnetlink.parse_route(body)
                if self._is_foreign(route):
                    self._foreign[route.destination, route.metric] = _foreign(route)
        return ForeignRoutesRead(frozenset(self._foreign.values()))

    # --- notifications ---

    def _on_route(self) -> None:
        try:
            packets = self._route.receive()
        except Overrun:
            log.warning("the kernel dropped notifications: reading links, addresses and routes anew")
            self._post(self._read())
            for driver in ("links", "routes"):
                self._notice(driver, "notifications were lost")
            return
        events = [event for packet in packets for event in self._events(packet)]
        if events:
            self._post(events)

    def _events(self, packet: Packet) -> Iterator[Event]:
        match packet.kind:
            case rtnetlink.NEW_LINK | rtnetlink.DELETE_LINK:
                yield from self._link_events(packet)
            case rtnetlink.NEW_ADDRESS | rtnetlink.DELETE_ADDRESS:
                yield self._address_event(packet)
            case rtnetlink.NEW_ROUTE | rtnetlink.DELETE_ROUTE:
                yield from self._route_events(packet)
            case rtnetlink.NEW_NEIGHBOUR | rtnetlink.DELETE_NEIGHBOUR:
                self._see_neighbour(packet)

    def _link_events(self, packet: Packet) -> Iterator[Event]:
        found = rtnetlink.parse_link(packet.body)
        if packet.kind == rtnetlink.DELETE_LINK:
            if found.index not in self.links:
                return
            if found.name in DEVICES and packet.port not in self.own_ports - {0}:
                self._notice("links", f"link {found.name} was deleted")
            yield self._forget(found.index)
            yield self._read_routes()
            return
        link = _link(found)
        old = self.links.get(link.index)
        if old == link:
            return
        yield self._keep(link)
        if old is not None and old.up and not link.up:
            yield from self._fallen(link)

    def _fallen(self, link: Link) -> Iterator[Event]:
        """The kernel drops the routes of a link that goes down, and says nothing of it for IPv4."""
        workload = link.index in self.workload_links
        if not workload or self.has_routes(link):
            self._notice("routes", f"link {link.name} went down")
        if not workload:
            yield self._read_routes()

    def _address_event(self, packet: Packet) -> Event:
        address = _address(rtnetlink.parse_address(packet.body))
        if packet.kind == rtnetlink.NEW_ADDRESS:
            self.addresses.add(address)
            return AddressSeen(address)
        self.addresses.discard(address)
        link = self.links.get(address.index)
        if link is not None and link.name in DEVICES and packet.port not in self.own_ports:
            self._notice("links", f"address {address.address} was taken from {link.name}")
        return AddressGone(address)

    def _route_events(self, packet: Packet) -> Iterator[Event]:
        if packet.port in self.own_ports - {0}:
            return
        route = rtnetlink.parse_route(packet.body)
        if route.table != MAIN_TABLE or route.cloned:
            return
        if self._is_foreign(route):
            key = (route.destination, route.metric)
            if packet.kind == rtnetlink.NEW_ROUTE:
                self._foreign[key] = _foreign(route)
            else:
                self._foreign.pop(key, None)
            yield ForeignRoutesRead(frozenset(self._foreign.values()))
        elif route.protocol in _OURS or (route.device in self.workload_links and route.kind == "unicast"):
            if packet.port == 0 and route.protocol == rtnetlink.PROTOCOL_KERNEL:
                return
            verb = "written" if packet.kind == rtnetlink.NEW_ROUTE else "deleted"
            self._notice("routes", f"route {route.destination} was {verb} by somebody else")

    def _see_neighbour(self, packet: Packet) -> None:
        if packet.port in self.own_ports:
            return
        entry = rtnetlink.parse_neighbour(packet.body)
        link = self.links.get(entry.index)
        if link is not None and link.name in DEVICES:
            self._notice("links", f"a neighbour or forwarding entry of {link.name} was changed")

    def _on_netfilter(self) -> None:
        try:
            packets = self._netfilter.receive()
        except Overrun:
            self._notice("nftables", "notifications were lost")
            return
        for packet in packets:
            if packet.port not in self.own_ports and nf_tables.names_table(packet.body, "calipy"):
                self._notice("nftables", "table calipy was changed by somebody else")

    # --- what is remembered ---

    def _keep(self, link: Link) -> LinkSeen:
        self.links[link.index] = link
        if link.name.startswith(self._prefixes):
            self.workload_links[link.index] = link
        return LinkSeen(link)

    def _forget(self, index: int) -> LinkGone:
        del self.links[index]
        self.workload_links.pop(index, None)
        self.addresses = {address for address in self.addresses if address.index != index}
        return LinkGone(index)

    def _is_foreign(self, route: rtnetlink.Route) -> bool:
        devices = [hop.device for hop in route.next_hops] or [route.device]
        return (
            route.table == MAIN_TABLE
            and route.kind == "unicast"
            and not route.cloned
            and route.protocol not in _OURS
            and not any(device in self.workload_links for device in devices)
            and not route.destination.startswith("fe80:")
        )


def _link(found: rtnetlink.Link) -> Link:
    return Link(
        index=found.index,
        name=found.name,
        kind=found.kind,
        up=found.up,
        carrier=found.carrier,
        mtu=found.mtu,
        mac=found.mac,
        alias=found.alias,
    )


def _address(found: rtnetlink.Address) -> LinkAddress:
    return LinkAddress(found.index, found.address, found.prefix_length)


def _foreign(route: rtnetlink.Route) -> ForeignRoute:
    hops = route.next_hops or (rtnetlink.NextHop(gateway=route.gateway, device=route.device),)
    return ForeignRoute(
        prefix=route.destination,
        metric=route.metric,
        next_hops=tuple((hop.gateway, hop.device or 0) for hop in hops),
    )
