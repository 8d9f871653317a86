"""Whether a new connection would be allowed, and why: two answers that share no code, and what goes with them.

What the specifications say (`reference`), and what the rules do that the ends' nodes would compile (`views`). All is
read from the datastore's objects: what a node's file or environment says of its settings is not known here. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

from msgspec import Struct

from calipy.explain.inhabitants import World
from calipy.explain.questions import Ends, Question
from calipy.explain.reference import evaluate
from calipy.explain.verdicts import Action, Decision, Direction, Packet, Step, Verdict
from calipy.explain.views import View, view, walked
from calipy.explain.ways import Way, way
from calipy.felix.rules.origins import policy_id
from calipy.resources import nodes
from calipy.resources.global_network_policies import GlobalNetworkPolicy
from calipy.resources.kubernetes_network_policies import (
    KubernetesNetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
)
from calipy.resources.metadata import Key
from calipy.resources.network_policies import NetworkPolicy
from calipy.resources.nodes import Node
from calipy.resources.policy_rules import PROTOCOL_NUMBERS, Rule
from calipy.resources.profiles import Profile

AnyRule = Rule | NetworkPolicyIngressRule | NetworkPolicyEgressRule
ViewOf = Callable[[str], View]
_ECHO = {4: ("ICMP", 8), 6: ("ICMPv6", 128)}
"""The echo request (RFC 792, RFC 4443)."""
_TUNNELS = {4: nodes.VXLAN_ADDRESS, 6: nodes.VXLAN_V6_ADDRESS}


class Said(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What was decided for one direction, and by what (`verdicts.Decision`)."""

    allowed: bool
    tier: str = ""
    policy: str = ""
    rule: int | None = None
    reason: str = ""
    text: AnyRule | None = None
    """The rule itself; None where none decided, and where a profile did that has no object."""
    governing: tuple[str, ...] = ()
    """At the end of a tier: its policies that govern the pod, none of which has decided."""


class Account(Struct, frozen=True, gc=False, kw_only=True):
    """One of the two answers."""

    allowed: bool
    egress: Said
    ingress: Said | None
    """None: it never gets so far."""


class Near(Struct, frozen=True, gc=False, kw_only=True):
    """A rule that would have allowed it, but for what is unmet."""

    direction: Direction
    tier: str = ""
    policy: str = ""
    profile: str = ""
    rule: int
    unmet: tuple[str, ...]
    """Fields whose conditions don't hold."""
    text: AnyRule | None


