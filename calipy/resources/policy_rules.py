"""What Calico's policies have in common, and their rules, which profiles have too (projectcalico.org/v3).

What is wrong with them is said in `policy_problems`.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct, field

TIER_LABEL = "projectcalico.org/tier"
"""Calico's clients write a policy's tier here, to list by it."""

Action = Literal["Allow", "Deny", "Log", "Pass"]
PolicyType = Literal["Ingress", "Egress"]
PerformanceHint = Literal["AssumeNeededOnEveryNode"]
Protocol = int | str
"""1 to 255, as a number or in digits, or TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite."""
Port = int | str
"""1 to 65535, as a number or in digits, `min:max`, or the name of a container's port."""

PROTOCOL_NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "UDPLite": 136}
"""IANA's "Assigned Internet Protocol Numbers", by Calico's names."""


class ICMPFields(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """ICMP messages of a type, or of a type and a code (Calico's ICMPFields)."""

    type: int | None = None
    """0 to 254. IPv4's echo request is 8, IPv6's is 128."""
    code: int | None = None
    """0 to 255; only together with a type."""


class ServiceAccountMatch(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Pods of service accounts by name, by label, or by both (Calico's ServiceAccountMatch)."""

    names: tuple[str, ...] = ()
    """Names of service accounts, in any namespace that the rule means. Empty asks for nothing."""
    selector: str = ""
    """Chooses service accounts by their labels. Empty asks for nothing."""


class ServiceMatch(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The endpoints of one Service, each at its own port (Calico's ServiceMatch)."""

    name: str = ""
    """The Service's name."""
    namespace: str = ""
    """The Service's namespace. A NetworkPolicy may leave it out and means its own; a GlobalNetworkPolicy names it."""


class EntityRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """One end of a connection. What is given must all hold; an empty field asks for nothing (Calico's EntityRule)."""

    nets: tuple[str, ...] = ()
    """The address is in one of these CIDRs. All CIDRs of a rule are of one IP version; 256 at most."""
    not_nets: tuple[str, ...] = ()
    """The address is in none of these CIDRs."""
    selector: str = ""
    """The endpoint, or the network set that has the address, is chosen by its labels: role == "db" && !has(test).
    In a NetworkPolicy without namespaceSelector only what is in the policy's own namespace is meant."""
    not_selector: str = ""
    """No endpoint and no network set that has the address is chosen by this selector. In a GlobalNetworkPolicy
    addresses that belong to neither match, too."""
    namespace_selector: str = ""
    """The endpoint's namespace is chosen by its labels: all() means every namespace; global() means what is in none,
    GlobalNetworkSets and host endpoints, and stands alone."""
    service_accounts: ServiceAccountMatch | None = None
    """The endpoint is a pod that runs as one of these service accounts."""
    services: ServiceMatch | None = None
    """The other end is an endpoint of this Service, at the Service's port. Only for the source of ingress rules and the
    destination of egress rules, and not together with nets, selectors or serviceAccounts."""
    ports: tuple[Port, ...] = ()
    """The port is one of these: a number of 1 to 65535, a range as min:max, or the name of a container's port. The rule
    needs a protocol that has ports, TCP, UDP or SCTP; names alone do without. 50 at most."""
    not_ports: tuple[Port, ...] = ()
    """The port is none of these; spelled as in ports."""


class HTTPPath(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A path: one of the two (Calico's HTTPPath)."""

    exact: str = ""
    """The whole path."""
    prefix: str = ""
    """What the path begins with."""


class HTTPMatch(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """HTTP requests by method and path (Calico's HTTPMatch). Known, so that it can be refused."""

    methods: tuple[str, ...] = ()
    """The method is one of these: GET, PUT. 20 at most."""
    paths: tuple[HTTPPath, ...] = ()
    """The path is one of these. 20 at most."""


class RuleMetadata(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What people want to say of a rule (Calico's RuleMetadata)."""

    annotations: dict[str, str] = {}
    """Notes by name. They change nothing."""


class Rule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Which packets, and what becomes of them. What is given must all hold (Calico's Rule)."""

    action: Action
    """What becomes of a packet that matches: Allow lets it through; Deny drops it; Pass leaves the tier, and the next
    one decides; Log writes a line to the kernel's log and goes on with the next rule."""
    ip_version: int | None = None
    """4 or 6. Left out, both."""
    protocol: Protocol | None = None
    """The protocol: TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or its number, 1 to 255. Left out, any."""
    not_protocol: Protocol | None = None
    """Not this protocol; spelled as in protocol."""
    icmp: ICMPFields | None = None
    """ICMP messages of this type and code. It needs protocol ICMP or ICMPv6."""
    not_icmp: ICMPFields | None = field(name="notICMP", default=None)
    """ICMP or ICMPv6 messages of any other type, or of this type and any other code."""
    source: EntityRule = EntityRule()
    """Where the connection comes from."""
    destination: EntityRule = EntityRule()
    """Where the connection goes to."""
    http: HTTPMatch | None = None
    """HTTP requests. Calico enforces it by a proxy, which CalIPy doesn't have: a policy with it is not put in force,
    and its agents say so."""
    metadata: RuleMetadata | None = None
    """Notes for people."""


class PolicySpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """What NetworkPolicySpec and GlobalNetworkPolicySpec share."""

    tier: str = ""
    """The tier that the policy is in; tiers decide one after another. Default: default."""
    order: float | None = None
    """Where the policy stands in its tier: lower first. Left out, it comes last; of equals the name decides."""
    selector: str = ""
    """The endpoints that the policy governs, by their labels: role == "db" && env in {"prod", "test"}. Empty means all,
    as all() does."""
    service_account_selector: str = ""
    """Of these only pods whose service account has these labels. Empty asks for nothing."""
    types: tuple[PolicyType, ...] = ()
    """The directions that the policy governs: a governed endpoint is closed in them but for what rules allow. Left out:
    Egress if there are egress rules only, both if there are rules of both, else Ingress."""
    ingress: tuple[Rule, ...] = ()
    """Rules for connections to the endpoint, tried in order; the first that allows, denies or passes decides."""
    egress: tuple[Rule, ...] = ()
    """Rules for connections from the endpoint, tried in order; the first that allows, denies or passes decides."""
    performance_hints: tuple[PerformanceHint, ...] = ()
    """AssumeNeededOnEveryNode: nodes without an endpoint of the policy keep it ready, too. It changes no verdict."""


def types_in_force(spec: PolicySpec) -> tuple[PolicyType, ...]:
    """The directions that a policy governs: those that it names, else those that it has rules for, else ingress."""
    if spec.types:
        return spec.types
    if not spec.egress:
        return ("Ingress",)
    return ("Ingress", "Egress") if spec.ingress else ("Egress",)


def plain_name(name: str, tier: str) -> str:
    """A policy's name without the `default.` that Calico before v3.32 put before names in the tier `default`."""
    return name.removeprefix("default.") if tier in ("", "default") else name


_DIGITS = re.compile(r"[0-9]+")
_RANGE = re.compile(r"([0-9]+):([0-9]+)")


def protocol_number(value: Protocol) -> int:
    """The protocol's number. Raises ValueError where it is none of 1 to 255 and no name that Calico knows."""
    if isinstance(value, str) and value in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[value]
    if isinstance(value, int) or _DIGITS.fullmatch(value):
        number = int(value)
        if 1 <= number <= 255:
            return number
    raise ValueError(f"{value!r} is no protocol")


def port_range(value: Port) -> tuple[int, int] | None:
    """The first and the last of the ports meant; None where one is meant by its name. Raises ValueError where they are
    none of 1 to 65535, or the last is less than the first."""
    if isinstance(value, int) or _DIGITS.fullmatch(value):
        first = last = int(value)
    elif found := _RANGE.fullmatch(value):
        first, last = int(found[1]), int(found[2])
    else:
        return None
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{value!r} is no port or range of ports")
    return first, last
