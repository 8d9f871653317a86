"""What a field of FelixConfiguration may hold for an API server: types, and Calico's patterns as msgspec metadata."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

FieldType = Any
"""A type as msgspec reads it, perhaps Annotated."""


class ProtoPort(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A port that stays open (Calico's ProtoPort)."""

    port: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 65535})]
    """1 to 65535."""
    protocol: str = ""
    """TCP, UDP or SCTP. Default: TCP."""
    net: str = ""
    """Only to and from addresses in this CIDR. Default: all."""


class HealthTimeoutOverride(Struct, frozen=True, gc=False, kw_only=True):
    """How long one part may be silent (Calico's HealthTimeoutOverride)."""

    name: str
    """The part, as the log calls it."""
    timeout: str
    """A duration: 90s."""


class RouteTableRange(Struct, frozen=True, gc=False, kw_only=True):
    """Route tables by number, both ends included (Calico's RouteTableRange)."""

    min: int
    """The first."""
    max: int
    """The last."""


class RouteTableIDRange(Struct, frozen=True, gc=False, kw_only=True):
    """Route tables by number, both ends included (Calico's RouteTableIDRange)."""

    min: int
    """The first."""
    max: int
    """The last."""


def told(type_: FieldType, **keywords: object) -> FieldType:
    """A type with keywords of OpenAPI, which the API server alone reads."""
    return Annotated[type_, Meta(extra_json_schema=keywords)]


def text(pattern: str) -> FieldType:
    """Text of a pattern in Go's spelling."""
    return told(str, pattern=pattern)


def either(*names: str) -> FieldType:
    """One of these, spelled so."""
    return told(str, enum=list(names))


def spelled(*names: str) -> FieldType:
    """One of these, in any case."""
    return text(f"^(?i)({'|'.join(names)})?$")


def within(low: int, high: int) -> FieldType:
    """A number of these, both ends included."""
    return told(int, minimum=low, maximum=high)


FLAG, NUMBER, TEXT, TEXTS = bool, int, str, tuple[str, ...]
SWITCH = either("Disabled", "Enabled")
DURATION = text(r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))*$")
"""Calico's pattern, but that a point may stand in it: 1.5h."""
LEVEL = spelled("Trace", "Debug", "Info", "Warning", "Error", "Fatal")
MASK = told(int, format="int64", minimum=0, maximum=4294967295)
PORTS = int | str
ADDRESS = told(str, maxLength=45)
PAIRS = text("^([a-zA-Z0-9-_]+=(true|false|),)*([a-zA-Z0-9-_]+=(true|false|))?$")
GATES = text("^([a-zA-Z0-9-_]+=([^=]+),)*([a-zA-Z0-9-_]+=([^=]+))?$")
RATE = text(r"^[1-9]\d{0,3}/(?:second|minute|hour|day)$")
LOG_PREFIX = text("^([a-zA-Z0-9%: /_-])*$")


Timer = Annotated[str, Meta(extra_json_schema={"pattern": r"^(([0-9]*(\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$"})]


class BPFConntrackTimeouts(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """How long connections are remembered: durations, or Auto (Calico's BPFConntrackTimeouts)."""

    creation_grace_period: Timer = ""
    """After a connection's first packet, whatever it does then."""
    tcp_syn_sent: Timer = ""
    """TCP that got no answer."""
    tcp_established: Timer = ""
    """TCP that is open, and silent."""
    tcp_fins_seen: Timer = ""
    """TCP that was closed."""
    tcp_reset_seen: Timer = ""
    """TCP that was cut off."""
    udp_timeout: Timer = ""
    """UDP that is silent."""
    icmp_timeout: Timer = ""
    """ICMP that is silent."""
    generic_timeout: Timer = ""
    """Other protocols, silent."""
