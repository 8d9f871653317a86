"""What policies come to on a node, piece by piece: what `whole` and `graph` have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from calipy.conversion import kubernetes_policies, lists, policies
from calipy.felix.calc.change import SetKey
from calipy.model.policies import Direction, Policy, PolicyId, PolicyRule, Profile, Tier, TierBinding
from calipy.model.sets import EndpointSet, NetSet, PortSet, SelectorSet, SetKind, net_member
from calipy.resources.global_network_policies import GlobalNetworkPolicy
from calipy.resources.kubernetes_network_policies import KubernetesNetworkPolicy
from calipy.resources.network_policies import NetworkPolicy

PolicyResource = NetworkPolicy | GlobalNetworkPolicy | KubernetesNetworkPolicy
SetSpec = SelectorSet | EndpointSet | NetSet | PortSet
"""What decides who is in a set."""
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


def head(found: PolicyResource) -> Policy:
    """A policy without its rules, which are many where it applies and not needed where it doesn't."""
    if isinstance(found, KubernetesNetworkPolicy):
        return kubernetes_policies.head(found)
    return policies.head(found)


def rules(found: PolicyResource, direction: Direction) -> Iterator[PolicyRule]:
    """Its rules of one direction."""
    if isinstance(found, KubernetesNetworkPolicy):
        return kubernetes_policies.rules(found, direction)
    return policies.rules(found, direction)


class Place(NamedTuple):
    """Where a policy stands among others, and what of it an endpoint's chains are made of. They sort as they follow
    each other in a tier."""

    sequence: tuple[float, str]
    id: PolicyId
    tier: str
    ingress: bool
    egress: bool
    passing: bool


def place(policy: Policy) -> Place:
    """A policy's place."""
    return Place(
        sequence=policy.sequence,
        id=policy.id,
        tier=policy.tier,
        ingress=policy.ingress is not None,
        egress=policy.egress is not None,
        passing=any(map(policy.passes, DIRECTIONS)),
    )


def bindings(governing: Iterable[Place], tiers: Mapping[str, Tier]) -> tuple[TierBinding, ...]:
    """The policies that govern an endpoint, tier by tier in their order. Those of a tier that isn't there come last,
    and deny what they don't decide, as in Calico."""
    by_tier: dict[str, list[Place]] = {}
    for each in sorted(governing):
        by_tier.setdefault(each.tier, []).append(each)
    known = [tiers.get(name) or Tier(name=name, order=0.0, default_action="deny") for name in by_tier]
    known.sort(key=lambda tier: (tier.name not in tiers, tier.order, tier.name))
    return tuple(_binding(tier, by_tier[tier.name]) for tier in known)


def _binding(tier: Tier, ordered: list[Place]) -> TierBinding:
    return TierBinding(
        tier=tier.name,
        default_action=tier.default_action,
        ingress=tuple(each.id for each in ordered if each.ingress),
        egress=tuple(each.id for each in ordered if each.egress),
        passing=tuple(each.id for each in ordered if each.passing),
    )


def rules_of(found: Policy | Profile) -> Iterator[PolicyRule]:
    """All rules that are in force where it is."""
    for direction in DIRECTIONS:
        yield from found.rules(direction) or ()


def sets_of(rule: PolicyRule, in_force: Iterable[int]) -> Iterator[tuple[SetKey, SetSpec]]:
    """The sets that a rule needs in the kernel, given the address families in force. A list of one is no set."""
    families = rule.families(in_force)
    for peer in (rule.source, rule.destination):
        for spec in (*peer.sets, *peer.not_sets, *peer.named_ports, *peer.not_named_ports):
            for family in families:
                yield SetKey(spec.id, family), spec
        for nets in (peer.nets, peer.not_nets):
            for family in families if nets is not None else ():
                if nets is not None and len(nets.of(family)) > 1:
                    yield SetKey(nets.id, family), nets
        for ports in (peer.ports, peer.not_ports):
            if ports is not None and families and len(ports.ranges) > 1:
                yield SetKey(ports.id, 0), ports


def listed(spec: NetSet | PortSet, family: int) -> frozenset[str]:
    """The members of a list."""
    if isinstance(spec, PortSet):
        return frozenset(lists.range_text(first, last) for first, last in spec.ranges)
    return frozenset(map(net_member, spec.of(family)))


def kind(spec: SetSpec, *, wide: bool) -> SetKind:
    """What a set is in the kernel. `wide`: some member is more than one address."""
    if isinstance(spec, PortSet):
        return "ports"
    if isinstance(spec, EndpointSet) and spec.with_ports:
        return "endpoints"
    return "prefixes" if wide else "addresses"
