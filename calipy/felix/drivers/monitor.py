"""What the kernel says of itself: a first reading, then notifications, as facts for the calculation and as notices of
foreign changes for the dataplane.

Routes and devices of ours that somebody else touches are told by the netlink port of who did it: our own writes carry
the ports of our own sockets. What the kernel itself takes away (routes of a link that goes down) needs no reading: it
is known which, and `Lost` says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence, Set
from typing import Protocol

from calipy.felix.calc.settings import FelixSettings
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
from calipy.model.routes import MAIN_TABLE, PROTOCOL_BIRD, PROTOCOL_CALIPY, RouteKey
from calipy.netlink import nf_tables, rtnetlink
from calipy.netlink.messages import Message, Overrun, Packet
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
    rtnetlink.GROUP_IPV4_CONFIGURATION,
    rtnetlink.GROUP_IPV6_CONFIGURATION,
)
SLICE_S = 0.005
"""How long a reading may hold the loop in one go."""
_AGAIN_S = 0.5
"""After a reading that the kernel broke off, until the next attempt: nobody tells when it lets us."""
_OURS = (PROTOCOL_CALIPY, PROTOCOL_BIRD)
_OWN_TABLE = (nf_tables.INET, "calipy")

_ALL_LINKS = -1
"""NETCONFA_IFINDEX_ALL: the setting of the namespace, not of one link."""

Reading = Iterator[Event | None]
"""What a reading finds, event by event; None where it may pause."""
Notice = Callable[[str, str], None]
"""Driver's name and what has happened to something of its: it must be read."""


class OwnDevices(Protocol):
    """What we have made of the tunnel devices, for what notifications don't say: whose doing it was."""

    @property
    def deleted(self) -> Container[int]:
        """Indices of devices that we have deleted."""
        ...

    def looks(self, device: str, mtu: int, mac: str, up: bool) -> bool:
        """True if we left the device so."""
        ...

    def forwards(self, device: str, mac: str, remote: str) -> bool:
        """True if we have written that forwarding entry."""
        ...


class Losses(Protocol):
    """Who is to know of what the kernel took away by itself."""

    def lost_routes(self, index: int) -> None:
        """All routes over a link went when it fell; it is up again."""
        ...

    def lost_route(self, key: RouteKey) -> None:
        """One route went though its link is up."""
        ...

    def shaken(self, link: Link) -> None:
        """A workload's link has gone down, or lost an address."""
        ...


