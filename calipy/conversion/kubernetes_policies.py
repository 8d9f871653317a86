"""Kubernetes' NetworkPolicy -> Policy (calico.md 1.7): in the tier `default`, at Calico's order, allowing only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from calipy.conversion import selectors
from calipy.conversion.lists import net_set, port_set
from calipy.conversion.policies import named_port_sets
from calipy.model.policies import Direction, Peer, Policy, PolicyId, PolicyRule
from calipy.model.sets import NetSet
from calipy.resources import tiers
from calipy.resources.kubernetes_network_policies import (
    KubernetesNetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    types_in_force,
)
from calipy.resources.policy_rules import PROTOCOL_NUMBERS
from calipy.resources.selectors import Expression, Selector

ORDER = 1000.0
"""Calico's, for all of them."""


def head(policy: KubernetesNetworkPolicy) -> Policy:
    """A policy without its rules; those of a direction that it governs are empty."""
    types = types_in_force(policy.spec)
    return Policy(
        id=PolicyId("knp", policy.metadata.namespace, policy.metadata.name),
        tier=tiers.DEFAULT,
        order=ORDER,
        selector=Selector(_governed(policy)).canonical,
        ingress=() if "Ingress" in types else None,
        egress=() if "Egress" in types else None,
    )


def rules(policy: KubernetesNetworkPolicy, direction: Direction) -> Iterator[PolicyRule]:
    """The rules of one direction."""
    namespace = policy.metadata.namespace
    if direction == "ingress":
        governed = _governed(policy)
        for number, ingress in enumerate(policy.spec.ingress):
            yield from _ingress(number, _peers(ingress.from_, namespace), _wanted(ingress.ports), governed)
    else:
        for number, egress in enumerate(policy.spec.egress):
            yield from _egress(number, _peers(egress.to, namespace), _wanted(egress.ports))


class _Wanted(Struct, frozen=True, gc=False, kw_only=True):
    """The ports of one protocol."""

    protocol: int | None = None
    """None: any protocol, any port."""
    ranges: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()


class _Far(Struct, frozen=True, gc=False, kw_only=True):
    """Who is at the far end: pods, or networks; neither is anybody."""

    pods: Expression | None = None
    nets: NetSet | None = None
    not_nets: NetSet | None = None


def _governed(policy: KubernetesNetworkPolicy) -> Expression:
    return selectors.of_pods(policy.spec.pod_selector, policy.metadata.namespace)


def _ingress(
    number: int, peers: Sequence[_Far], wanted: Sequence[_Wanted], governed: Expression
) -> Iterator[PolicyRule]:
    for ports in wanted:
        # A named port is that of the pods that the policy governs.
        near = Peer(ports=port_set(ports.ranges), named_ports=named_port_sets(governed, ports.protocol, ports.names))
        for peer in peers:
            sets = () if peer.pods is None else (selectors.selector_set(peer.pods),)
            far = Peer(sets=sets, nets=peer.nets, not_nets=peer.not_nets)
            yield PolicyRule(action="allow", number=number, protocol=ports.protocol, source=far, destination=near)


def _egress(number: int, peers: Sequence[_Far], wanted: Sequence[_Wanted]) -> Iterator[PolicyRule]:
    for ports in wanted:
        for peer in peers:
            # Where all ports have names, their sets hold the peer's pods, and nobody else.
            needed = peer.pods is not None and (ports.ranges or not ports.names)
            far = Peer(
                sets=(selectors.selector_set(peer.pods),) if peer.pods is not None and needed else (),
                nets=peer.nets,
                not_nets=peer.not_nets,
                ports=port_set(ports.ranges),
                named_ports=named_port_sets(peer.pods, ports.protocol, ports.names),
            )
            yield PolicyRule(action="allow", number=number, protocol=ports.protocol, destination=far)


def _peers(peers: Sequence[NetworkPolicyPeer], namespace: str) -> list[_Far]:
    """One for each that needs a rule of its own: blocks without exceptions share one."""
    if not peers:
        return [_Far()]
    blocks = [peer.ip_block for peer in peers if peer.ip_block is not None]
    plain = net_set([block.cidr for block in blocks if not block.except_])
    found = [_Far(nets=plain)] if plain is not None else []
    found += [_Far(nets=net_set([block.cidr]), not_nets=net_set(block.except_)) for block in blocks if block.except_]
    chosen = [
        selectors.of_peer(peer.pod_selector, peer.namespace_selector, namespace)
        for peer in peers
        if peer.ip_block is None
    ]
    return found + [_Far(pods=pods) for pods in dict.fromkeys(chosen)]


def _wanted(ports: Sequence[NetworkPolicyPort]) -> list[_Wanted]:
    """One for each protocol that is named; a port without a port is all of its protocol's."""
    if not ports:
        return [_Wanted()]
    found = []
    for name in dict.fromkeys(port.protocol for port in ports):
        mine = [port for port in ports if port.protocol == name]
        every = any(port.port is None for port in mine)
        ranges = tuple((port.port, port.end_port or port.port) for port in mine if isinstance(port.port, int))
        names = tuple(port.port for port in mine if isinstance(port.port, str))
        found.append(
            _Wanted(
                protocol=PROTOCOL_NUMBERS[name],
                ranges=() if every else ranges,
                names=() if every else names,
            )
        )
    return found
