"""BGPPeer (projectcalico.org/v3): a session outside the node-to-node mesh."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.definitions import (
    SELECTOR,
    Column,
    Constraint,
    Definition,
    Validation,
    bounded,
    exclusive,
    unset,
)
from calipy.resources.durations import PATTERN as DURATION
from calipy.resources.durations import duration_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.secrets import SecretKeySelector
from calipy.resources.selectors import selector_problems


class BGPPassword(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Where the session's TCP MD5 password is kept."""

    secret_key_ref: SecretKeySelector
    """The Secret and the key in it."""


class BGPPeerSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Which nodes peer, and with whom (Calico's BGPPeerSpec)."""

    node: str = ""
    """The node that peers. Not together with nodeSelector; where both are left out, all nodes peer."""
    node_selector: str = ""
    """The nodes that peer, by their labels: rack == "a"."""
    peer_ip: str = field(name="peerIP", default="")
    """The peer's address, with a port where it isn't 179: 192.0.2.1, 192.0.2.1:1179 or [2001:db8::1]:1179. It needs
    asNumber. One of peerIP, peerSelector and localWorkloadSelector is set."""
    peer_selector: str = ""
    """The nodes to peer with, by their labels; their addresses and AS numbers are the nodes' own."""
    local_workload_selector: str = ""
    """The pods on the same node to peer with, by their labels. It needs asNumber. Known, without effect: CalIPy peers
    with no pods."""
    as_number: int = 0
    """The peer's AS number, 1 to 4294967295. Left out with peerSelector."""
    local_as_number: int | None = field(name="localASNumber", default=None)
    """The AS number that the node itself has in this session, 1 to 4294967295. Default: the node's own."""
    password: BGPPassword | None = None
    """The session's password (TCP MD5, RFC 2385). Default: none."""
    source_address: Literal["UseNodeIP", "None"] | None = None
    """UseNodeIP: the session comes from the node's address. None: the kernel chooses; without effect, the node's
    address it is. Default: UseNodeIP."""
    next_hop_mode: Literal["Auto", "Self", "Keep"] | None = None
    """The next hop of routes that are told to the peer: Self, the node; Keep, what it was; Auto, as BGP does it by
    itself. Default: Auto."""
    keep_original_next_hop: bool = False
    """An older way to say nextHopMode Keep. Default: false."""
    filters: tuple[str, ...] = ()
    """Names of BGPFilters for the session's routes, tried in order. Known, without effect: the session runs without
    them."""
    max_restart_time: str | None = None
    """How long the peer keeps the node's routes while its session is down (graceful restart, RFC 4724), as a duration:
    120s, 2m. Default: 120s."""
    keepalive_time: str | None = None
    """How often the node says that it is there, as a duration: 10s. The hold time is three times as long. Default:
    30s."""
    num_allowed_local_as_numbers: int | None = field(name="numAllowedLocalASNumbers", default=None)
    """How often the node's own AS number may be in the path of a route that it takes. Default: 0."""
    ttl_security: int | None = None
    """How many hops away the peer is at most, 0 to 255: packets from further away are dropped (GTSM, RFC 5082).
    Not between nodes. Default: no check."""
    reachable_by: str = ""
    """The gateway on the way to peerIP, which it needs. Known, without effect: the peer is reached as the kernel's
    routes say."""
    reverse_peering: Literal["Auto", "Manual"] | None = None
    """With peerSelector. Auto: the selected nodes peer back by themselves. Manual: another BGPPeer says so. Default:
    Auto."""


class BGPPeer(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="BGPPeer"):
    """A BGP session beside the full mesh between nodes: with a router of the network, or between certain nodes."""

    spec: BGPPeerSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def split_peer(text: str) -> tuple[str, int | None]:
    """Address and port of `peerIP`; raises ValueError where it is neither `ip`, `ip:port` nor `[v6]:port`."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if ":" not in host or not rest.startswith(":"):
            raise ValueError(f"{text!r} is not [v6]:port")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    address = str(ipaddress.ip_address(host))
    if not port:
        return address, None
    if not (port.isascii() and port.isdecimal()) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{port!r} is not a port, 1 to 65535")
    return address, int(port)


def problems(peer: BGPPeer) -> Iterator[Problem]:
    """Calico's validation of BGPPeer."""
    spec = peer.spec
    if spec.node and spec.node_selector:
        yield Problem("spec.nodeSelector", spec.node_selector, "can't be combined with node", "keep one of them")
    targets = [name for name, value in _targets(spec) if value]
    if len(targets) > 1:
        yield Problem(f"spec.{targets[1]}", "set", f"can't be combined with {targets[0]}", "keep one of them")
    if not targets:
        yield Problem(
            "spec.peerIP", "", "names nobody to peer with", "set peerIP, peerSelector or localWorkloadSelector"
        )
    yield from _peer_ip_problems(spec)
    if spec.peer_selector and spec.as_number:
        yield Problem(
            "spec.asNumber", spec.as_number, "comes from the selected nodes", "leave it out with peerSelector"
        )
    if spec.local_workload_selector and not spec.as_number:
        yield Problem("spec.asNumber", 0, "is required with localWorkloadSelector", "write the workload's AS number")
    if spec.keep_original_next_hop and spec.next_hop_mode not in (None, "Keep"):
        yield Problem("spec.keepOriginalNextHop", True, f"contradicts nextHopMode {spec.next_hop_mode}", "leave it out")
    yield from _range_problems(spec)
    for name, text in (("maxRestartTime", spec.max_restart_time), ("keepaliveTime", spec.keepalive_time)):
        yield from duration_problems(f"spec.{name}", text)
    yield from _selector_problems(spec)


_AS_NUMBER = (1, 4294967295, "an AS number, 1 to 4294967295 (RFC 6793)")


def _range_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    for name, number, (low, high, allowed) in (
        ("asNumber", spec.as_number or None, _AS_NUMBER),
        ("localASNumber", spec.local_as_number, _AS_NUMBER),
        ("ttlSecurity", spec.ttl_security, (0, 255, "hops, 0 to 255")),
        ("numAllowedLocalASNumbers", spec.num_allowed_local_as_numbers, (0, 2147483647, "0 or more")),
    ):
        if number is not None and not low <= number <= high:
            yield Problem(f"spec.{name}", number, "is out of range", f"write {allowed}")
    for name, text, most in (("node", spec.node, 253), ("peerIP", spec.peer_ip, 64)):
        if len(text) > most:
            yield Problem(f"spec.{name}", text, f"has {len(text)} characters", f"{most} at most")


def _targets(spec: BGPPeerSpec) -> tuple[tuple[str, str], ...]:
    return (
        ("peerIP", spec.peer_ip),
        ("peerSelector", spec.peer_selector),
        ("localWorkloadSelector", spec.local_workload_selector),
    )


def _peer_ip_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    if spec.peer_ip:
        try:
            split_peer(spec.peer_ip)
        except ValueError as error:
            yield Problem("spec.peerIP", spec.peer_ip, str(error), "write ip, ip:port or [v6]:port")
        if not spec.as_number:
            yield Problem("spec.asNumber", 0, "is required with peerIP", "write the peer's AS number")
    if spec.reachable_by:
        yield from _gateway_problems(spec)


def _gateway_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    try:
        gateway = ipaddress.ip_address(spec.reachable_by)
    except ValueError:
        yield Problem("spec.reachableBy", spec.reachable_by, "is not an address", "write the gateway's address")
        return
    if not spec.peer_ip:
        yield Problem("spec.reachableBy", spec.reachable_by, "needs peerIP", "set peerIP or leave it out")
    elif (":" in spec.reachable_by) != (spec.peer_ip.count(":") > 1):
        reason = f"is IPv{gateway.version}, peerIP is not"
        yield Problem("spec.reachableBy", spec.reachable_by, reason, "write a gateway of the peer's family")


def _selector_problems(spec: BGPPeerSpec) -> Iterator[Problem]:
    for name, text in (("nodeSelector", spec.node_selector), *_targets(spec)[1:]):
        yield from selector_problems(f"spec.{name}", text)


_AS_NUMBER_UNSET = "(!has(self.asNumber) || self.asNumber == 0)"
_PEER_RULE = (
    "self == '' || isIP(self) || (self.matches('^\\\\[[0-9A-Fa-f:.]+\\\\]:[0-9]{1,5}$') && "
    "isIP(self.substring(1, self.lastIndexOf(']:'))) && ip(self.substring(1, self.lastIndexOf(']:'))).family() == 6 && "
    "int(self.substring(self.lastIndexOf(']:') + 2)) >= 1 && int(self.substring(self.lastIndexOf(']:') + 2)) <= 65535)"
    " || (self.matches('^[0-9.]+:[0-9]{1,5}$') && isIP(self.split(':')[0]) && "
    "int(self.split(':')[1]) >= 1 && int(self.split(':')[1]) <= 65535)"
)
_TARGETS = ("peerIP", "peerSelector", "localWorkloadSelector")
_RULES = (
    (
        "peerIP",
        f"!({' && '.join(unset(f'self.{name}') for name in _TARGETS)})",
        "names nobody to peer with: set peerIP, peerSelector or localWorkloadSelector",
    ),
    (
        "asNumber",
        f"{unset('self.peerSelector')} || {_AS_NUMBER_UNSET}",
        "comes from the selected nodes: leave it out with peerSelector",
    ),
    *(
        ("asNumber", f"{unset(f'self.{name}')} || !{_AS_NUMBER_UNSET}", f"is required with {name}")
        for name in ("peerIP", "localWorkloadSelector")
    ),
    ("reachableBy", f"{unset('self.reachableBy')} || !{unset('self.peerIP')}", "needs peerIP: set it, or leave it out"),
    (
        "reachableBy",
        f"{unset('self.reachableBy')} || {unset('self.peerIP')} || "
        "self.reachableBy.contains(':') == (size(self.peerIP.split(':')) > 2)",
        "is not of the peer's IP version",
    ),
    (
        "keepOriginalNextHop",
        "!has(self.keepOriginalNextHop) || !self.keepOriginalNextHop || !has(self.nextHopMode) || "
        "self.nextHopMode == 'Keep'",
        "contradicts nextHopMode: leave it out",
    ),
)
"""Field of the spec, rule, message."""
_DEFINITION = Definition(
    columns=(
        Column(name="Node Selector", path=".spec.nodeSelector", description="The nodes that peer."),
        Column(name="Node", path=".spec.node", description="The node that peers."),
        Column(name="Local ASN", path=".spec.localASNumber", description="The AS number that it has in the session."),
        Column(name="Peer Selector", path=".spec.peerSelector", description="The nodes to peer with."),
        Column(name="Peer IP", path=".spec.peerIP", description="The peer's address."),
        Column(name="Peer ASN", path=".spec.asNumber", description="The peer's AS number."),
    ),
    constraints=(
        *bounded(SELECTOR, "spec.nodeSelector", "spec.peerSelector", "spec.localWorkloadSelector"),
        *bounded(253, "spec.node"),
        *bounded(64, "spec.peerIP", "spec.reachableBy"),
        Constraint(path="spec.asNumber", format="int64", minimum=0, maximum=4294967295),
        Constraint(path="spec.localASNumber", format="int64", minimum=1, maximum=4294967295),
        Constraint(path="spec.numAllowedLocalASNumbers", format="int32", minimum=0),
        Constraint(path="spec.ttlSecurity", minimum=0, maximum=255),
        Constraint(path="spec.filters", list_type="atomic"),
        Constraint(path="spec.maxRestartTime", pattern=DURATION),
        Constraint(path="spec.keepaliveTime", pattern=DURATION),
        Constraint(path="spec.password.secretKeyRef", map_type="atomic"),
    ),
    validations=(
        *exclusive("spec", ("node", "nodeSelector")),
        *exclusive("spec", _TARGETS),
        Validation(
            path="spec.peerIP",
            rule=_PEER_RULE,
            message="is no address, perhaps with a port: write ip, ip:port or [v6]:port",
        ),
        Validation(path="spec.reachableBy", rule="self == '' || isIP(self)", message="is not an address"),
        *(Validation(path="spec", field=f".{name}", rule=rule, message=text) for name, rule, text in _RULES),
    ),
)

KIND = Kind(
    name="BGPPeer", group="projectcalico.org", version="v3", plural="bgppeers", type=BGPPeer, problems=problems,
    short_names=("bgpp", "bgpps", "bp", "bps"), definition=_DEFINITION,
)  # fmt: skip
