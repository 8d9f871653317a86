"""Policies as calculation, rules and explanation speak of them, whichever kind they were written as (Calico's
NetworkPolicy and GlobalNetworkPolicy, Kubernetes' NetworkPolicy, Profile): selectors have become sets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from calipy.model.sets import EndpointSet, NetSet, PortSet, SelectorSet, SetId
from calipy.resources.metadata import Key
from calipy.resources.policy_rules import plain_name

Direction = Literal["ingress", "egress"]
Action = Literal["allow", "deny", "pass", "log"]
POLICY_KINDS = {"np": "NetworkPolicy", "gnp": "GlobalNetworkPolicy", "knp": "KubernetesNetworkPolicy"}


class PolicyId(Struct, frozen=True, gc=False, order=True):
    """A policy's identity, by Calico's short words for kinds: `np/default/web`, `gnp/web`, `knp/default/web`."""

    kind: Literal["np", "gnp", "knp"]
    namespace: str
    """Empty for gnp."""
    name: str

    def __str__(self) -> str:
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))

    @property
    def key(self) -> Key:
        """Its object's."""
        return Key(POLICY_KINDS[self.kind], self.name, self.namespace)


class Icmp(Struct, frozen=True, gc=False):
    """A type of ICMP or ICMPv6, or one code of it."""

    type: int
    code: int | None = None


class Peer(Struct, frozen=True, gc=False, kw_only=True):
    """What a rule asks of one end of a packet; all of it must hold. Nothing asked for: anybody."""

    sets: tuple[SelectorSet | EndpointSet, ...] = ()
    """The address is in each of these; with an EndpointSet that has ports, protocol and port belong to it too."""
    not_sets: tuple[SelectorSet, ...] = ()
    """The address is in none of these."""
    nets: NetSet | None = None
    not_nets: NetSet | None = None
    ports: PortSet | None = None
    """The port is one of these, or address, protocol and port are one of `named_ports`."""
    named_ports: tuple[EndpointSet, ...] = ()
    not_ports: PortSet | None = None
    not_named_ports: tuple[EndpointSet, ...] = ()


class PolicyRule(Struct, frozen=True, gc=False, kw_only=True):
    """One rule: all that is asked must hold, then `action`. `log` says so and goes on."""

    action: Action
    number: int
    """Its place in the list of the policy's resource, from 0. Several may share one, where a rule of Kubernetes' with
    several peers or ports has become several."""
    family: int | None = None
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: Icmp | None = None
    not_icmp: Icmp | None = None
    source: Peer = Peer()
    destination: Peer = Peer()

    def families(self, in_force: Iterable[int]) -> tuple[int, ...]:
        """Those of the families in force that it is for: in each it is a rule of the kernel, and its sets are there.
        A list of networks, a negated one too, that has none of a family leaves that family out, as in Calico."""
        ends = (self.source, self.destination)
        lists = [nets for end in ends for nets in (end.nets, end.not_nets) if nets is not None]
        return tuple(
            family for family in in_force if self.family in (None, family) and all(nets.of(family) for nets in lists)
        )


class Tier(Struct, frozen=True, gc=False, kw_only=True):
    """A layer of policies. Tiers follow each other by order, then by name."""

    name: str
    order: float
    """Infinity where none is given."""
    default_action: Literal["deny", "pass"]


class Policy(Struct, frozen=True, gc=False, kw_only=True):
    """A policy. In its tier policies follow each other by order, then by `name/namespace/kind` (Calico's sequence)."""

    id: PolicyId
    tier: str
    order: float
    """Infinity where none is given."""
    selector: str
    """Canonical text: which workloads it governs, by their labels and those that they inherit."""
    ingress: tuple[PolicyRule, ...] | None = None
    """None: it doesn't govern what comes in; empty: it does, and no rule of it decides."""
    egress: tuple[PolicyRule, ...] | None = None
    everywhere: bool = False
    """True: every node holds it, whether it governs anything there or not (AssumeNeededOnEveryNode)."""

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...] | None:
        """Its rules of one direction."""
        return self.ingress if direction == "ingress" else self.egress

    def passes(self, direction: Direction) -> bool:
        """True if a rule may pass a packet on to the next tier."""
        return any(rule.action == "pass" for rule in self.rules(direction) or ())

    @property
    def sequence(self) -> tuple[float, str]:
        """By this the policies of a tier are sorted."""
        return self.order, f"{plain_name(self.id.name, self.tier)}/{self.id.namespace}/{self.id.kind}"


class Profile(Struct, frozen=True, gc=False, kw_only=True):
    """What decides where no tier has: Calico's Profile. A pod's are `kns.<namespace>` and
    `ksa.<namespace>.<service account>`."""

    name: str
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...]:
        """Its rules of one direction."""
        return self.ingress if direction == "ingress" else self.egress


class Run(Struct, frozen=True, gc=False, kw_only=True):
    """Policies that follow each other in a tier, each of which decides only about peers whose addresses it asks for:
    one look-up of the address tells which of them are to be asked."""

    id: SetId
    """Of its maps, and of what else is made for it."""
    tier: str
    direction: Direction
    policies: tuple[PolicyId, ...]

    def of(self, mask: int) -> tuple[PolicyId, ...]:
        """Those whose bits are set, in their order."""
        return tuple(policy for bit, policy in enumerate(self.policies) if mask >> bit & 1)


class Merged(Struct, frozen=True, gc=False, kw_only=True):
    """A run in force, and which of its policies its addresses ask for together."""

    run: Run
    masks: tuple[int, ...]
    """Sorted. Each is that of some address."""


class TierBinding(Struct, frozen=True, gc=False, kw_only=True):
    """The policies of a tier that govern an endpoint, in their order; a tier with none of a direction is skipped in
    that direction."""

    tier: str
    default_action: Literal["deny", "pass"]
    """Of packets that its policies govern and no rule decides."""
    ingress: tuple[PolicyId, ...] = ()
    egress: tuple[PolicyId, ...] = ()
    passing: tuple[PolicyId, ...] = ()
    """Those with a rule that passes packets on to the next tier, in either direction."""
    runs: tuple[Run, ...] = ()
    """Those of its policies that are one look-up, in either direction."""

    def policies(self, direction: Direction) -> tuple[PolicyId, ...]:
        """Its policies of one direction."""
        return self.ingress if direction == "ingress" else self.egress
