"""The one writer of the FIB: every route of ours, whatever it came from.

Ours are the routes of the main table with our protocols (80, BIRD's 12), all on tunnel devices, and, where
removeExternalRoutes says so, all on workload interfaces: so what a Calico node left (protocol 3) is adopted.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from msgspec import Struct

from calipy.felix.ledger import LEFTOVER
from calipy.felix.objects import ObjectName, Op, Outcome, Owner, Put, Refusal, fingerprint
from calipy.felix.plans import KernelRoute, Way, route_key, route_name
from calipy.model.routes import MAIN_TABLE, PROTOCOL_BIRD, PROTOCOL_CALIPY, RouteKey
from calipy.netlink import messages, rtnetlink
from calipy.netlink.messages import Message
from calipy.netlink.socket import NetlinkSocket
from calipy.resources.cidrs import family_of

LEARNED_LEFTOVER = Owner("leftover", "bgp")
"""Owner of routes that BGP learned before this agent started: held until BGP has said what it knows."""
_DEFAULT_METRIC_V6 = 1024
_SLICE = 200
_FEW = 1024
"""So many different ways of routes are kept."""
_GONE = frozenset({errno.ESRCH, errno.ENODEV, errno.ENOENT})
"""A route that is to go and isn't there: link down or gone, the kernel was faster."""


class RoutesDriver:
    """Reads and writes routes; implements `objects.Driver`."""

    name = "routes"
    transactional = False

    def __init__(self, socket: NetlinkSocket, owns_link: Callable[[int], bool] = lambda index: False) -> None:
        """`owns_link` tells by a link's index whether all routes over it are ours."""
        self._socket = socket
        self._owns_link = owns_link
        self._there: dict[ObjectName, KernelRoute] = {}
        """As last read or written."""
        self._over: defaultdict[int, set[ObjectName]] = defaultdict(set)

    def fingerprint(self, value: Struct) -> bytes:
        """Of a KernelRoute."""
        return _fingerprint(value)

    def leftover(self, name: ObjectName) -> Owner:
        """Routes that BGP learned can be held apart from the rest."""
        return LEARNED_LEFTOVER if self._protocol(name) == PROTOCOL_BIRD else LEFTOVER

    def over(self, index: int) -> frozenset[ObjectName]:
        """The routes, as last read or written, that lead over a link."""
        return frozenset(self._over.get(index, ()))

    def order(self, kind: str, gone: bool) -> int:
        """New ways first, old ones last: a prefix that moves to another metric is never without a route."""
        return int(gone)

    def weight(self, op: Op) -> int:
        """Each is one message or a few."""
        return 1

    def read(self) -> Iterator[Mapping[ObjectName, bytes] | None]:
        """All routes of ours, both families."""
        found: dict[ObjectName, bytes] = {}
        self._there, self._over = {}, defaultdict(set)
        for family in (4, 6):
            bodies: list[memoryview] = []
            for step in self._socket.dump_slices(rtnetlink.dump_routes(family, table=MAIN_TABLE)):
                bodies = step or bodies
                yield None
            for count, route in enumerate(bodies):
                if count % _SLICE == _SLICE - 1:
                    yield None
                self._file(rtnetlink.parse_route(route), found)
        yield found

    def _file(self, route: rtnetlink.Route, found: dict[ObjectName, bytes]) -> None:
        if route.table != MAIN_TABLE or route.cloned or not self._ours(route):
            return
        name = route_name(RouteKey(route.table, route.destination, route.metric))
        value = kernel_route(route)
        found[name] = fingerprint(value)
        self._remember(name, value)

    def _protocol(self, name: ObjectName) -> int:
        """rtnetlink protocol of a route that is there; 0 = unknown, or any."""
        there = self._there.get(name)
        return there.protocol if there is not None else 0

    def _remember(self, name: ObjectName, value: KernelRoute | None) -> None:
        before = self._there.pop(name, None)
        for way in before.ways if before is not None else ():
            self._over[way.index].discard(name)
            if not self._over[way.index]:
                del self._over[way.index]
        if value is not None:
            self._there[name] = value
            for way in value.ways:
                self._over[way.index].add(name)

    def _ours(self, route: rtnetlink.Route) -> bool:
        if route.protocol in (PROTOCOL_CALIPY, PROTOCOL_BIRD):
            return True
        kernels_own = route.protocol == rtnetlink.PROTOCOL_KERNEL
        return not kernels_own and route.kind == "unicast" and self._owns_link(route.device or 0)

    def apply(self, ops: tuple[Op, ...]) -> Outcome:
        """Writes routes; each is taken or refused by itself."""
        answers = self._socket.request(self._messages(ops))
        refusals = tuple(found for answer in answers if (found := self._judge(ops[answer.index], answer)) is not None)
        refused = {refusal.name for refusal in refusals}
        for op in ops:
            value = op.value if isinstance(op, Put) else None
            assert value is None or isinstance(value, KernelRoute)
            if op.name not in refused:
                self._remember(op.name, value)
        return Outcome(refusals=refusals)

    def _judge(self, op: Op, answer: messages.Refusal) -> Refusal | None:
        """What an answer comes to: nothing where what was to go isn't there, or a second try succeeds."""
        if not isinstance(op, Put):
            return None if answer.errno in _GONE else Refusal(op.name, answer.errno, answer.text)
        if op.replaces and answer.errno == errno.EINVAL and ":" in op.name.name:
            # Linux finds an IPv6 gateway of a tunnel, which lies in its node's block, by the very route that is to be
            # replaced, and refuses it where that one has another device.
            again = self._socket.request([self._delete(op.name), *self._messages((op,))])
            if not any(second.index == 1 for second in again):
                return None
        return Refusal(op.name, answer.errno, answer.text)

    def _messages(self, ops: tuple[Op, ...]) -> list[Message]:
        putters: dict[tuple[int, str, str, bool], Callable[[str], Message]] = {}
        messages = []
        for op in ops:
            if not isinstance(op, Put):
                messages.append(self._delete(op.name))
                continue
            table, prefix, metric = op.name.name.split(" ")
            way = (id(op.value), table, metric, ":" in prefix)
            put = putters.get(way)
            if put is None:
                assert isinstance(op.value, KernelRoute)
                pattern = netlink_route(RouteKey(int(table), prefix, int(metric)), op.value)
                put = putters[way] = rtnetlink.put_routes(pattern)
            messages.append(put(prefix))
        return messages

    def _delete(self, name: ObjectName) -> Message:
        key = route_key(name)
        family = family_of(key.prefix)
        return rtnetlink.delete_route(
            rtnetlink.Route(
                family=family,
                destination=key.prefix,
                table=key.table,
                metric=key.metric,
                protocol=self._protocol(name),
            )
        )


