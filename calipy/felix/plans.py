"""What each driver is to hold for an owner: the neutral state turned into kernel objects. Pure.

Rules have compilers of their own (`rules`); routes and tunnels are a change of spelling, and that is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal, Protocol

from msgspec import Struct

from calipy.felix.calc.change import Change, NodeState, SetDelta
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Objects, Owner
from calipy.model.routes import NextHop, Route, RouteKey
from calipy.model.tunnels import Tunnel

_FEW = 1024
"""So many different ways of routes are kept."""


class Plan(Struct, frozen=True, gc=False):
    """What one owner wants from now on; of members also what came and went, where nothing else of them moved."""

    owner: Owner
    objects: Objects | None = None
    moved: Mapping[ObjectName, SetDelta] = {}
    problem: str = ""
    """Not empty: what it wants can't be made, and why. That is a mistake in a compiler."""


def planned(owner: Owner, make: Callable[[], Objects | None], moved: Mapping[ObjectName, SetDelta] = {}) -> Plan:
    """The plan of an owner by its compiler. A mistake there costs that owner, nobody else."""
    try:
        return Plan(owner, make(), moved)
    except Exception as error:  # whatever it is: it is told, and the owner closed
        return mistaken(owner, error)


def mistaken(owner: Owner, error: Exception) -> Plan:
    """The plan of an owner whose compiler has raised."""
    return Plan(owner, problem=f"{type(error).__name__}: {error}")


class Planner(Protocol):
    """Turns a change into plans for one driver, and knows what stands in for an owner that the kernel refuses."""

    def plans(self, change: Change, state: NodeState) -> Iterable[Plan | None]:
        """For each owner that the change names, what it wants in `state` (the state with the change in it). None where
        that is much: who waits for it may pause."""
        ...

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        """All that one owner wants in `state`."""
        ...

    def closed(self, owner: Owner, state: NodeState) -> Objects | None:
        """The closed form of an owner whose own form is refused; None: it is left out until it can be retried."""
        ...

    def users(self, owner: Owner) -> Iterable[Owner]:
        """Who relies on what `owner` wants, and counts as refused while that is: it would decide by what is not so."""
        ...


class Way(Struct, frozen=True, gc=False, order=True):
    """A next hop as the kernel keeps it."""

    gateway: str
    """Empty: the destination is on the link."""
    index: int
    onlink: bool = False


class KernelRoute(Struct, frozen=True, gc=False, kw_only=True):
    """A route as the kernel keeps it; its table, prefix and metric are its name."""

    kind: Literal["unicast", "blackhole"]
    ways: tuple[Way, ...]
    protocol: int
    scope: Literal["global", "link"]
    source: str = ""
    mtu: int = 0


class VxlanDevice(Struct, frozen=True, gc=False, kw_only=True):
    """A VXLAN device; its name is its object's name."""

    vni: int
    port: int
    local: str
    parent: str
    mac: str
    mtu: int
    learning: bool = False
    group: str = ""
    offload: bool = True
    """Whether the device leaves checksums to the driver below."""
    up: bool = True


class DeviceAddress(Struct, frozen=True, gc=False, kw_only=True):
    """A whole address on a device of ours."""

    device: str
    address: str


class TunnelNeighbour(Struct, frozen=True, gc=False, kw_only=True):
    """A permanent neighbour entry."""

    device: str
    address: str
    mac: str


class ForwardingEntry(Struct, frozen=True, gc=False, kw_only=True):
    """A VXLAN forwarding database entry: frames for `mac` go to `remote`."""

    device: str
    mac: str
    remote: str


class Sysctl(Struct, frozen=True, gc=False, kw_only=True):
    """A setting below /proc/sys/net; its path is its object's name."""

    value: str
    optional: bool = False
    """True where a kernel without it is good enough."""


SYSCTLS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "netfilter/nf_conntrack_acct")
"""All that Felix may ever set for the node (calico.md 3.8)."""
SYSCTLS_LEFTOVER = Owner("leftover", "sysctls")
"""Owner of settings that nobody wants: they are held, for ever, as they are."""


def _route_text(key: RouteKey) -> str:
    return f"{key.table} {key.prefix} {key.metric}"


def route_name(key: RouteKey) -> ObjectName:
    """The object that a route is."""
    return ObjectName("route", _route_text(key))


def route_key(name: ObjectName) -> RouteKey:
    """The inverse of `route_name`."""
    table, prefix, metric = name.name.split(" ")
    return RouteKey(int(table), prefix, int(metric))


def route_owner(key: RouteKey) -> Owner:
    """The owner that a route is: each answers for itself, so that one refusal stops no other."""
    return Owner("route", _route_text(key))


def tunnel_owner(device: str) -> Owner:
    """The owner of a tunnel's device, address, neighbours and forwarding entries."""
    return Owner("tunnel", device)


