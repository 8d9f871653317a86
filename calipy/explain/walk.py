"""A packet's way through neutral rules and sets, as the kernel walks it: which rule decided, and which it met before.

Rules just compiled and rules read back from a kernel are walked alike. The state of the packet's connection comes with
it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Literal, assert_never

from msgspec import Struct

from calipy.explain.verdicts import Decision, Direction, Packet
from calipy.felix.calc.change import NodeState
from calipy.felix.objects import Members, ObjectName
from calipy.felix.rules import names, origins
from calipy.felix.rules.values import (
    Accept,
    Address,
    AddressMatch,
    Ask,
    Chain,
    ClearMark,
    ConnectionState,
    Dispatch,
    Drop,
    Element,
    Family,
    Goto,
    IcmpCode,
    IcmpType,
    InEndpoints,
    InPorts,
    InSet,
    Interface,
    Jump,
    LocalSource,
    Log,
    Marked,
    Masquerade,
    Match,
    NoTrack,
    OwnSource,
    Pass,
    Ports,
    Protocol,
    Reject,
    Return,
    Rule,
    SetSpec,
    Side,
    SourceNat,
    State,
    TransportMatch,
)
from calipy.model.sets import endpoint_member
from calipy.resources.cidrs import family_of

Objects = Mapping[ObjectName, Struct]
Hook = Literal["prerouting", "input", "forward", "output", "postrouting"]
End = Literal["accept", "drop", "reject"]

_Outcome = End | Literal["on", "back"]
"""What follows a rule: an end, the next rule, or the chain that led here."""
_Numbered = tuple[int, Rule, tuple[Match, ...]]
_Plain = Accept | Drop | Reject | Return | Jump | Goto | Pass | ClearMark | Log | NoTrack | Masquerade | SourceNat
"""Actions that no map has to be asked for."""

_ICMP = (1, 58)
_WITH_PORTS = (6, 17, 33, 132, 136)
"""TCP, UDP, DCCP, SCTP, UDPLite: each begins with its ports."""
_FEW = 4096
"""So many addresses' prefixes are kept."""
_DEEPEST = 16
"""Jumps in jumps that the kernel lets a packet make."""
_SIDES: Mapping[str, Direction] = {
    "raw-PREROUTING": "egress",
    "filter-FORWARD-from-workload": "egress",
    "filter-INPUT-from-workload": "egress",
    "filter-FORWARD": "ingress",
    "filter-INPUT": "ingress",
}
"""Base chain -> whose side it takes."""


class Broken(Exception):
    """Rules that no kernel would take: what they name isn't there, or they jump in a circle."""


class Crossing(Struct, frozen=True, gc=False, kw_only=True):
    """A packet as it crosses a node."""

    packet: Packet
    incoming: str = ""
    """The interface by which it comes; empty: the node has made it."""
    outgoing: str = ""
    """The interface by which it leaves; empty: it is for the node."""
    state: State = "new"
    """Of its connection."""
    mark: int = 0

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """Those that it passes."""
        if not self.incoming:
            return ("output", "postrouting")
        return ("prerouting", "forward", "postrouting") if self.outgoing else ("prerouting", "input")


class Visit(Struct, frozen=True, gc=False, kw_only=True):
    """A rule that held for the packet."""

    chain: str
    number: int
    """Its place in the chain, from 0."""
    rule: Rule


class Ending(Struct, frozen=True, gc=False, kw_only=True):
    """How the packet came out of a base chain."""

    chain: str
    end: End
    by: Visit | None = None
    """None: nothing in it said anything, and its policy is accept."""


class Walk(Struct, frozen=True, gc=False, kw_only=True):
    """A packet's whole way through a node."""

    crossing: Crossing
    endings: tuple[Ending, ...]
    """Of each base chain that it met, in order; only the last may be other than accept."""
    trace: tuple[Visit, ...]
    """All rules that held for it, in order."""
    mark: int
    """At the end."""
    asked: frozenset[Side] = frozenset()
    """The sides whose ports, or as `source` ICMP's type and code, some rule has asked for: a packet that differs from
    this one in others goes the same way."""

    @property
    def allowed(self) -> bool:
        """True if it gets through."""
        return all(ending.end == "accept" for ending in self.endings)