def kernel_route(route: rtnetlink.Route) -> KernelRoute:
    """A dumped route in the neutral form, as it would have been asked for."""
    if route.kind == "blackhole":
        ways: tuple[Way, ...] = ()
    elif route.next_hops:
        ways = tuple(sorted(Way(hop.gateway or "", hop.device or 0, hop.onlink) for hop in route.next_hops))
    else:
        ways = (Way(route.gateway or "", route.device or 0, route.onlink),)
    link_scope = route.family == 4 and route.scope == rtnetlink.SCOPE_LINK
    return KernelRoute(
        kind="blackhole" if route.kind == "blackhole" else "unicast",
        ways=ways,
        protocol=route.protocol,
        scope="link" if link_scope else "global",
        source=route.source or "",
        mtu=route.mtu or 0,
    )


_fingerprint = lru_cache(_FEW)(fingerprint)


def netlink_route(key: RouteKey, value: KernelRoute) -> rtnetlink.Route:
    """The neutral form as rtnetlink's."""
    family = family_of(key.prefix)
    single = value.ways[0] if len(value.ways) == 1 else None
    several = value.ways if len(value.ways) > 1 else ()
    return rtnetlink.Route(
        family=family,
        destination=key.prefix,
        table=key.table,
        metric=key.metric,
        protocol=value.protocol,
        scope=rtnetlink.SCOPE_LINK if value.scope == "link" else rtnetlink.SCOPE_UNIVERSE,
        kind=value.kind,
        gateway=(single.gateway or None) if single else None,
        device=single.index if single else None,
        onlink=single.onlink if single else False,
        source=value.source or None,
        mtu=value.mtu or None,
        next_hops=tuple(
            rtnetlink.NextHop(gateway=way.gateway or None, device=way.index, weight=1, onlink=way.onlink)
            for way in several
        ),
    )