def _route_plan(text: str, route: Route | None) -> Plan:
    """The object of a route; nothing for one that is gone or waits."""
    if route is None or route.waits_for:
        return Plan(Owner("route", text))
    value = _kernel_route(route.kind, route.next_hops, route.protocol, route.scope, route.source or "", route.mtu or 0)
    return Plan(Owner("route", text), {ObjectName("route", text): value})


@lru_cache(_FEW)
def _kernel_route(
    kind: Literal["unicast", "blackhole"],
    next_hops: tuple[NextHop, ...],
    protocol: int,
    scope: Literal["global", "link"],
    source: str,
    mtu: int,
) -> KernelRoute:
    """A node's many routes lead a few ways: they share their values."""
    ways = tuple(sorted(Way(hop.gateway or "", hop.index, hop.onlink) for hop in next_hops))
    return KernelRoute(kind=kind, ways=ways, protocol=protocol, scope=scope, source=source, mtu=mtu)


def tunnel_objects(tunnel: Tunnel | None) -> Objects:
    """The objects of a tunnel; nothing for one that is gone or waits."""
    return {} if tunnel is None or tunnel.waits_for else dict(_tunnel_objects(tunnel))


def _tunnel_objects(tunnel: Tunnel) -> Iterator[tuple[ObjectName, Struct]]:
    device = tunnel.name
    yield (
        ObjectName("device", device),
        VxlanDevice(
            vni=tunnel.vni,
            port=tunnel.port,
            local=tunnel.local,
            parent=tunnel.parent,
            mac=tunnel.mac,
            mtu=tunnel.mtu,
            offload=tunnel.offload,
        ),
    )
    yield (
        ObjectName("address", f"{device} {tunnel.address}"),
        DeviceAddress(device=device, address=tunnel.address),
    )
    for peer in tunnel.peers:
        neighbour = TunnelNeighbour(device=device, address=peer.address, mac=peer.mac)
        yield ObjectName("neighbour", f"{device} {peer.address}"), neighbour
        entry = ForwardingEntry(device=device, mac=peer.mac, remote=peer.remote)
        yield ObjectName("forwarding", f"{device} {peer.mac}"), entry


class RoutePlanner:
    """Plans for the routes driver."""

    def plans(self, change: Change, state: NodeState) -> Iterable[Plan]:
        """Each route that moved is an owner of its own."""
        for key, route in change.routes.items():
            yield _route_plan(_route_text(key), route)

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        """One route."""
        return _route_plan(owner.name, state.routes.get(route_key(ObjectName("route", owner.name))))

    def closed(self, owner: Owner, state: NodeState) -> Objects | None:
        """A refused route stays out."""
        return None

    def users(self, owner: Owner) -> Iterable[Owner]:
        """Nobody."""
        return ()


class TunnelPlanner:
    """Plans for the links driver."""

    def plans(self, change: Change, state: NodeState) -> Iterable[Plan]:
        """Each tunnel that moved, whole."""
        for device in change.tunnels:
            yield self.plan(tunnel_owner(device), state)

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        """One tunnel."""
        return planned(owner, lambda: tunnel_objects(state.tunnels.get(owner.name)))

    def closed(self, owner: Owner, state: NodeState) -> Objects | None:
        """A refused tunnel stays as it is."""
        return None

    def users(self, owner: Owner) -> Iterable[Owner]:
        """Nobody."""
        return ()


class SysctlPlanner:
    """Plans for the sysctls driver. Each setting is an owner of its own: one that can't be set stops no other."""

    def plans(self, change: Change, state: NodeState) -> Iterable[Plan]:
        """All of them, where settings moved."""
        if change.settings is not None:
            for path in SYSCTLS:
                yield self.plan(Owner("sysctl", path), state)

    def plan(self, owner: Owner, state: NodeState) -> Plan:
        """One setting."""
        wanted = dict(_sysctls(state.settings))
        objects = {ObjectName("sysctl", owner.name): wanted[owner.name]} if owner.name in wanted else {}
        return Plan(owner, objects)

    def closed(self, owner: Owner, state: NodeState) -> Objects | None:
        """A refused one stays as it is."""
        return None

    def users(self, owner: Owner) -> Iterable[Owner]:
        """Nobody."""
        return ()


def _sysctls(settings: FelixSettings) -> Iterator[tuple[str, Sysctl]]:
    """ipForwarding Disabled leaves alone what the administrator has set, as in Calico."""
    if settings.ip_forwarding == "Enabled":
        yield "ipv4/ip_forward", Sysctl(value="1")
        if settings.ipv6_support:
            yield "ipv6/conf/all/forwarding", Sysctl(value="1", optional=True)
    yield "netfilter/nf_conntrack_acct", Sysctl(value="1", optional=True)
