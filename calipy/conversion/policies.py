"""NetworkPolicy, GlobalNetworkPolicy and Profile of Calico -> Policy and Profile (calico.md 1.2, 1.3).

A policy's rules are made one by one, so that whoever has a thousand of them to make may pause.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from msgspec import structs

from calipy.conversion import selectors
from calipy.conversion.lists import net_set, port_set
from calipy.conversion.workloads import ACCOUNT_PROFILES
from calipy.model.policies import Action, Direction, Icmp, Peer, Policy, PolicyId, PolicyRule, Profile
from calipy.model.sets import EndpointSet, SelectorSet, named_port_id, service_id
from calipy.resources import profiles, tiers
from calipy.resources.global_network_policies import GlobalNetworkPolicy
from calipy.resources.network_policies import NetworkPolicy
from calipy.resources.policy_rules import (
    EntityRule,
    ICMPFields,
    Port,
    Protocol,
    Rule,
    ServiceMatch,
    port_range,
    protocol_number,
    types_in_force,
)
from calipy.resources.selectors import All, Expression, Selector

_ACTIONS: dict[str, Action] = {"Allow": "allow", "Deny": "deny", "Log": "log", "Pass": "pass"}
_ALLOW_ALL = (PolicyRule(action="allow", number=0),)
_NAMED_PROTOCOLS = (6, 17, 132)
"""Those that a container's port may be of."""


def head(policy: NetworkPolicy | GlobalNetworkPolicy) -> Policy:
    """A policy without its rules; those of a direction that it governs are empty."""
    spec, types = policy.spec, types_in_force(policy.spec)
    if isinstance(policy, NetworkPolicy):
        namespace = policy.metadata.namespace
        id_ = PolicyId("np", namespace, policy.metadata.name)
        expression = selectors.of_namespaced_policy(namespace, spec.selector, spec.service_account_selector)
    else:
        id_ = PolicyId("gnp", "", policy.metadata.name)
        expression = selectors.of_global_policy(
            spec.selector, policy.spec.namespace_selector, spec.service_account_selector
        )
    return Policy(
        id=id_,
        tier=spec.tier or tiers.DEFAULT,
        order=math.inf if spec.order is None else spec.order,
        selector=Selector(expression).canonical,
        ingress=() if "Ingress" in types else None,
        egress=() if "Egress" in types else None,
        everywhere="AssumeNeededOnEveryNode" in spec.performance_hints,
    )


def rules(policy: NetworkPolicy | GlobalNetworkPolicy, direction: Direction) -> Iterator[PolicyRule]:
    """The rules of one direction."""
    found = policy.spec.ingress if direction == "ingress" else policy.spec.egress
    return _rules(found, policy.metadata.namespace)


def profile(name: str, found: profiles.Profile | None) -> Profile:
    """A profile. Without an object of its own one of a service account has no rules; any other that a workload can
    have then, those of namespaces and Calico's own, allows all."""
    if found is not None:
        spec = found.spec
        return Profile(name=name, ingress=tuple(_rules(spec.ingress, "")), egress=tuple(_rules(spec.egress, "")))
    if name.startswith(ACCOUNT_PROFILES):
        return Profile(name=name)
    return Profile(name=name, ingress=_ALLOW_ALL, egress=_ALLOW_ALL)


def _rules(found: Sequence[Rule], namespace: str) -> Iterator[PolicyRule]:
    for number, rule in enumerate(found):
        for each in _spoken_of(rule):
            yield _rule(each, number, namespace)


def _spoken_of(rule: Rule) -> Iterator[Rule]:
    """notICMP speaks of ICMP of either family, also where no protocol is named, as in Calico's nftables mode: another
    protocol's bytes are no type."""
    if rule.protocol is not None or _icmp(rule.not_icmp) is None:
        yield rule
        return
    for protocol, family in (("ICMP", 4), ("ICMPv6", 6)):
        if rule.ip_version in (None, family):
            yield structs.replace(rule, protocol=protocol)


def _rule(rule: Rule, number: int, namespace: str) -> PolicyRule:
    protocol = _number(rule.protocol)
    return PolicyRule(
        action=_ACTIONS[rule.action],
        number=number,
        family=rule.ip_version,
        protocol=protocol,
        not_protocol=_number(rule.not_protocol),
        icmp=_icmp(rule.icmp),
        not_icmp=_icmp(rule.not_icmp),
        source=_peer(rule.source, "source", protocol, namespace),
        destination=_peer(rule.destination, "destination", protocol, namespace),
    )


def _number(protocol: Protocol | None) -> int | None:
    return None if protocol is None else protocol_number(protocol)


def _icmp(icmp: ICMPFields | None) -> Icmp | None:
    return None if icmp is None or icmp.type is None else Icmp(icmp.type, icmp.code)


def _peer(entity: EntityRule, end: Literal["source", "destination"], protocol: int | None, namespace: str) -> Peer:
    chosen, excluded = selectors.of_entity(entity, namespace)
    ranges, names = _split(entity.ports)
    not_ranges, not_names = _split(entity.not_ports)
    sets: list[SelectorSet | EndpointSet] = []
    # Where all ports have names, their sets hold whom the selector chooses, and nobody else.
    if chosen is not None and (ranges or not names):
        sets.append(selectors.selector_set(chosen))
    if entity.services is not None:
        sets.append(_service(entity.services, namespace, with_ports=end == "destination"))
    return Peer(
        sets=tuple(sets),
        not_sets=() if excluded is None else (selectors.selector_set(excluded),),
        nets=net_set(entity.nets),
        not_nets=net_set(entity.not_nets),
        ports=port_set(ranges),
        named_ports=named_port_sets(chosen, protocol, names),
        not_ports=port_set(not_ranges),
        not_named_ports=named_port_sets(chosen, protocol, not_names),
    )


def named_port_sets(chosen: Expression | None, protocol: int | None, names: Iterable[str]) -> tuple[EndpointSet, ...]:
    """The sets of named ports of those who are chosen; None: of all workloads. Without a protocol TCP is meant."""
    protocol = protocol if protocol in _NAMED_PROTOCOLS else _NAMED_PROTOCOLS[0]
    found = selectors.selector_set(All() if chosen is None else chosen)
    return tuple(
        EndpointSet(id=named_port_id(found.id, protocol, name), selector=found.selector, protocol=protocol, port=name)
        for name in dict.fromkeys(names)
    )


def _split(ports: Iterable[Port]) -> tuple[list[tuple[int, int]], list[str]]:
    """Ranges, and names."""
    ranges, names = [], []
    for port in ports:
        found = port_range(port)
        if found is None:
            names.append(str(port))
        else:
            ranges.append(found)
    return ranges, names


def _service(match: ServiceMatch, namespace: str, *, with_ports: bool) -> EndpointSet:
    """As a destination a service is its endpoints at their ports; a source's ports are not its own."""
    place = match.namespace or namespace
    return EndpointSet(
        id=service_id(place, match.name, with_ports=with_ports),
        namespace=place,
        service=match.name,
        with_ports=with_ports,
    )
