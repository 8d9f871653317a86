"""What policies come to on a node, piece by piece: what `whole` and `graph` have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from calipy.conversion import kubernetes_policies, lists, policies
from calipy.felix.calc.change import SetKey
from calipy.model.policies import Direction, Policy, PolicyRule, Profile, Tier, TierBinding
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


def bindings(governing: Iterable[Policy], tiers: Mapping[str, Tier]) -> tuple[TierBinding, ...]:
    """The policies that govern an endpoint, tier by tier in their order. Those of a tier that isn't there come last,
    and deny what they don't decide, as in Calico."""
    by_tier: dict[str, list[Policy]] = {}
    for policy in sorted(governing, key=lambda policy: (policy.sequence, policy.id)):
        by_tier.setdefault(policy.tier, []).append(policy)
    known = [(tiers.get(name) or Tier(name=name, order=0.0, default_action="deny"), name) for name in by_tier]
    known.sort(key=lambda entry: (entry[1] not in tiers, entry[0].order, entry[1]))
    return tuple(_binding(tier, by_tier[name]) for tier, name in known)


def _binding(tier: Tier, ordered: list[Policy]) -> TierBinding:
    return TierBinding(
        tier=tier.name,
        default_action=tier.default_action,
        ingress=tuple(policy.id for policy in ordered if policy.ingress is not None),
        egress=tuple(policy.id for policy in ordered if policy.egress is not None),
        passing=tuple(policy.id for policy in ordered if any(map(policy.passes, DIRECTIONS))),
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
