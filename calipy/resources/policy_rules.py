"""What the rules of Calico's policies and profiles have in common (projectcalico.org/v3)."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType, field

Action = Literal["Allow", "Deny", "Log", "Pass"]
PolicyType = Literal["Ingress", "Egress"]
PerformanceHint = Literal["AssumeNeededOnEveryNode"]
Protocol = int | str
"""1 to 255, or TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite."""
Port = int | str
"""0 to 65535, `min:max`, or the name of a container's port."""


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
