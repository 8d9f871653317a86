"""BGPPeer (projectcalico.org/v3): a session outside the node-to-node mesh."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.durations import duration_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.secrets import SecretKeySelector
from calipy.resources.selectors import selector_problems


class BGPPassword(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Where the session's TCP MD5 password is kept."""

    secret_key_ref: SecretKeySelector


class BGPPeerSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico BGPPeerSpec: who peers (`node` | `node_selector`, both empty = all nodes) and with whom."""

    node: str = ""
    node_selector: str = ""
    peer_ip: str = field(name="peerIP", default="")
    """`ip`, `ip:port` or `[v6]:port`."""
    peer_selector: str = ""
    local_workload_selector: str = ""
    as_number: int = 0
    local_as_number: int | None = field(name="localASNumber", default=None)
    password: BGPPassword | None = None
    source_address: Literal["UseNodeIP", "None"] | None = None
    next_hop_mode: Literal["Auto", "Self", "Keep"] | None = None
    keep_original_next_hop: bool = False
    filters: tuple[str, ...] = ()
    max_restart_time: str | None = None
    keepalive_time: str | None = None
    num_allowed_local_as_numbers: int | None = field(name="numAllowedLocalASNumbers", default=None)
    ttl_security: int | None = None
    reachable_by: str = ""
    reverse_peering: Literal["Auto", "Manual"] | None = None


class BGPPeer(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="BGPPeer"):
    """A peering."""

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


KIND = Kind(
    name="BGPPeer", group="projectcalico.org", version="v3", plural="bgppeers", type=BGPPeer, problems=problems,
    short_names=("bgpp", "bgpps", "bp", "bps"),
)  # fmt: skip