class Monitor:
    """Listens to the kernel on the event loop."""

    def __init__(
        self,
        post: Callable[[Sequence[Event]], object],
        notice: Notice,
        losses: Losses,
        devices: OwnDevices,
        settings: FelixSettings,
        namespace: int | None = None,
        reader: NetlinkSocket | None = None,
    ) -> None:
        """`reader` is the socket for readings, None = one of its own; it is closed with the others."""
        self._post = post
        self._notice = notice
        self._losses = losses
        self._devices = devices
        self._prefixes = settings.interface_prefixes
        self.remove_external_routes = settings.remove_external_routes
        self._route = NetlinkSocket.open(ROUTE, _GROUPS, namespace)
        self._reader = reader or NetlinkSocket.open(ROUTE, namespace=namespace)
        self._netfilter = NetlinkSocket.open(NETFILTER, (nf_tables.GROUP_NF_TABLES,), namespace)
        self.on_tables: Callable[[Set[tuple[int, str]] | None], None] = lambda tables: None
        """Called with the tables of packet filters, family and name, that others have changed; None: any of them."""
        self.own_ports: set[int] = {0}
        """Netlink ports whose changes of routes, neighbours and tables are no news; 0 is the kernel's own doing."""
        self.links: dict[int, Link] = {}
        self.workload_links: dict[int, Link] = {}
        """Those whose name has a workload prefix."""
        self.addresses: set[LinkAddress] = set()
        self._foreign: dict[tuple[str, int], ForeignRoute] = {}
        self._foreign_moved = False
        self._reread = False
        """True where the kernel may have dropped foreign routes without a word."""
        self._lost = False
        """True where notifications were lost, and links, addresses and routes are not yet read anew."""
        self._listens = False
        self._reading: Reading | None = None
        """The one under way; notifications wait until it has ended."""
        self._next: asyncio.Handle | None = None
        """When it goes on, or is tried again."""
        self._events_due: list[Event] = []
        """Not yet posted: what was heard before a reading goes with what it finds."""

    async def start(self) -> None:
        """Reads links, addresses and routes, posts them, and goes on with notifications; what comes meanwhile waits."""
        until = time.monotonic() + SLICE_S
        for event in self._read():
            if event is not None:
                self._events_due.append(event)
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE_S
        self._hand_on()
        self._listen()
        asyncio.get_running_loop().add_reader(self._netfilter.fileno(), self._on_netfilter)

    def addresses_of(self, index: int) -> frozenset[str]:
        """A link's addresses."""
        return frozenset(address.address for address in self.addresses if address.index == index)

    @property
    def foreign_routes(self) -> Iterable[ForeignRoute]:
        """Unicast routes of others."""
        return self._foreign.values()

    @property
    def dumps(self) -> int:
        """How often the kernel was read."""
        return self._reader.dumps

    def close(self) -> None:
        """Stops listening."""
        loop = asyncio.get_event_loop()
        if self._next is not None:
            self._next.cancel()
        for socket in (self._route, self._netfilter):
            loop.remove_reader(socket.fileno())
            socket.close()
        self._reader.close()

    # --- reading ---

    def _read(self) -> Reading:
        self._lost = False
        gone = set(self.links)
        for body in (yield from self._dump(rtnetlink.dump_links())):
            link = _link(rtnetlink.parse_link(body))
            gone.discard(link.index)
            yield self._keep(link)
        for index in gone:
            yield self._forget(index)
        seen: set[LinkAddress] = set()
        for body in (yield from self._dump(rtnetlink.dump_addresses())):
            seen.add(_address(rtnetlink.parse_address(body)))
            yield None
        yield from [AddressGone(address) for address in self.addresses - seen]
        yield from map(AddressSeen, seen)
        self.addresses = seen
        yield from self._read_routes()

    def _read_routes(self) -> Reading:
        self._reread = False
        found: dict[tuple[str, int], ForeignRoute] = {}
        for family in (4, 6):
            for body in (yield from self._dump(rtnetlink.dump_routes(family, MAIN_TABLE))):
                route = rtnetlink.parse_route(body)
                if self._is_foreign(route):
                    found[route.destination, route.metric] = _foreign(route)
                yield None
        self._foreign, self._foreign_moved = found, False
        yield ForeignRoutesRead(frozenset(self._foreign.values()))

    def _dump(self, message: Message) -> Generator[None, None, list[memoryview]]:
        bodies: list[memoryview] = []
        for step in self._reader.dump_slices(message):
            bodies = step or bodies
            yield
        return bodies

    def _catch_up(self) -> None:
        """Posts what was heard; where notifications don't tell all, once the rest is read."""
        if self._reading is not None:
            return
        if self._lost or self._reread:
            asyncio.get_running_loop().remove_reader(self._route.fileno())
            if self._next is not None:
                self._next.cancel()
            self._reading = self._read() if self._lost else self._read_routes()
            self._read_on(whole=self._lost)
            return
        if self._foreign_moved:
            self._foreign_moved = False
            self._events_due.append(ForeignRoutesRead(frozenset(self._foreign.values())))
        self._hand_on()

    def _read_on(self, whole: bool) -> None:
        """One slice of the reading. What can't be read now is read in a moment."""
        assert self._reading is not None
        loop, until = asyncio.get_running_loop(), time.monotonic() + SLICE_S
        try:
            for event in self._reading:
                if event is not None:
                    self._events_due.append(event)
                if time.monotonic() >= until:
                    self._next = loop.call_soon(self._read_on, whole)
                    return
        except OSError as error:
            log.warning("links, addresses and routes can't be read: %s; trying again", error)
            self._lost, self._reread = whole, True
            self._end_reading()
            self._hand_on()
            self._next = loop.call_later(_AGAIN_S, self._catch_up)
            return
        self._end_reading()
        self._catch_up()

    def _end_reading(self) -> None:
        self._reading = None
        self._listen()

    def _hand_on(self) -> None:
        events, self._events_due = self._events_due, []
        if events:
            self._post(events)

    def _listen(self) -> None:
        self._listens = True
        asyncio.get_running_loop().add_reader(self._route.fileno(), self._on_route)

    # --- notifications ---

    def _on_route(self) -> None:
        try:
            for packet in self._route.receive():
                self._events_due += self._events(packet)
        except Overrun:
            log.warning("the kernel dropped notifications: reading links, addresses and routes anew")
            self._route.discard()
            self._lost = True
            for driver in ("links", "routes", "sysctls"):
                self._notice(driver, "notifications were lost")
        self._catch_up()

    def _events(self, packet: Packet) -> Iterator[Event]:
        match packet.kind:
            case rtnetlink.NEW_LINK | rtnetlink.DELETE_LINK:
                yield from self._link_events(packet)
            case rtnetlink.NEW_ADDRESS | rtnetlink.DELETE_ADDRESS:
                yield self._address_event(packet)
            case rtnetlink.NEW_ROUTE | rtnetlink.DELETE_ROUTE:
                self._see_route(packet)
            case rtnetlink.NEW_NEIGHBOUR | rtnetlink.DELETE_NEIGHBOUR:
                self._see_neighbour(packet)
            case rtnetlink.NEW_NETWORK_CONFIGURATION:
                self._see_configuration(packet)

    def _link_events(self, packet: Packet) -> Iterator[Event]:
        found = rtnetlink.parse_link(packet.body)
        if packet.kind == rtnetlink.DELETE_LINK:
            yield from self._link_gone(found, packet.port)
            return
        link = _link(found)
        old = self.links.get(link.index)
        if old == link:
            return
        yield self._keep(link)
        if old is not None and old.up != link.up:
            self._turned(link)
        if old is not None and link.name in DEVICES and not self._is_as_left(link):
            self._notice("links", f"link {link.name} was changed")

    def _is_as_left(self, link: Link) -> bool:
        going = link.index in self._devices.deleted
        return going or self._devices.looks(link.name, link.mtu, link.mac, link.up)

    def _link_gone(self, found: rtnetlink.Link, port: int) -> Iterator[Event]:
        if found.index not in self.links:
            return
        own = port in self.own_ports - {0} or found.index in self._devices.deleted
        if found.name in DEVICES and not own:
            self._notice("links", f"link {found.name} was deleted")
        workload = found.index in self.workload_links
        yield self._forget(found.index)
        self._reread = self._reread or not workload

    def _turned(self, link: Link) -> None:
        """The kernel drops the routes of a link that goes down, and says nothing of it for IPv4. Meanwhile they wait;
        once it is up again they are to be written anew, even if both happened within one flush."""
        workload = link.index in self.workload_links
        if link.up:
            self._losses.lost_routes(link.index)
        elif workload:
            self._losses.shaken(link)
        self._reread = self._reread or not workload

    def _address_event(self, packet: Packet) -> Event:
        address = _address(rtnetlink.parse_address(packet.body))
        link = self.links.get(address.index)
        if link is not None and link.name in DEVICES and packet.port not in self.own_ports:
            self._notice("links", f"address {address.address} of {link.name} was given or taken")
        if packet.kind == rtnetlink.NEW_ADDRESS:
            self.addresses.add(address)
            return AddressSeen(address)
        self.addresses.discard(address)
        if address.index in self.workload_links:
            self._losses.shaken(self.workload_links[address.index])
        return AddressGone(address)

    def _see_route(self, packet: Packet) -> None:
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
            self._foreign_moved = True
        elif route.protocol in _OURS or (route.kind == "unicast" and self.owns_routes(route.device or 0)):
            if packet.port == 0:
                self._kernels_own(packet.kind, route)
                return
            verb = "written" if packet.kind == rtnetlink.NEW_ROUTE else "deleted"
            self._notice("routes", f"route {route.destination} was {verb} by somebody else")

    def _kernels_own(self, kind: int, route: rtnetlink.Route) -> None:
        """The kernel itself takes IPv6 routes away where their link goes down (then they wait) or an address that they
        depend on goes."""
        link = self.links.get(route.device or 0)
        if kind == rtnetlink.DELETE_ROUTE and route.protocol in _OURS and link is not None and link.up:
            self._losses.lost_route(RouteKey(route.table, route.destination, route.metric))

    def _see_neighbour(self, packet: Packet) -> None:
        entry = rtnetlink.parse_neighbour(packet.body)
        link = self.links.get(entry.index)
        if link is None or link.name not in DEVICES:
            return
        if entry.family == rtnetlink.AF_BRIDGE:
            # The kernel tells nobody's port here: whether it is news is told by what we have written.
            news = self._devices.forwards(link.name, entry.mac or "", entry.address or "") == (
                packet.kind == rtnetlink.DELETE_NEIGHBOUR
            )
        else:
            news = packet.port not in self.own_ports
        if news:
            self._notice("links", f"a neighbour or forwarding entry of {link.name} was changed")

    def _see_configuration(self, packet: Packet) -> None:
        """Forwarding was switched for the whole namespace."""
        found = rtnetlink.parse_network_configuration(packet.body)
        if found.index == _ALL_LINKS and found.forwarding == 0:
            self._notice("sysctls", f"IPv{found.family} forwarding was turned off")

    def _on_netfilter(self) -> None:
        try:
            packets = self._netfilter.receive()
        except Overrun:
            self._netfilter.discard()
            self._notice("nftables", "notifications were lost")
            self.on_tables(None)
            return
        tables = {nf_tables.table_of(p.kind, p.body) for p in packets if p.port not in self.own_ports} - {None}
        if _OWN_TABLE in tables:
            self._notice("nftables", "table calipy was changed by somebody else")
        self.on_tables(tables - {_OWN_TABLE})  # type: ignore[arg-type]

    # --- what is ours ---

    def owns_routes(self, index: int) -> bool:
        """True if all routes over a link are ours, whoever wrote them."""
        if index in self.workload_links:
            return self.remove_external_routes
        link = self.links.get(index)
        return link is not None and link.name in DEVICES

    def is_of_host(self, events: Iterable[Event]) -> bool:
        """Whether links other than workloads', or their addresses, have moved."""
        return any(
            (isinstance(event, AddressSeen | AddressGone) and event.address.index not in self.workload_links)
            or (isinstance(event, LinkSeen) and event.link.index not in self.workload_links)
            for event in events
        )

    def follow(self, settings: FelixSettings) -> None:
        """Takes in settings that decide what is ours."""
        self.remove_external_routes = settings.remove_external_routes
        if settings.interface_prefixes != self._prefixes:
            self._prefixes = settings.interface_prefixes
            self.workload_links.clear()
            for link in self.links.values():
                self._keep(link)
            self._reread = True
            if self._listens:
                self._catch_up()

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
            and not any(self._is_own_link(device or 0) for device in devices)
            and not route.destination.startswith("fe80:")
        )

    def _is_own_link(self, index: int) -> bool:
        link = self.links.get(index)
        return index in self.workload_links or (link is not None and link.name in DEVICES)


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
