"""What Calico's policies have in common, and their rules, which profiles have too (projectcalico.org/v3).

What is wrong with them is said in `policy_problems`.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field

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
    """Calico ICMPFields: a type, or a type and its code."""

    type: int | None = None
    code: int | None = None


class ServiceAccountMatch(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Calico ServiceAccountMatch: pods of service accounts by name, by label, or by both."""

    names: tuple[str, ...] = ()
    selector: str = ""


class ServiceMatch(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Calico ServiceMatch: the endpoints of one Service, each at its own port. An empty namespace is the policy's."""

    name: str = ""
    namespace: str = ""


class EntityRule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico EntityRule: one end of a connection. What is given must all hold; an empty field asks for nothing."""

    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    service_accounts: ServiceAccountMatch | None = None
    services: ServiceMatch | None = None
    ports: tuple[Port, ...] = ()
    not_ports: tuple[Port, ...] = ()


class RuleMetadata(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Calico RuleMetadata: what people want to say of a rule."""

    annotations: dict[str, str] = {}


class Rule(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico Rule: which packets, and what becomes of them."""

    action: Action
    ip_version: int | None = None
    protocol: Protocol | None = None
    not_protocol: Protocol | None = None
    icmp: ICMPFields | None = None
    not_icmp: ICMPFields | None = field(name="notICMP", default=None)
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    http: Raw | UnsetType = UNSET
    """Known, so that it can be refused."""
    metadata: RuleMetadata | None = None


class PolicySpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """What NetworkPolicySpec and GlobalNetworkPolicySpec share."""

    tier: str = ""
    """Empty stands for `default`."""
    order: float | None = None
    """Lower first; None is last."""
    selector: str = ""
    service_account_selector: str = ""
    types: tuple[PolicyType, ...] = ()
    """Empty stands for what `types_in_force` says."""
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    performance_hints: tuple[PerformanceHint, ...] = ()


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
