"""The shapes of a node's answers: what goes over the query socket as JSON, and what `-o json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from calipy.node.check import Finding


class SessionReport(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A BGP session."""

    name: str
    peer: str
    """Its address."""
    node: str = ""
    """The node at the far end; empty = outside the cluster."""
    kind: Literal["mesh", "global", "node"]
    as_number: int
    family: int
    state: Literal["down", "connected", "up"]
    since_s: float = 0.0
    """How long it has been so."""
    reason: str = ""
    """Why it is down."""
    received: int = 0
    """Prefixes that the peer has told of."""
    announced: int = 0
    """Prefixes that it was told of."""
    stale: bool = False
    """Its routes are held under graceful restart."""


class RouteReport(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A route that this node wants, and how it stands."""

    prefix: str
    kind: Literal["unicast", "blackhole"]
    ways: tuple[str, ...]
    """`via 10.9.0.1 dev eth0`, one a next hop."""
    protocol: int
    metric: int
    origin: str
    """Class and name of what it is there for, `workload default/web`."""
    word: str
    """The same for people."""
    state: Literal["in force", "waits", "refused"]
    reason: str = ""
    """What it waits for, or why the kernel refuses it."""


class EndpointReport(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A pod's interface."""

    id: str
    container_id: str
    interface: str
    addresses: tuple[str, ...]
    refused: str = ""


class AddressReport(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """This node's own address of a family, and what led to it."""

    family: int
    asked: str
    """IP's or IP6's value: `autodetect`, `none` or an address."""
    method: str
    address: str = ""
    """With its subnet's prefix length; empty = none."""
    reason: str = ""
    """Why it is that one, or why there is none."""
    considered: tuple[str, ...] = ()
    """Each address that a link has, and why it was taken or not."""


class DriverReport(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A driver's work since the agent's start."""

    driver: str
    reads: int
    """Times that the kernel was read."""
    writes: int
    """Times that something was written; one is the taking of the table's ownership."""
    operations: int
    """Objects put or deleted."""


class NodeReport(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """A node's state in one answer."""

    node: str
    in_sync: bool
    obstacle: str = ""
    """Why it can't attach pods now."""
    problems: Mapping[str, str] = {}
    """What readiness complains of, by reporter."""
    degraded: Mapping[str, str] = {}
    """What isn't as it is meant to be though the node is ready, by reporter."""
    refused: Mapping[str, str] = {}
    """Objects of the store that are not accepted, and why."""
    sessions: tuple[SessionReport, ...] = ()
    endpoints: int = 0
    drivers: tuple[DriverReport, ...] = ()
    compiled: int = 0
    """Owners whose rules were compiled since the agent's start."""
    repairs: Mapping[str, int] = {}
    """Foreign changes that were noticed, by driver."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with its host, the worst first."""


def word(kind: str, name: str, peers: Mapping[str, str] | None = None) -> str:
    """A sentence's worth on why a route is there; `kind` and `name` are its origin's; `peers`: the nodes behind BGP
    peers' addresses."""
    match kind:
        case "workload":
            return f"pod {name}, on this node"
        case "block":
            pool = name.partition(", ")[2]
            return f"the rest of this node's block{f' of {pool}' if pool else ''}"
        case "bgp":
            known = peers or {}
            told = (
                f"node {known[peer]} ({peer})" if known.get(peer) else f"BGP peer {peer}" for peer in name.split(", ")
            )
            return f"told by {', '.join(told)}"
        case "vxlan":
            return f"pods of node {name}, through the VXLAN tunnel"
        case "vxlan-same-subnet":
            return f"pods of node {name}, on the same subnet: no tunnel needed"
        case "same-subnet":
            return f"pods of node {name}, on the same subnet"
    return f"{kind} {name}".strip()
