"""A policy's, or profile's, rules: one chain a direction.

A rule becomes as few rules of the kernel as it can: one for each address family where it names addresses, else one for
all; of alternatives (ports by number or by name) one each. Lists are sets, so no rule is as long as its lists. It is
done in steps: who has a thousand rules to compile may pause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from msgspec import Struct

from calipy.felix.calc.change import NodeState, SetKey
from calipy.felix.calc.sets import families
from calipy.felix.calc.settings import FelixSettings
from calipy.felix.objects import ObjectName, Objects
from calipy.felix.rules import names, origins
from calipy.felix.rules.steps import Steps
from calipy.felix.rules.values import (
    Accept,
    Action,
    Address,
    AddressMatch,
    Chain,
    Drop,
    Family,
    IcmpCode,
    IcmpType,
    InEndpoints,
    InPorts,
    InSet,
    Log,
    Match,
    Pass,
    Ports,
    Protocol,
    Rate,
    Reject,
    Rule,
    Side,
)
from calipy.model.policies import Direction, Peer, Policy, PolicyRule, Profile
from calipy.model.sets import EndpointSet, NetSet, PortSet, SelectorSet, SetId, SetKind, net_member

DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")
_EVERYTHING = ("0.0.0.0/0", "::/0")
_MOST_OF_A_PREFIX = 127
"""Bytes that the kernel takes as a log line's prefix."""
_Alternative = PortSet | EndpointSet | None
_SLICE = 100
"""After so many rules whoever drives may pause."""


class Terms(Struct, frozen=True, gc=False, kw_only=True):
    """What of the settings bears on the rules of policies and profiles."""

    families: tuple[int, ...]
    deny: Drop | Reject
    passed: int
    """The mark of a packet that goes on to the next tier."""
    log_prefix: str
    log_rate: Rate | None


def terms(settings: FelixSettings) -> Terms:
    """Those of the settings in force."""
    limit = settings.log_action_rate_limit
    return Terms(
        families=families(settings),
        deny=deny(settings),
        passed=passed(settings),
        log_prefix=settings.log_prefix,
        log_rate=Rate(*limit, settings.log_action_rate_limit_burst) if limit is not None else None,
    )


def deny(settings: FelixSettings) -> Drop | Reject:
    """What becomes of denied packets."""
    return Reject() if settings.filter_deny_action == "REJECT" else Drop()


def passed(settings: FelixSettings) -> int:
    """The mark of a packet that goes on to the next tier: the second lowest bit of the mask, as in Calico."""
    rest = settings.nftables_mark_mask & (settings.nftables_mark_mask - 1)
    return rest & -rest


def steps(policy: Policy, state: NodeState) -> Steps[Objects]:
    """A chain for each direction that the policy governs, bit by bit."""
    found: dict[ObjectName, Struct] = {}
    for direction in DIRECTIONS:
        rules = policy.rules(direction)
        if rules is not None:
            name = names.chain(names.policy_chain(policy.id, direction))
            found[name] = yield from chain_steps(policy, direction, rules, state)
    return found


def closed(policy: Policy) -> Objects:
    """The closed form: whom the policy governs, gets and sends nothing, for the kernel refused what should decide."""
    return {
        names.chain(names.policy_chain(policy.id, direction)): closed_chain(policy, direction)
        for direction in DIRECTIONS
        if policy.rules(direction) is not None
    }


def closed_chain(whose: Policy | Profile, direction: Direction) -> Chain:
    """A chain that lets nothing through."""
    return Chain((Rule((), Drop(), origins.of_refused(whose, direction)),))


def chain_steps(
    whose: Policy | Profile, direction: Direction, rules: Sequence[PolicyRule], state: NodeState
) -> Steps[Chain]:
    """The chain of one direction. What no rule decides goes back to the calling chain."""
    of = terms(state.settings)
    found: list[Rule] = []
    for count, rule in enumerate(rules, 1):
        found += _rules(rule, whose, direction, of, state.sets)
        if count % _SLICE == 0:
            yield
    return Chain(tuple(found))


def _rules(
    rule: PolicyRule, whose: Policy | Profile, direction: Direction, of: Terms, sets: Mapping[SetKey, SetKind]
) -> Iterator[Rule]:
    action, origin = _action(rule, whose, of), origins.of_rule(whose, direction, rule.number)
    for matches in _ways(rule, of.families, sets):
        yield Rule(matches, action, origin)


def _action(rule: PolicyRule, whose: Policy | Profile, of: Terms) -> Action:
    match rule.action:
        case "allow":
            return Accept()
        case "deny":
            return of.deny
        case "pass":
            return Pass(of.passed)
        case "log":
            return Log(_log_prefix(of.log_prefix, whose), of.log_rate)


def _log_prefix(template: str, whose: Policy | Profile) -> str:
    """Calico's words: %t tier, %k kind, %n name, %p namespace and name."""
    if isinstance(whose, Policy):
        id_ = whose.id
        path = f"{id_.namespace}/{id_.name}" if id_.namespace else id_.name
        found: Mapping[str, str] = {"t": whose.tier, "k": id_.kind, "n": id_.name, "p": path}
    else:
        found = {"t": "", "k": "pro", "n": whose.name, "p": whose.name}
    parts = template.split("%")
    said = parts[0] + "".join(found[part[0]] + part[1:] if part[:1] in found else f"%{part}" for part in parts[1:])
    return f"{said[: _MOST_OF_A_PREFIX - 2]}: "