def crossing(state: NodeState, packet: Packet, own: Collection[str], uplink: str = "eth0") -> Crossing:
    """How a packet crosses the node that `state` is of, `own` are the node's own addresses: from and to the interfaces
    of its workloads, itself, or by `uplink`."""
    interfaces = {
        address: endpoint.interface for endpoint in state.endpoints.values() for address in endpoint.addresses
    }
    ends = (
        interfaces.get(address, "" if address in own else uplink) for address in (packet.source, packet.destination)
    )
    incoming, outgoing = ends
    return Crossing(packet=packet, incoming=incoming, outgoing=outgoing)


def decisions(walk: Walk, state: NodeState) -> dict[Direction, Decision]:
    """What was decided for each direction on this node, in the words of the specifications; a direction that the
    packet never reached is not there."""
    found: dict[Direction, Decision] = {}
    for ending in walk.endings:
        side = _SIDES.get(ending.chain)
        if side is not None and (ending.by is not None or side not in found):
            found[side] = _decision(side, ending, state)
    prefixes = state.settings.interface_prefixes
    if walk.allowed and not walk.crossing.incoming.startswith(prefixes):
        found["egress"] = Decision(direction="egress", allowed=True, reason="not governed")
        to_workload = walk.crossing.outgoing.startswith(prefixes)
        if not walk.crossing.incoming or not to_workload:
            reason = "own node" if to_workload else "not governed"
            found["ingress"] = Decision(direction="ingress", allowed=True, reason=reason)
    return found


def _decision(side: Direction, ending: Ending, state: NodeState) -> Decision:
    allowed = ending.end == "accept"
    if ending.by is None:
        return Decision(direction=side, allowed=allowed, reason="not governed")
    origin = ending.by.rule.origin
    found = origins.decider(str(origin), state)
    if found is None:
        return Decision(direction=side, allowed=allowed, reason=origin.name)
    reasons = {"profile": f"profile {found.profile}", "no profile": "no profile", "refused": str(origin)}
    return Decision(
        direction=side, allowed=allowed, tier=found.tier, policy=str(found.policy or ""), rule=found.number,
        reason=reasons.get(found.kind, ""),
    )  # fmt: skip


class Ruleset:
    """Chains and sets, ready to be walked."""

    def __init__(self, objects: Objects, hooked: Objects | None = None) -> None:
        """`objects` are all of a node's, whoever owns them; base chains are looked for among `hooked`, None = them."""
        self._objects = objects
        self._askers: dict[str, dict[str, int]] = {}
        """Maps that have been looked into: address -> mask."""
        among = objects if hooked is None else hooked
        chains = {name.name: value for name, value in among.items() if isinstance(value, Chain)}
        self._base = sorted(
            (chain.hook.priority, name, chain.hook)
            for name, chain in chains.items()
            if chain.hook is not None
        )  # fmt: skip
        self._sorted: dict[tuple[str, int, int], tuple[Chain, tuple[_Numbered, ...]]] = {}

    def walk(self, packet: Crossing) -> Walk:
        """The packet's way from hook to hook until something stops it. Raises Broken."""
        way = _Way(self, packet)
        endings: list[Ending] = []
        for hook in packet.hooks:
            for _, name, at in self._base:
                if at.hook != hook or (at.type == "nat" and packet.state != "new"):
                    continue
                endings.append(way.base(name))
                if endings[-1].end != "accept":
                    return way.walk(endings)
        return way.walk(endings)

    def chain(self, name: str) -> Chain:
        """A chain by its name. Raises Broken."""
        found = self._objects.get(names.chain(name))
        if not isinstance(found, Chain):
            raise Broken(f"chain {name} isn't there")
        return found

    def rules(self, name: str, family: int, protocol: int) -> tuple[_Numbered, ...]:
        """The rules of a chain that may hold for packets of a family and a protocol, each with its place in the chain
        and the matches that are left to be tried. Raises Broken."""
        chain, key = self.chain(name), (name, family, protocol)
        known = self._sorted.get(key)
        if known is None or known[0] is not chain:
            found = ((number, rule, _left(rule, family, protocol)) for number, rule in enumerate(chain.rules))
            known = chain, tuple((number, rule, left) for number, rule, left in found if left is not None)
            self._sorted[key] = known
        return known[1]

    def element(self, set_name: str, key: str) -> Element | None:
        """What lies under a key in a set of many owners. Raises Broken."""
        self._spec(set_name)
        found = self._objects.get(names.element(set_name, key))
        return found if isinstance(found, Element) else None

    def holds(self, set_name: str, key: str) -> bool:
        """True if `key` is one of a set's members, or of what its prefixes or ranges span. Raises Broken."""
        kind = self._spec(set_name).kind
        found = self._objects.get(names.members(set_name))
        members = found.keys if isinstance(found, Members) else frozenset()
        if kind == "ports":
            return any(_spans(member, int(key)) for member in members)
        if kind != "prefixes":
            return key in members
        return not members.isdisjoint(_covering(key))

    def asked(self, map_name: str, address: str) -> int:
        """The mask that a map holds for an address; 0 where it holds none. Raises Broken."""
        self._spec(map_name)
        if map_name not in self._askers:
            found = self._objects.get(names.members(map_name))
            pairs = (member.partition(" ") for member in (found.keys if isinstance(found, Members) else ()))
            self._askers[map_name] = {key: int(mask) for key, _, mask in pairs}
        return self._askers[map_name].get(address, 0)

    def _spec(self, name: str) -> SetSpec:
        found = self._objects.get(names.set_(name))
        if not isinstance(found, SetSpec):
            raise Broken(f"set {name} isn't there")
        return found