class Looked(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A rule that was looked at, or the end of a tier (`verdicts.Step`)."""

    direction: Direction
    action: Action
    tier: str = ""
    policy: str = ""
    profile: str = ""
    rule: int | None = None
    unmet: tuple[str, ...] = ()
    text: AnyRule | None = None


class Answer(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """All about the connection in one family."""

    family: int
    source: str
    """Its address."""
    destination: str
    allowed: bool
    """By both answers."""
    agreed: bool
    """False: the two differ, and one of them is wrong."""
    specification: Account
    rules: Account
    nearest: tuple[Near, ...]
    """Where the specification denies: those with the fewest unmet conditions of the Allow rules that were looked at."""
    way: Way
    source_hidden: bool
    """True where the packet leaves its node under an address of the node's (natOutgoing)."""
    steps: tuple[Looked, ...]
    """All that the specification has looked at, in order."""

    @property
    def policies(self) -> Iterable[tuple[Direction, str]]:
        """All policies that had a say, each once, with its direction."""
        looked = ((step.direction, step.policy) for step in self.steps if step.policy)
        ends: tuple[tuple[Direction, Said | None], ...] = (
            ("egress", self.specification.egress), ("ingress", self.specification.ingress),
        )  # fmt: skip
        silent = ((direction, policy) for direction, said in ends if said for policy in said.governing)
        return dict.fromkeys((*looked, *silent))


def answers(world: World, ends: Ends, asked: Question, families: Sequence[int]) -> tuple[Answer, ...]:
    """An answer for each family that both ends have."""
    view_of = cache(lambda node: view(world, node))
    return tuple(_answer(world, ends, asked, family, view_of) for family in families)


def _answer(world: World, ends: Ends, asked: Question, family: int, view_of: ViewOf) -> Answer:
    source, destination = asked.source.addresses[family], asked.destination.addresses[family]
    sender, receiver = (_node_of(ends, address) for address in (source, destination))
    route = way(world, view_of, sender, receiver, destination)
    if asked.source.kind == "node" and route.means == "VXLAN":
        source = _tunnel_address(world, sender, family) or source
    packet = _packet(asked, family, source, destination)
    specified, found = evaluate(world, packet), walked(view_of, packet, sender, receiver)
    telling = _Telling(world, asked, view_of)
    return Answer(
        family=family, source=source, destination=destination,
        allowed=specified.allowed and found.verdict.allowed, agreed=_agree(specified, found.verdict),
        specification=telling.account(specified), rules=telling.account(found.verdict),
        nearest=tuple(telling.nearest(specified)), way=route, source_hidden=found.masked,
        steps=tuple(map(telling.looked, specified.steps)),
    )  # fmt: skip


def _node_of(ends: Ends, address: str) -> str:
    owner = ends.whose(address)
    return owner.node if owner is not None else ""


def _tunnel_address(world: World, node: str, family: int) -> str:
    """What a node sends through its tunnel comes from the tunnel's address."""
    found = world.get(Key("Node", node))
    return found.metadata.annotations.get(_TUNNELS[family], "") if isinstance(found, Node) else ""


def _packet(asked: Question, family: int, source: str, destination: str) -> Packet:
    if asked.protocol == "ICMP":
        protocol, type_ = _ECHO[family]
        number = PROTOCOL_NUMBERS[protocol]
        return Packet(source=source, destination=destination, protocol=number, icmp_type=type_)
    return Packet(
        source=source, destination=destination, protocol=PROTOCOL_NUMBERS[asked.protocol],
        source_port=asked.source_port, destination_port=asked.port,
    )  # fmt: skip


def _agree(one: Verdict, other: Verdict) -> bool:
    """True if both say the same, for the same reason in each direction."""
    pairs = ((one.egress, other.egress), (one.ingress, other.ingress))
    return one.allowed == other.allowed and all(
        (a and (a.allowed, str(a))) == (b and (b.allowed, str(b))) for a, b in pairs
    )


class _Telling:
    """Verdicts with what they name: the rules themselves, and who is governed by what."""

    def __init__(self, world: World, asked: Question, view_of: ViewOf) -> None:
        self._world, self._view_of = world, view_of
        self._ends = {"egress": asked.source, "ingress": asked.destination}

    def account(self, verdict: Verdict) -> Account:
        """One answer."""
        ingress = None if verdict.ingress is None else self._said(verdict.ingress)
        return Account(allowed=verdict.allowed, egress=self._said(verdict.egress), ingress=ingress)

    def _said(self, decision: Decision) -> Said:
        profile = decision.reason.removeprefix("profile ") if decision.reason.startswith("profile ") else ""
        at_end = bool(decision.tier) and not decision.policy
        return Said(
            allowed=decision.allowed, tier=decision.tier, policy=decision.policy, rule=decision.rule,
            reason=decision.reason, text=self._text(decision.policy, profile, decision.direction, decision.rule),
            governing=self._governing(decision.tier, decision.direction) if at_end else (),
        )  # fmt: skip

    def looked(self, step: Step) -> Looked:
        """One step."""
        return Looked(
            direction=step.direction, action=step.action, tier=step.tier, policy=step.policy, profile=step.profile,
            rule=step.rule, unmet=step.unmet, text=self._text(step.policy, step.profile, step.direction, step.rule),
        )  # fmt: skip

    def nearest(self, verdict: Verdict) -> Iterator[Near]:
        """Of the direction that denies, as each of them stood before what has denied."""
        if verdict.deciding.allowed:
            return
        direction = verdict.deciding.direction
        found = [step for step in verdict.steps if step.direction == direction and step.action == "allow"]
        fewest = min((len(step.unmet) for step in found), default=0)
        for step in found:
            if step.rule is not None and len(step.unmet) == fewest:
                yield Near(
                    direction=direction, tier=step.tier, policy=step.policy, profile=step.profile, rule=step.rule,
                    unmet=step.unmet, text=self._text(step.policy, step.profile, direction, step.rule),
                )  # fmt: skip

    def _governing(self, tier: str, direction: Direction) -> tuple[str, ...]:
        end = self._ends[direction]
        endpoints = self._view_of(end.node).state.endpoints.values() if end.node else ()
        return tuple(
            str(policy)
            for endpoint in endpoints
            if f"{endpoint.namespace}/{endpoint.pod}" == end.name
            for binding in endpoint.tiers
            if binding.tier == tier
            for policy in binding.policies(direction)
        )

    def _text(self, policy: str, profile: str, direction: Direction, rule: int | None) -> AnyRule | None:
        """A rule as it stands in its object."""
        if rule is None:
            return None
        found = self._world.get(policy_id(policy).key if policy else Key("Profile", profile))
        if not isinstance(found, NetworkPolicy | GlobalNetworkPolicy | KubernetesNetworkPolicy | Profile):
            return None
        rules: Sequence[AnyRule] = found.spec.ingress if direction == "ingress" else found.spec.egress
        return rules[rule] if rule < len(rules) else None
