"""CalicoNodeStatus (projectcalico.org/v3): a node's BGP daemon, sessions and routes, written as often as is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from calipy.resources import dns_names
from calipy.resources.definitions import Column, Constraint, Definition, Validation
from calipy.resources.dns_names import dns_name_problems
from calipy.resources.labels import metadata_problems
from calipy.resources.metadata import Kind, Problem, Resource

Class = Literal["Agent", "BGP", "Routes"]
DaemonState = Literal["Ready", "NotReady"]
SessionState = Literal["Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close"]


class CalicoNodeStatusSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico CalicoNodeStatusSpec: which node is to tell of itself, what, and how often."""

    node: str = ""
    """The name of the node that is to tell of itself. Required."""
    classes: tuple[Class, ...] = ()
    """What it is to tell of: its BGP daemon (Agent), its BGP sessions (BGP), the routes that its daemon knows (Routes).
    At least one, each once."""
    update_period_seconds: int | None = None
    """How often the status is written, in seconds; 0 stops it; 86400 (a day) at most. Required."""


class BGPDaemonStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The BGP daemon of one IP version."""

    state: DaemonState | None = None
    """Whether it works."""
    version: str = ""
    """The daemon's version."""
    router_id: str = field(name="routerID", default="")
    """Its BGP identifier."""
    last_boot_time: str = ""
    """When it was started, in its own words."""
    last_reconfiguration_time: str = ""
    """When it last read its configuration, in its own words."""


class CalicoNodeAgentStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The node's BGP daemons."""

    bird_v4: BGPDaemonStatus | None = None
    """The daemon for IPv4."""
    bird_v6: BGPDaemonStatus | None = None
    """The daemon for IPv6."""


class CalicoNodePeer(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """A BGP session."""

    peer_ip: str = field(name="peerIP", default="")
    """The peer's address."""
    type: Literal["NodeMesh", "NodePeer", "GlobalPeer"] | None = None
    """Where the peering comes from: the node-to-node mesh, a BGPPeer for some nodes, or a BGPPeer for all."""
    state: SessionState | None = None
    """The session's state (RFC 4271, 8.2.2)."""
    since: str = ""
    """Since when it is in this state."""


class CalicoNodeBGPStatus(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """The node's BGP sessions."""

    number_established_v4: int = 0
    """How many sessions over IPv4 are established."""
    number_not_established_v4: int = 0
    """How many sessions over IPv4 are not."""
    number_established_v6: int = 0
    """How many sessions over IPv6 are established."""
    number_not_established_v6: int = 0
    """How many sessions over IPv6 are not."""
    peers_v4: tuple[CalicoNodePeer, ...] = ()
    """The sessions over IPv4."""
    peers_v6: tuple[CalicoNodePeer, ...] = ()
    """The sessions over IPv6."""


class CalicoNodeRouteLearnedFrom(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Where a route was learned."""

    source_type: Literal["Kernel", "Static", "Direct", "NodeMesh", "BGPPeer"] | None = None
    """From the kernel, the daemon's configuration, an interface, the mesh, or a BGPPeer."""
    peer_ip: str = field(name="peerIP", default="")
    """The address of the peer that told it, if one did."""


class CalicoNodeRoute(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """A route that the daemon knows."""

    type: Literal["FIB", "RIB"] | None = None
    """FIB: packets are forwarded by it; RIB: it is known, and another is preferred."""
    destination: str = ""
    """The prefix."""
    gateway: str = ""
    """The next hop's address, if there is one."""
    interface: str = ""
    """The interface that it leaves by."""
    learned_from: CalicoNodeRouteLearnedFrom | None = None
    """Where it was learned."""


class CalicoNodeBGPRouteStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """The routes that the node's daemons know."""

    routes_v4: tuple[CalicoNodeRoute, ...] = ()
    """The IPv4 routes."""
    routes_v6: tuple[CalicoNodeRoute, ...] = ()
    """The IPv6 routes."""


class CalicoNodeStatusStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico CalicoNodeStatusStatus: what the node has told; nobody but its agent writes it."""

    last_updated: str | None = None
    """When it was written (RFC 3339, UTC)."""
    agent: CalicoNodeAgentStatus | None = None
    """The node's BGP daemons; there where class Agent is asked for."""
    bgp: CalicoNodeBGPStatus | None = None
    """The node's BGP sessions; there where class BGP is asked for."""
    routes: CalicoNodeBGPRouteStatus | None = None
    """The routes that the daemons know; there where class Routes is asked for."""


class CalicoNodeStatus(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="CalicoNodeStatus"
):
    """A node's status, for those who ask for it."""

    spec: CalicoNodeStatusSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"
    status: CalicoNodeStatusStatus | UnsetType = UNSET


_A_DAY_S = 86400


def problems(found: CalicoNodeStatus) -> Iterator[Problem]:
    """Calico's validation of CalicoNodeStatus; the status is the agent's, and not judged."""
    spec = found.spec
    yield from metadata_problems(found.metadata)
    if not spec.node:
        yield Problem("spec.node", "", "is empty", "name the node that is to tell of itself")
    else:
        yield from dns_name_problems("spec.node", spec.node)
    if not spec.classes:
        yield Problem("spec.classes", [], "is empty", "name Agent, BGP, Routes, or some of them")
    elif len(set(spec.classes)) < len(spec.classes):
        yield Problem("spec.classes", list(spec.classes), "names one class twice", "name each once")
    period = spec.update_period_seconds
    if period is None:
        yield Problem("spec.updatePeriodSeconds", "", "is missing", f"write 1 to {_A_DAY_S}, or 0 for never")
    elif not 0 <= period <= _A_DAY_S:
        yield Problem("spec.updatePeriodSeconds", period, "is out of range", f"write 0 to {_A_DAY_S}")


KIND = Kind(
    name="CalicoNodeStatus", group="projectcalico.org", version="v3", plural="caliconodestatuses",
    type=CalicoNodeStatus, problems=problems, short_names=("nodestatus", "nodestatuses"),
    definition=Definition(
        columns=(
            Column("Node", ".spec.node", description="The node that tells of itself"),
            Column("Updated", ".status.lastUpdated", "date", description="When it last did"),
        ),
        constraints=(
            Constraint(path="spec.node", max_length=dns_names.MOST_CHARACTERS, pattern=f"^({dns_names.PATTERN})?$"),
            Constraint(path="spec.classes", max_items=3, list_type="set"),
            Constraint(path="spec.updatePeriodSeconds", minimum=0, maximum=_A_DAY_S),
        ),
        validations=(
            Validation(
                path="spec", rule="has(self.node) && self.node != ''", field=".node",
                message="name the node that is to tell of itself", reason="FieldValueRequired",
            ),
            Validation(
                path="spec", rule="has(self.classes) && size(self.classes) > 0", field=".classes",
                message="name Agent, BGP, Routes, or some of them", reason="FieldValueRequired",
            ),
            Validation(
                path="spec", rule="has(self.updatePeriodSeconds)", field=".updatePeriodSeconds",
                message="say how often, in seconds; 0 is never", reason="FieldValueRequired",
            ),
        ),
        status=True,
    ),
)  # fmt: skip
