"""Nodes, BGPConfigurations and BGPPeers -> the sessions of one node (calico.md 1.6, 4.3).

Explicit peerings first, in Calico's order (global ones, those of single nodes, then the reverse ones), the mesh last:
whoever comes first has an address (`peerings`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from calipy.bgp.peerings import Peering, Peerings
from calipy.bgp.peers import NextHopMode, Peer, Topology, guarded_addresses
from calipy.model.nodes import NodeAddress
from calipy.resources.bgp_configurations import (
    DEFAULT_AS_NUMBER,
    DEFAULT_PORT,
    BGPConfiguration,
    BGPConfigurationSpec,
)
from calipy.resources.bgp_peers import BGPPeer, BGPPeerSpec, split_peer
from calipy.resources.bgp_peers import problems as peer_problems
from calipy.resources.cidrs import family_of
from calipy.resources.durations import parse_seconds
from calipy.resources.metadata import Problem
from calipy.resources.selectors import parse

_FAMILIES = (4, 6)
_RESTART_S = 120
_MOST_RESTART_S = 4095
"""RFC 4724 3: twelve bits."""
_MOST_HOLD_S = 65535


class _End(Struct, frozen=True, gc=False, kw_only=True):
    """One possible far end of a session."""

    address: str
    as_number: int
    port: int
    node: str = ""


class _View(Struct, frozen=True, gc=False, kw_only=True):
    """What all sessions depend on."""

    node: str
    nodes: Mapping[str, NodeAddress]
    local: Mapping[int, str]
    """Family -> this node's address."""
    spec: BGPConfigurationSpec
    ports: Mapping[str, int]
    """Node -> listenPort of its own BGPConfiguration."""
    hold_time_s: int

    def as_of(self, node: str) -> int:
        """A node's AS number: its annotation, else the cluster's."""
        known = self.nodes.get(node)
        own = known.as_number if known else None
        return own or self.spec.as_number or DEFAULT_AS_NUMBER

    def port_of(self, node: str) -> int:
        """Where a node listens."""
        return self.ports.get(node) or self.spec.listen_port or DEFAULT_PORT

    def ends_of(self, node: str) -> Iterator[_End]:
        """A node as a far end, once a family."""
        for address in addresses_of(self.nodes.get(node)).values():
            yield _End(address=address, as_number=self.as_of(node), port=self.port_of(node), node=node)


def compute(
    node: str,
    nodes: Mapping[str, NodeAddress],
    configurations: Iterable[BGPConfiguration],
    peers: Iterable[BGPPeer],
    *,
    hold_time_s: int = 90,
    router_id: str = "",
) -> Topology:
    """All sessions of `node`. `hold_time_s` holds where no peer sets keepaliveTime (which is a third of it);
    `router_id` is CALICO_ROUTER_ID: an IPv4 address, `hash`, or empty for the node's IPv4 address."""
    by_name = {configuration.metadata.name: configuration.spec for configuration in configurations}
    view = _View(
        node=node,
        nodes=nodes,
        local=addresses_of(nodes.get(node)),
        spec=by_name.get("default", BGPConfigurationSpec()),
        ports={
            name.removeprefix("node."): spec.listen_port
            for name, spec in by_name.items()
            if name.startswith("node.") and spec.listen_port
        },
        hold_time_s=hold_time_s,
    )
    lines: list[str] = []
    identity = _router_id(view, router_id, lines)
    found = Peerings()
    if identity:
        _explicit(view, sorted(peers, key=lambda peer: peer.metadata.name), found, lines)
        _mesh(view, found, lines)
    lines.extend(found.problems())
    _services(view.spec, lines)
    _half_guarded(found.peers(), lines)
    return Topology(
        node=node,
        router_id=identity,
        port=view.port_of(node),
        peers=found.peers(),
        problems=tuple(dict.fromkeys(lines)),
    )


def addresses_of(node: NodeAddress | None) -> dict[int, str]:
    """Family -> address without prefix length, in canonical spelling."""
    if node is None:
        return {}
    return {family: str(ipaddress.ip_interface(text).ip) for family, text in sorted(node.addresses.items())}


def hash_router_id(node: str) -> str:
    """Calico's router ID for CALICO_ROUTER_ID=hash: the name's SHA-256, first 4 bytes, never 224.0.0.0 or above."""
    first, *rest = hashlib.sha256(node.encode()).digest()[:4]
    return ".".join(map(str, (first - 32 if first > 223 else first, *rest)))


def _router_id(view: _View, wanted: str, lines: list[str]) -> str:
    if wanted == "hash":
        return hash_router_id(view.node)
    if wanted:
        try:
            return str(ipaddress.IPv4Address(wanted))
        except ValueError:
            reason = "is neither an IPv4 address nor `hash`; the node's IPv4 address is used"
            lines.append(f"CALICO_ROUTER_ID: {wanted!r}: {reason}; correct it or leave it out")
    if 4 not in view.local and 6 in view.local:
        lines.append(
            f"Node {view.node}: has no IPv4 address to take BGP's router ID from, so it peers with nobody;"
            " set CALICO_ROUTER_ID to hash or to an IPv4 address"
        )
    return view.local.get(4, "")