def _ways(rule: PolicyRule, in_force: Sequence[int], sets: Mapping[SetKey, SetKind]) -> Iterator[tuple[Match, ...]]:
    """All that is asked, once for each combination of alternatives and each family that makes a difference."""
    possible = rule.families(in_force)
    for source, destination, icmp in product(_ports(rule.source), _ports(rule.destination), _not_icmp(rule)):
        ends: tuple[tuple[Side, Peer, _Alternative], ...] = (
            ("source", rule.source, source),
            ("destination", rule.destination, destination),
        )
        first = (*_protocol(rule), *icmp, *(match for end in ends for match in _numbers(*end)))
        if not any(_names_addresses(peer, ports) for _, peer, ports in ends):
            if possible:
                yield (*first, *([Family(rule.family)] if rule.family is not None else ()))
            continue
        for family in possible:
            if not any(_excludes_everything(peer.not_nets, family) for _, peer, _ in ends):
                yield (*first, *(match for end in ends for match in _Family(family, sets).end(*end)))


def _ports(peer: Peer) -> tuple[_Alternative, ...]:
    """One of these: the ports that have numbers, and each that has a name."""
    found = (*([peer.ports] if peer.ports is not None else ()), *peer.named_ports)
    return found or (None,)


def _protocol(rule: PolicyRule) -> Iterator[Match]:
    if rule.protocol is not None:
        yield Protocol(rule.protocol)
    if rule.not_protocol is not None:
        yield Protocol(rule.not_protocol, negated=True)
    if rule.icmp is not None:
        type_, code = rule.icmp.type, rule.icmp.code
        yield IcmpType(type_, type_) if code is None else IcmpCode(type_, code)


def _not_icmp(rule: PolicyRule) -> tuple[tuple[Match, ...], ...]:
    """Not a type, or not a code of it: any other type, or any other code of that type."""
    if rule.not_icmp is None:
        return ((),)
    type_, code = rule.not_icmp.type, rule.not_icmp.code
    others: tuple[Match, ...] = (IcmpType(type_, type_, negated=True),)
    return (others,) if code is None else (others, (IcmpCode(type_, code, negated=True),))


def _numbers(side: Side, peer: Peer, ports: _Alternative) -> Iterator[Match]:
    """Ports by their numbers: cheaper than addresses, so they come before them."""
    if isinstance(ports, PortSet):
        yield _port_list(side, ports)
    if peer.not_ports is not None:
        yield _port_list(side, peer.not_ports, negated=True)


def _port_list(side: Side, ports: PortSet, *, negated: bool = False) -> Match:
    if len(ports.ranges) == 1:
        return Ports(side, *ports.ranges[0], negated)
    return InPorts(side, names.set_name(SetKey(ports.id, 0), "ports"), negated)


def _names_addresses(peer: Peer, ports: _Alternative) -> bool:
    lists = peer.nets is not None or peer.not_nets is not None
    return lists or bool(peer.sets or peer.not_sets or peer.not_named_ports) or isinstance(ports, EndpointSet)


def _excludes_everything(nets: NetSet | None, family: int) -> bool:
    return nets is not None and any(net in _EVERYTHING for net in nets.of(family))


class _Family:
    """One address family, and what its sets are."""

    def __init__(self, family: int, sets: Mapping[SetKey, SetKind]) -> None:
        self._family = family
        self._sets = sets

    def end(self, side: Side, peer: Peer, ports: _Alternative) -> Iterator[Match]:
        """What must hold of one end's address."""
        for found in peer.sets:
            yield self._member(side, found)
        if isinstance(ports, EndpointSet):
            yield self._member(side, ports)
        if peer.nets is not None:
            yield self._listed(side, peer.nets)
        for stranger in peer.not_sets:
            yield self._member(side, stranger, negated=True)
        for other in peer.not_named_ports:
            yield self._member(side, other, negated=True)
        if peer.not_nets is not None:
            yield self._listed(side, peer.not_nets, negated=True)

    def _member(self, side: Side, found: SelectorSet | EndpointSet, *, negated: bool = False) -> AddressMatch:
        if isinstance(found, EndpointSet) and found.with_ports:
            return InEndpoints(side, self._name(found.id, "endpoints"), self._family, negated)
        return InSet(side, self._name(found.id, "addresses"), self._family, negated)

    def _listed(self, side: Side, nets: NetSet, *, negated: bool = False) -> Match:
        mine = nets.of(self._family)
        if any(net in _EVERYTHING for net in mine):
            return Family(self._family)
        if len(mine) == 1:
            return Address(side, net_member(mine[0]), negated)
        return InSet(side, self._name(nets.id, "prefixes"), self._family, negated)

    def _name(self, id_: SetId, kind: SetKind) -> str:
        """A set that isn't there is named all the same: the kernel refuses the rule, and the policy is closed."""
        key = SetKey(id_, self._family)
        return names.set_name(key, self._sets.get(key, kind))