def _left(rule: Rule, family: int, protocol: int) -> tuple[Match, ...] | None:
    """What a rule asks besides family and protocol; None where those rule it out."""
    left: list[Match] = []
    for match in rule.matches:
        if isinstance(match, Family):
            if match.family != family:
                return None
        elif isinstance(match, Protocol):
            if (match.number == protocol) == match.negated:
                return None
        elif isinstance(match, AddressMatch) and _family(match) != family:
            return None
        else:
            left.append(match)
    return tuple(left)


def _family(match: AddressMatch) -> int:
    return family_of(match.address) if isinstance(match, Address) else match.family


@lru_cache(_FEW)
def _covering(address: str) -> tuple[str, ...]:
    """The members that an address may be in a set of prefixes by: itself, however it is written, and each prefix that
    it lies in."""
    whole = ipaddress.ip_network(address)
    return (address, *(str(whole.supernet(new_prefix=length)) for length in range(whole.max_prefixlen + 1)))


def _spans(member: str, port: int) -> bool:
    first, _, last = member.partition("-")
    return int(first) <= port <= int(last or first)


class _Way:
    """A packet under way: its mark and the state of its connection may change."""

    def __init__(self, rules: Ruleset, packet: Crossing) -> None:
        self._rules = rules
        self._crossing = packet
        self._packet = packet.packet
        self._state = packet.state
        self._mark = packet.mark
        self._trace: list[Visit] = []
        self._asked: set[Side] = set()
        packet_ = packet.packet
        self._key = packet_.family, packet_.protocol
        self._addresses = {
            "source": str(ipaddress.ip_address(packet_.source)),
            "destination": str(ipaddress.ip_address(packet_.destination)),
        }

    def walk(self, endings: list[Ending]) -> Walk:
        """What it has come to."""
        return Walk(
            crossing=self._crossing, endings=tuple(endings), trace=tuple(self._trace), mark=self._mark,
            asked=frozenset(self._asked),
        )  # fmt: skip

    def base(self, name: str) -> Ending:
        """Through a base chain."""
        before = len(self._trace)
        end = self._through(name, 0)
        last = self._trace[-1] if len(self._trace) > before else None
        returned = last is not None and last.chain == name and isinstance(last.rule.action, Return)
        return Ending(chain=name, end=end or "accept", by=last if end or returned else None)

    def _through(self, name: str, depth: int) -> End | None:
        """What a chain comes to; None where it leaves the rest to the one that led here."""
        if depth > _DEEPEST:
            raise Broken(f"chain {name} is reached by more than {_DEEPEST} jumps")
        for number, rule, matches in self._rules.rules(name, *self._key):
            action = self._said(rule, matches)
            if action is None:
                continue
            self._trace.append(Visit(chain=name, number=number, rule=rule))
            outcome = self._follow(action, depth)
            if outcome != "on":
                return None if outcome == "back" else outcome
        return None

    def _said(self, rule: Rule, matches: tuple[Match, ...]) -> _Plain | None:
        """What a rule says of the packet; None where it says nothing. `matches`: those that aren't known to hold."""
        for match in matches:
            if not self._holds(match):
                return None
        action = rule.action
        if isinstance(action, Ask):
            return self._of_askers(action)
        if not isinstance(action, Dispatch):
            return action
        interface = self._crossing.incoming if action.direction == "in" else self._crossing.outgoing
        found = self._rules.element(action.map, interface)
        return found.verdict if found is not None else None

    def _of_askers(self, ask: Ask) -> _Plain | None:
        if self._packet.family != ask.family:
            return None
        mask = self._rules.asked(ask.askers, self._address(ask.side))
        found = self._rules.element(ask.verdicts, str(mask)) if mask else None
        return found.verdict if found is not None else None

    def _follow(self, action: _Plain, depth: int) -> _Outcome:
        match action:
            case Jump(chain=chain):
                return self._through(chain, depth + 1) or "on"
            case Goto(chain=chain):
                return self._through(chain, depth + 1) or "back"
            case Return():
                return "back"
            case Pass(bits=bits):
                self._mark |= bits
                return "back"
            case _:
                return self._end(action)

    def _end(self, action: Accept | Drop | Reject | ClearMark | Log | NoTrack | Masquerade | SourceNat) -> _Outcome:
        match action:
            case Accept() | Masquerade() | SourceNat():
                return "accept"
            case Drop():
                return "drop"
            case Reject():
                return "reject"
            case ClearMark(bits=bits):
                self._mark &= ~bits
            case NoTrack():
                self._state = "untracked"
            case Log():
                pass
            case _:
                assert_never(action)
        return "on"

    # --- matches ---

    def _holds(self, match: Match) -> bool:
        match match:
            case Interface(direction=direction, name=name, prefix=prefix, negated=negated):
                found = self._crossing.incoming if direction == "in" else self._crossing.outgoing
                return (found.startswith(name) if prefix else found == name) != negated
            case Family(family=family):
                return self._packet.family == family
            case Address() | InSet() | InEndpoints() | OwnSource():
                return self._addressed(match)
            case Protocol(number=number, negated=negated):
                return (self._packet.protocol == number) != negated
            case Ports() | InPorts() | IcmpType() | IcmpCode():
                return self._transported(match)
            case ConnectionState(states=states):
                return self._state in states
            case LocalSource():
                return not self._crossing.incoming
            case Marked(bits=bits):
                return self._mark & bits == bits
            case _:
                assert_never(match)

    def _addressed(self, match: AddressMatch) -> bool:
        """Of another family, it holds for nobody, negated or not."""
        return _family(match) == self._key[0] and self._is_addressed(match) != match.negated

    def _is_addressed(self, match: AddressMatch) -> bool:
        match match:
            case Address(side=side, address=address):
                return ipaddress.ip_address(self._address(side)) in ipaddress.ip_network(address)
            case InSet(side=side, set=name):
                return self._rules.holds(name, self._address(side))
            case InEndpoints(side=side, set=name):
                port = self._word(side)
                member = endpoint_member(self._address(side), self._packet.protocol, port or 0)
                return port is not None and self._rules.holds(name, member)
            case OwnSource(set=name):
                key = f"{self._crossing.incoming} {self._address('source')}"
                return self._rules.element(name, key) is not None
            case _:
                assert_never(match)

    def _address(self, side: Side) -> str:
        return self._addresses[side]

    def _transported(self, match: TransportMatch) -> bool:
        """As the kernel, it looks at the bytes that stand where ports, or types, would stand; where there are none, it
        holds for nothing, negated or not."""
        match match:
            case Ports(side=side, first=first, last=last):
                port = self._word(side)
                return port is not None and (first <= port <= last) != match.negated
            case InPorts(side=side, set=name):
                port = self._word(side)
                return port is not None and self._rules.holds(name, str(port)) != match.negated
            case IcmpType(first=first, last=last):
                start = self._word("source")
                return start is not None and (first <= start >> 8 <= last) != match.negated
            case IcmpCode(of_type=type_, code=code):
                start = self._word("source")
                return start is not None and start >> 8 == type_ and (start & 0xFF == code) != match.negated
            case _:
                assert_never(match)

    def _word(self, side: Side) -> int | None:
        """The transport header's first two bytes, or, of the destination, the next two; None where they aren't told."""
        packet = self._packet
        self._asked.add(side)
        if packet.protocol in _WITH_PORTS:
            return packet.source_port if side == "source" else packet.destination_port
        if packet.protocol in _ICMP and side == "source":
            return packet.icmp_type << 8 | packet.icmp_code
        return None