def _services(spec: BGPConfigurationSpec, lines: list[str]) -> None:
    for field, value in (
        ("serviceClusterIPs", spec.service_cluster_ips),
        ("serviceExternalIPs", spec.service_external_ips),
        ("serviceLoadBalancerIPs", spec.service_load_balancer_ips),
    ):
        if value:
            ranges = [block.cidr for block in value]
            reason = "services are not announced by CalIPy"
            remedy = "announce the ranges from the router that serves them"
            lines.append(f"BGPConfiguration default: {Problem(f'spec.{field}', ranges, reason, remedy)}")


def _half_guarded(peers: tuple[Peer, ...], lines: list[str]) -> None:
    guarded = guarded_addresses(peers)
    for peer in peers:
        if peer.ttl_security and peer.local_address not in guarded:
            guard, remedy = "connections that the peer opens", "set a password too"
            if peer.password is not None:
                guard, remedy = "this peer", "leave it out, the password guards the session"
            reason = f"isn't asked of {guard}: {peer.local_address} also serves peers without it"
            lines.append(f"Peer {peer.name}: {Problem('ttlSecurity', peer.ttl_security, reason, remedy)}")


def _explicit(view: _View, peers: list[BGPPeer], found: Peerings, lines: list[str]) -> None:
    usable = [peer for peer in peers if _usable(peer, lines)]
    for is_global in (True, False):
        for peer in usable:
            if is_global == (not peer.spec.node and not peer.spec.node_selector) and _speaks(view, peer.spec):
                kind = "Global" if is_global else "Node"
                for end in _far_ends(view, peer.spec):
                    _take(found, peer, _session(view, peer, kind, end, lines))
    for peer in usable:
        if peer.spec.reverse_peering != "Manual":
            for end in _reverse_ends(view, peer.spec):
                session = _session(view, replace(peer, spec=_reverse(peer.spec)), "Node", end, lines)
                _take(found, peer, session, reverse=True)


def _take(found: Peerings, peer: BGPPeer, session: Peer | None, *, reverse: bool = False) -> None:
    if session is not None:
        found.take(Peering(by=f"BGPPeer {peer.metadata.name}", peer=session, spec=peer.spec, reverse=reverse))


def _usable(peer: BGPPeer, lines: list[str]) -> bool:
    name, spec = f"BGPPeer {peer.metadata.name}", peer.spec
    wrong = [f"{name}: {problem}" for problem in peer_problems(peer)]
    if spec.local_workload_selector:
        reason = "peering with workloads is not supported"
        problem = Problem("spec.localWorkloadSelector", spec.local_workload_selector, reason, "delete the object")
        wrong.append(f"{name}: {problem}")
    lines.extend(wrong)
    return not wrong


def _speaks(view: _View, spec: BGPPeerSpec) -> bool:
    """True if this node is on the near side of the peering."""
    if spec.node_selector:
        me = view.nodes.get(view.node)
        return me is not None and parse(spec.node_selector).matches(me.labels)
    return spec.node in ("", view.node)


def _far_ends(view: _View, spec: BGPPeerSpec) -> Iterator[_End]:
    if spec.peer_selector:
        for name in _selected(view, spec.peer_selector):
            yield from view.ends_of(name)
        return
    address, port = split_peer(spec.peer_ip)
    node = next((name for name in sorted(view.nodes) if address in addresses_of(view.nodes[name]).values()), "")
    if port is None:
        port = view.port_of(node) if node and view.as_of(node) == spec.as_number else DEFAULT_PORT
    yield _End(address=address, as_number=spec.as_number, port=port, node=node)


def _selected(view: _View, selector: str) -> list[str]:
    chosen = parse(selector)
    return [name for name in sorted(view.nodes) if name != view.node and chosen.matches(view.nodes[name].labels)]


def _reverse_ends(view: _View, spec: BGPPeerSpec) -> Iterator[_End]:
    """The nodes that peer with this one by `spec`, if this node is on its far side."""
    families = _reversed_families(view, spec)
    if not families:
        return
    if spec.node:
        near = [spec.node] if spec.node != view.node else []
    else:
        near = _selected(view, spec.node_selector)
    for name in near:
        for end in view.ends_of(name):
            if family_of(end.address) in families:
                yield replace(end, as_number=spec.local_as_number or end.as_number)


def _reversed_families(view: _View, spec: BGPPeerSpec) -> tuple[int, ...]:
    me = view.nodes.get(view.node)
    if me is None:
        return ()
    if spec.peer_selector:
        return _FAMILIES if parse(spec.peer_selector).matches(me.labels) else ()
    address, port = split_peer(spec.peer_ip)
    if spec.as_number != view.as_of(view.node) or port not in (None, view.port_of(view.node)):
        return ()
    return tuple(family for family, own in view.local.items() if own == address)


def _reverse(spec: BGPPeerSpec) -> BGPPeerSpec:
    """What of a peering also holds for its far side."""
    return replace(spec, local_as_number=None, reachable_by="")


