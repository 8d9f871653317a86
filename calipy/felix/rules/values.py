"""Neutral rules: what a packet is matched by, what becomes of it, and why the rule is there."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.model.origins import Origin

Side = Literal["source", "destination"]
Direction = Literal["in", "out"]
State = Literal["invalid", "established", "related", "new", "untracked"]


class Interface(Struct, frozen=True, gc=False, tag="interface"):
    """The packet's incoming or outgoing interface; `prefix`: any whose name begins so."""

    direction: Direction
    name: str
    prefix: bool = False
    negated: bool = False


class Family(Struct, frozen=True, gc=False, tag="family"):
    """IPv4 or IPv6."""

    family: int


class Address(Struct, frozen=True, gc=False, tag="address"):
    """One address, or with a prefix length (`fe80::/10`) any of those."""

    side: Side
    address: str
    negated: bool = False


class InSet(Struct, frozen=True, gc=False, tag="in-set"):
    """An address in a named set of its family."""

    side: Side
    set: str
    family: int
    negated: bool = False


class OwnSource(Struct, frozen=True, gc=False, tag="own-source"):
    """The incoming interface and the source address together in a named set of pairs."""

    set: str
    family: int
    negated: bool = False


class Protocol(Struct, frozen=True, gc=False, tag="protocol"):
    """The transport protocol's number."""

    number: int
    negated: bool = False


class Ports(Struct, frozen=True, gc=False, tag="ports"):
    """A port, or a range of ports, of the protocol matched before."""

    side: Side
    first: int
    last: int
    negated: bool = False


class InPorts(Struct, frozen=True, gc=False, tag="in-ports"):
    """A port, of the protocol matched before, in a named set of ranges."""

    side: Side
    set: str
    negated: bool = False


class InEndpoints(Struct, frozen=True, gc=False, tag="in-endpoints"):
    """Address, protocol and port of one side together in a named set of them."""

    side: Side
    set: str
    family: int
    negated: bool = False


class IcmpType(Struct, frozen=True, gc=False, tag="icmp-type"):
    """A range of types of the ICMP or ICMPv6 matched before."""

    first: int
    last: int
    negated: bool = False


class IcmpCode(Struct, frozen=True, gc=False, tag="icmp-code"):
    """A type of the ICMP or ICMPv6 matched before, and one code of it, or, negated, any other code of it."""

    of_type: int
    code: int
    negated: bool = False


class ConnectionState(Struct, frozen=True, gc=False, tag="state"):
    """Any of these states of the tracked connection."""

    states: tuple[State, ...]


class LocalSource(Struct, frozen=True, gc=False, tag="local-source"):
    """The source is an address of this node."""


class Marked(Struct, frozen=True, gc=False, tag="marked"):
    """All of these bits are set in the packet's mark."""

    bits: int


AddressMatch = Address | InSet | InEndpoints | OwnSource
"""Those that hold for packets of one family alone."""
TransportMatch = Ports | InPorts | IcmpType | IcmpCode
Match = Interface | Family | AddressMatch | Protocol | TransportMatch | ConnectionState | LocalSource | Marked


class Accept(Struct, frozen=True, gc=False, tag="accept"):
    """Through, as far as this hook goes."""


class Drop(Struct, frozen=True, gc=False, tag="drop"):
    """Away, without a word."""


class Reject(Struct, frozen=True, gc=False, tag="reject"):
    """Away, with an ICMP error."""


class Return(Struct, frozen=True, gc=False, tag="return"):
    """Back to the calling chain."""


class Jump(Struct, frozen=True, gc=False, tag="jump"):
    """Into a chain, and back here from its end."""

    chain: str


class Goto(Struct, frozen=True, gc=False, tag="goto"):
    """Into a chain, and from its end to where this one would return."""

    chain: str


class Dispatch(Struct, frozen=True, gc=False, tag="dispatch"):
    """The verdict that a map holds for the packet's interface; on to the next rule where it holds none."""

    map: str
    direction: Direction


class Ask(Struct, frozen=True, gc=False, tag="ask"):
    """The verdict that the map `verdicts` holds for the mask that the map `askers` holds for an address of a family;
    on to the next rule where either holds none."""

    side: Side
    askers: str
    verdicts: str
    family: int


class Pass(Struct, frozen=True, gc=False, tag="pass"):
    """Sets these bits of the packet's mark, then back to the calling chain."""

    bits: int


class ClearMark(Struct, frozen=True, gc=False, tag="clear-mark"):
    """Clears these bits of the packet's mark, then on to the next rule."""

    bits: int


class Rate(Struct, frozen=True, gc=False):
    """So many packets in `period_s` seconds at most, and `burst` at once."""

    packets: int
    period_s: int
    burst: int


class Log(Struct, frozen=True, gc=False, tag="log"):
    """A line in the kernel's log that begins with `prefix`, then on to the next rule."""

    prefix: str
    rate: Rate | None = None


class NoTrack(Struct, frozen=True, gc=False, tag="no-track"):
    """Exempt from connection tracking."""


class Masquerade(Struct, frozen=True, gc=False, tag="masquerade"):
    """Source becomes the outgoing interface's address, ports chosen fully at random (of a range, if there is one)."""

    ports: tuple[int, int] | None = None


class SourceNat(Struct, frozen=True, gc=False, tag="source-nat"):
    """Source becomes this address, ports chosen fully at random (of a range, if there is one)."""

    address: str
    ports: tuple[int, int] | None = None


Verdict = Accept | Drop | Reject | Return | Jump | Goto | Dispatch | Ask | Pass
Action = Verdict | ClearMark | Log | NoTrack | Masquerade | SourceNat


class Rule(Struct, frozen=True, gc=False):
    """All of `matches`, then `action`. `origin` goes into the kernel with it."""

    matches: tuple[Match, ...]
    action: Action
    origin: Origin
    counted: bool = True
    """Whether the kernel counts what it is for. That costs each packet, and says nothing where a rule only leads on."""


class Hook(Struct, frozen=True, gc=False, kw_only=True):
    """Where a chain hangs in the packet's way. Its policy is always accept: what we don't judge is not ours."""

    type: Literal["filter", "nat"]
    hook: Literal["prerouting", "input", "forward", "output", "postrouting"]
    priority: int


class Chain(Struct, frozen=True, gc=False, tag="chain"):
    """Rules in their order; a base chain if it has a hook."""

    rules: tuple[Rule, ...]
    hook: Hook | None = None


class SetSpec(Struct, frozen=True, gc=False, tag="set"):
    """A set of a family: addresses, prefixes, endpoints (address, protocol, port), sources (interface, source address),
    or a map from address to the mask of its askers; or, of no family (0), ranges of ports, or a verdict map by
    interface name or by mask."""

    kind: Literal["addresses", "prefixes", "endpoints", "ports", "sources", "askers", "interfaces", "masks"]
    family: int = 0


class Element(Struct, frozen=True, gc=False, tag="element"):
    """What lies under a key in a set that many owners share, a verdict in a map; set and key are its object's name."""

    verdict: Goto | Jump | Drop | None = None
