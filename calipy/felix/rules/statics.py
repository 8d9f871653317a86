"""What every node has: base chains, dispatch, what workloads may send to their host, NAT of what leaves the cluster."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from calipy.felix.calc.change import NodeState, SetKey
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names
from calipy.felix.rules.policies import deny
from calipy.felix.rules.values import (
    Accept,
    Action,
    Address,
    Chain,
    ConnectionState,
    Direction,
    Dispatch,
    Drop,
    Family,
    Hook,
    IcmpType,
    InSet,
    Interface,
    Jump,
    LocalSource,
    Masquerade,
    Match,
    NoTrack,
    OwnSource,
    Ports,
    Protocol,
    Return,
    Rule,
    SetSpec,
    Side,
    SourceNat,
)
from calipy.model.origins import Origin
from calipy.model.sets import ALL_HOSTS, MASQUERADED_IP_POOLS, NETWORK_IP_POOLS, VXLAN_HOSTS, SetId

_IPIP, _TCP, _UDP, _ICMPV6 = 4, 6, 17, 58
_RAW, _FROM_WORKLOAD, _FILTER, _SOURCE_NAT = -300, -1, 0, 100
_ESTABLISHED = Rule(
    (ConnectionState(("established", "related")),), Accept(), Origin("static", "established"), counted=False
)
_WAYS: tuple[tuple[Direction, str], ...] = (("in", names.FROM_WORKLOAD), ("out", names.TO_WORKLOAD))
_FORWARD_FROM = Hook(type="filter", hook="forward", priority=_FROM_WORKLOAD)
_FORWARD = Hook(type="filter", hook="forward", priority=_FILTER)
_INPUT_FROM = Hook(type="filter", hook="input", priority=_FROM_WORKLOAD)
_INPUT = Hook(type="filter", hook="input", priority=_FILTER)
_DISCOVERY = tuple(
    Rule((Protocol(_ICMPV6), IcmpType(first, last)), Accept(), Origin("static", "neighbour discovery"))
    for first, last in ((130, 133), (135, 136))
)
_WORKLOAD_TO_HOST = Chain(
    (*_DISCOVERY, Rule((), Jump(names.FROM_WORKLOAD), Origin("static", "workload to host"), counted=False))
)
"""Neighbour discovery and multicast listener messages pass (ICMPv6 130 to 133, 135, 136, as in Calico); the rest goes
the endpoint's way. What that lets through is then subject to defaultEndpointToHostAction."""


def compile(state: NodeState) -> Objects:
    """All static chains and maps."""
    return dict(_objects(state))


def skeleton(settings: FelixSettings) -> Objects:
    """What stands in for everything while nothing is known: established flows pass, all else from and to workloads is
    dropped, but neighbour discovery. The host itself is not held up on its way to its own pods."""

    def dropped(direction: Direction) -> Iterator[Rule]:
        for match in _workloads(settings, direction):
            yield Rule((match,), Drop(), Origin("static", "not in sync yet"))

    return {
        names.chain("filter-FORWARD"): Chain((_ESTABLISHED, *dropped("in"), *dropped("out")), _FORWARD),
        names.chain("filter-INPUT"): Chain((_ESTABLISHED, *_DISCOVERY, *dropped("in")), _INPUT),
    }


def _objects(state: NodeState) -> Iterator[tuple[ObjectName, Struct]]:
    settings = state.settings
    for direction, dispatch in _WAYS:
        yield names.set_(names.map_of(dispatch)), SetSpec("interfaces")
        yield names.chain(dispatch), _dispatch(dispatch, direction, settings)
    yield names.chain("filter-FORWARD-from-workload"), _judged("in", names.FROM_WORKLOAD, _FORWARD_FROM, settings)
    yield names.chain("filter-FORWARD"), _judged("out", names.TO_WORKLOAD, _FORWARD, settings)
    yield names.chain("filter-INPUT-from-workload"), _judged("in", names.WORKLOAD_TO_HOST, _INPUT_FROM, settings)
    yield names.chain("filter-INPUT"), _input(state)
    yield names.chain(names.WORKLOAD_TO_HOST), _WORKLOAD_TO_HOST
    yield names.chain(names.NAT_OUTGOING), Chain(tuple(_nat_outgoing(state)))
    yield names.chain("nat-POSTROUTING"), _postrouting(state)
    for family, set_name in names.SOURCES.items():
        yield names.set_(set_name), SetSpec("sources", family)
    incoming, outgoing = _untracked(state, "source"), _untracked(state, "destination")
    prerouting = (*_spoofed(settings), *incoming)
    yield names.chain("raw-PREROUTING"), Chain(prerouting, Hook(type="filter", hook="prerouting", priority=_RAW))
    yield names.chain("raw-OUTPUT"), Chain(tuple(outgoing), Hook(type="filter", hook="output", priority=_RAW))


def _workloads(settings: FelixSettings, direction: Direction) -> Iterator[Match]:
    for prefix in settings.interface_prefixes:
        yield Interface(direction, prefix, prefix=True)


def _dispatch(dispatch: str, direction: Direction, settings: FelixSettings) -> Chain:
    return Chain(
        (
            *_insane(direction, settings),
            Rule((), Dispatch(names.map_of(dispatch), direction), Origin("static", "dispatch"), counted=False),
            Rule((), deny(settings), Origin("static", "unknown interface")),
        )
    )