def _session(view: _View, peer: BGPPeer, kind: str, end: _End, lines: list[str]) -> Peer | None:
    spec, name = peer.spec, f"BGPPeer {peer.metadata.name}"
    local = view.local.get(family_of(end.address))
    if local is None:
        if not spec.peer_selector:
            family = family_of(end.address)
            reason = f"node {view.node} has no IPv{family} address to peer from"
            lines.append(f"{name}: {Problem('spec.peerIP', spec.peer_ip, reason, 'give it one, or narrow the nodes')}")
        return None
    if end.address == local:
        return None
    lines.extend(f"{name}: {problem}" for problem in _not_followed(spec, end))
    keepalive = _seconds(name, "keepaliveTime", spec.keepalive_time, lines)
    restart = _seconds(name, "maxRestartTime", spec.max_restart_time, lines)
    return Peer(
        name=_name(kind, end),
        address=end.address,
        as_number=end.as_number,
        local_address=local,
        local_as=spec.local_as_number or view.as_of(view.node),
        port=end.port,
        passive=bool(end.node) and end.address > local,
        hold_time_s=view.hold_time_s if keepalive is None else min(max(3, 3 * keepalive), _MOST_HOLD_S),
        restart_time_s=_restart_time(name, "maxRestartTime", restart, lines),
        ttl_security=0 if end.node else spec.ttl_security or 0,
        password=spec.password.secret_key_ref if spec.password else None,
        next_hop_mode=_next_hop_mode(spec),
        reachable_by=spec.reachable_by,
        own_as_allowed=spec.num_allowed_local_as_numbers or 0,
        node=end.node,
        kind="global" if kind == "Global" else "node",
    )


def _not_followed(spec: BGPPeerSpec, end: _End) -> Iterator[Problem]:
    if spec.ttl_security and end.node:
        # Measured: the kernel answers for ExaBGP's listening socket with TTL 64, which the connecting side then drops.
        reason = f"doesn't work between nodes ({end.node}); the session runs without it"
        yield Problem("spec.ttlSecurity", spec.ttl_security, reason, "leave it out, or set a password")
    if spec.source_address == "None":
        reason = "ExaBGP listens on an address that it is told; the node's is used"
        yield Problem("spec.sourceAddress", "None", reason, "write UseNodeIP")
    if spec.reachable_by:
        reason = "no route to the peer is written; it is reached as the kernel's routes say"
        yield Problem("spec.reachableBy", spec.reachable_by, reason, "write the route on the node")
    if spec.filters:
        reason = "BGPFilters are not applied: the session runs without them"
        yield Problem("spec.filters", list(spec.filters), reason, "filter at the other side")


def _seconds(name: str, field: str, text: str | None, lines: list[str]) -> int | None:
    """Whole seconds, rounded up; None where nothing (readable) is set."""
    if text is None:
        return None
    try:
        seconds = parse_seconds(text)
        if seconds < 0:
            raise ValueError(f"{text!r} is negative")
    except ValueError as error:
        lines.append(f"{name}: {Problem(f'spec.{field}', text, f'{error}; the default holds', 'write 90s')}")
        return None
    return math.ceil(seconds)


def _restart_time(name: str, field: str, seconds: int | None, lines: list[str]) -> int:
    if seconds is None:
        return _RESTART_S
    if seconds > _MOST_RESTART_S:
        reason = f"is longer than BGP can say; {_MOST_RESTART_S} s are used"
        lines.append(f"{name}: {Problem(f'spec.{field}', f'{seconds}s', reason, f'{_MOST_RESTART_S}s at most')}")
    return min(seconds, _MOST_RESTART_S)


def _next_hop_mode(spec: BGPPeerSpec) -> NextHopMode:
    return spec.next_hop_mode or ("Keep" if spec.keep_original_next_hop else "Auto")


def _name(kind: str, end: _End) -> str:
    name = f"{kind}_{end.address.replace('.', '_').replace(':', '_')}"
    return name if end.port == DEFAULT_PORT or kind == "Mesh" else f"{name}_port_{end.port}"


def _mesh(view: _View, found: Peerings, lines: list[str]) -> None:
    spec, me = view.spec, view.nodes.get(view.node)
    if spec.node_to_node_mesh_enabled is False or me is None or me.cluster_id:
        return
    by, field = "BGPConfiguration default", "nodeMeshMaxRestartTime"
    restart = _restart_time(by, field, _seconds(by, field, spec.node_mesh_max_restart_time, lines), lines)
    password = spec.node_mesh_password
    for name, other in sorted(view.nodes.items()):
        if other.cluster_id:
            continue
        for end in view.ends_of(name):
            local = view.local.get(family_of(end.address))
            if local is None or local == end.address:
                continue
            session = Peer(
                name=_name("Mesh", end),
                address=end.address,
                as_number=end.as_number,
                local_address=local,
                local_as=view.as_of(view.node),
                port=end.port,
                passive=end.address > local,
                hold_time_s=view.hold_time_s,
                restart_time_s=restart,
                password=password.secret_key_ref if password else None,
                node=name,
                kind="mesh",
            )
            found.take_mesh(session)