def _spoofed(settings: FelixSettings) -> Iterator[Rule]:
    """No workload sends by another's address, not even into a connection that is established: so this comes before
    connection tracking. Link-local addresses are the link's own affair, and no further than the host. The family comes
    first: it is the cheapest test, and the interface's name the dearest load."""
    for workload in _workloads(settings, "in"):
        for family, set_name in names.SOURCES.items():
            mine: Match = Family(4) if family == 4 else Address("source", "fe80::/10", negated=True)
            stranger = OwnSource(set_name, family, negated=True)
            yield Rule((mine, workload, stranger), Drop(), Origin("static", "spoofed"))


def _insane(direction: Direction, settings: FelixSettings) -> Iterator[Rule]:
    """What no workload may send or get, whoever it is: packets of no connection, encapsulation of its own making."""
    if not settings.disable_conntrack_invalid_check:
        yield Rule((ConnectionState(("invalid",)),), deny(settings), Origin("static", "invalid"))
    if direction == "out":
        return
    if not settings.allow_vxlan_from_workloads:
        vxlan = (Protocol(_UDP), Ports("destination", settings.vxlan_port, settings.vxlan_port))
        yield Rule(vxlan, deny(settings), Origin("static", "encapsulation"))
    if not settings.allow_ipip_from_workloads:
        yield Rule((Protocol(_IPIP),), deny(settings), Origin("static", "encapsulation"))


def _judged(direction: Direction, chain: str, hook: Hook, settings: FelixSettings) -> Chain:
    """A base chain that judges packets from workloads, or to them. What one accepts goes on to the other: each has the
    last word on its own side, and no chain of one side leads into the other's."""
    origin = Origin("static", "workload to host" if chain == names.WORKLOAD_TO_HOST else "workload")
    jumps = (Rule((match,), Jump(chain), origin, counted=False) for match in _workloads(settings, direction))
    return Chain((_ESTABLISHED, *jumps), hook)


def _input(state: NodeState) -> Chain:
    settings = state.settings
    rules = [_ESTABLISHED]
    for tunnel in state.tunnels.values():
        port = (Family(tunnel.family), Protocol(_UDP), Ports("destination", tunnel.port, tunnel.port))
        known = InSet("source", _set(state, VXLAN_HOSTS, tunnel.family), tunnel.family)
        rules.append(Rule((*port, known), Accept(), Origin("static", "VXLAN from a node")))
        rules.append(Rule(port, deny(settings), Origin("static", "VXLAN from elsewhere")))
    actions: dict[str, Action] = {"DROP": deny(settings), "ACCEPT": Accept(), "RETURN": Return()}
    end = actions[settings.default_endpoint_to_host_action]
    rules += _DISCOVERY
    rules += [
        Rule((match,), end, Origin("setting", "defaultEndpointToHostAction")) for match in _workloads(settings, "in")
    ]
    return Chain(tuple(rules), _INPUT)


def _set(state: NodeState, id_: SetId, family: int) -> str:
    key = SetKey(id_, family)
    return names.set_name(key, state.sets[key])


def _families(state: NodeState) -> tuple[int, ...]:
    return tuple(family for family in (4, 6) if SetKey(NETWORK_IP_POOLS, family) in state.sets)


def _nat_outgoing(state: NodeState) -> Iterator[Rule]:
    """From pools with natOutgoing to anywhere but pools (and hosts, if they are excluded)."""
    settings = state.settings
    for family in _families(state):
        matches: list[Match] = [
            InSet("source", _set(state, MASQUERADED_IP_POOLS, family), family),
            InSet("destination", _set(state, NETWORK_IP_POOLS, family), family, negated=True),
        ]
        if settings.nat_outgoing_exclusions == "IPPoolsAndHostIPs":
            matches.append(InSet("destination", _set(state, ALL_HOSTS, family), family, negated=True))
        if settings.nat_outgoing_interface_filter:
            name = settings.nat_outgoing_interface_filter
            matches.append(Interface("out", name.removesuffix("+"), prefix=name.endswith("+")))
        yield from _translations(tuple(matches), settings, family)


def _translations(matches: tuple[Match, ...], settings: FelixSettings, family: int) -> Iterator[Rule]:
    address = settings.nat_outgoing_address if family == 4 else None
    origin = Origin("setting", "natOutgoing")

    def action(ports: tuple[int, int] | None) -> Action:
        return SourceNat(address, ports) if address else Masquerade(ports)

    if settings.nat_port_range is not None:
        for protocol in (_TCP, _UDP):
            yield Rule((*matches, Protocol(protocol)), action(settings.nat_port_range), origin)
    yield Rule(matches, action(None), origin)


def _postrouting(state: NodeState) -> Chain:
    """After outgoing NAT: what this node itself sends into a tunnel carries the tunnel's address, or no answer would
    come back through it."""
    rules = [Rule((), Jump(names.NAT_OUTGOING), Origin("static", "outgoing"), counted=False)]
    for tunnel in state.tunnels.values():
        rules.append(
            Rule(
                (
                    Interface("out", tunnel.name),
                    Family(tunnel.family),
                    Address("source", tunnel.address, negated=True),
                    LocalSource(),
                ),
                Masquerade(),
                Origin("static", f"into {tunnel.name}"),
            )
        )
    return Chain(tuple(rules), Hook(type="nat", hook="postrouting", priority=_SOURCE_NAT))


def _untracked(state: NodeState, side: Side) -> Iterator[Rule]:
    """The tunnel's own packets, from nodes and to nodes, need no connection: it would cost, and masquerading would
    spoil them. Others' packets with that port do: it may be one that our NAT has chosen."""
    for tunnel in state.tunnels.values():
        nodes = InSet(side, _set(state, VXLAN_HOSTS, tunnel.family), tunnel.family)
        port = Ports("destination", tunnel.port, tunnel.port)
        yield Rule((Protocol(_UDP), port, nodes), NoTrack(), Origin("static", "VXLAN"))
