"""Which of several peerings has an address: ExaBGP knows a peer by its address, so there is one session an address.

Calico tells sessions apart by address and port: there, too, the first of two peerings that differ in the AS number has
the session, and the other is passed over without a word. A peer that is in the mesh as well has two sessions in Calico,
between one pair of addresses; here the explicit one takes the mesh's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from calipy.bgp.peers import Peer
from calipy.resources.bgp_peers import BGPPassword, BGPPeerSpec
from calipy.resources.metadata import Problem

_ENDS = {"as_number": "AS", "port": "port"}
"""Fields of Peer that say who is at the far end."""
_SETTINGS: Mapping[str, tuple[str, str]] = {
    "local_as": ("localASNumber", "local_as_number"),
    "password": ("password", "password"),
    "hold_time_s": ("keepaliveTime", "keepalive_time"),
    "restart_time_s": ("maxRestartTime", "max_restart_time"),
    "ttl_security": ("ttlSecurity", "ttl_security"),
    "next_hop_mode": ("nextHopMode", "next_hop_mode"),
    "reachable_by": ("reachableBy", "reachable_by"),
    "own_as_allowed": ("numAllowedLocalASNumbers", "num_allowed_local_as_numbers"),
}
"""Other fields of Peer -> where BGPPeer has them: the field's name in the API, and here."""


class Peering(Struct, frozen=True, gc=False, kw_only=True):
    """A session that an object asks for."""

    by: str
    """The object: `BGPPeer tor`."""
    peer: Peer
    spec: BGPPeerSpec
    reverse: bool = False
    """It is implied: the object asks for the far side's session."""

    @property
    def target(self) -> tuple[str, str]:
        """The field that leads to this address, and what stands there."""
        if self.reverse:
            return "spec.reversePeering", self.spec.reverse_peering or "Auto"
        return (
            ("spec.peerIP", self.spec.peer_ip) if self.spec.peer_ip else ("spec.peerSelector", self.spec.peer_selector)
        )


class _Overlap(Struct, frozen=True, gc=False):
    """A field of one object that another object stands in the way of."""

    by: str
    field: str
    value: object
    reason: str
    """{} stands for the addresses."""
    remedy: str


class Peerings:
    """All of a node; whoever comes first has an address."""

    def __init__(self) -> None:
        self._taken: dict[str, Peering] = {}
        self._mesh: dict[str, Peer] = {}
        self._overlaps: dict[_Overlap, list[str]] = {}

    def take(self, peering: Peering) -> None:
        """An explicit peering, or the reverse of one, which gives way without a word: what the near side says of itself
        holds."""
        first = self._taken.setdefault(peering.peer.address, peering)
        if first is peering or peering.reverse or first.by == peering.by:
            return
        overlap = _between(first, peering)
        if overlap is not None:
            self._overlaps.setdefault(overlap, []).append(peering.peer.address)

    def take_mesh(self, peer: Peer) -> None:
        """A session of the mesh: it gives way to any other."""
        first = self._taken.get(peer.address)
        if first is None:
            self._mesh.setdefault(peer.address, peer)
            return
        where = f"{peer.address} (node {peer.node})"
        self._overlaps.setdefault(_in_the_mesh(first, peer), []).append(where)

    def peers(self) -> tuple[Peer, ...]:
        """The sessions, by name."""
        explicit = [peering.peer for peering in self._taken.values()]
        return tuple(sorted((*explicit, *self._mesh.values()), key=lambda peer: peer.name))

    def problems(self) -> Iterator[str]:
        """What was passed over, each with object, field, value, reason and remedy."""
        for overlap, addresses in self._overlaps.items():
            reason = overlap.reason.format(", ".join(addresses))
            yield f"{overlap.by}: {Problem(overlap.field, overlap.value, reason, overlap.remedy)}"


def _between(first: Peering, second: Peering) -> _Overlap | None:
    """What of the second doesn't hold; None where both say the same."""
    remedy = f"make it agree with {first.by}, or delete one of them"
    for name, word in _ENDS.items():
        ours, theirs = getattr(first.peer, name), getattr(second.peer, name)
        if ours != theirs:
            field, value = second.target
            if name == "as_number" and second.spec.as_number:
                field, value = "spec.asNumber", str(theirs)
            differ = f"{word} {ours}, not {theirs}"
            reason = f"{first.by} already peers with {{}}, {differ}, and there can be one session an address"
            return _Overlap(second.by, field, value, reason, remedy)
    for name, (field, attribute) in _SETTINGS.items():
        if getattr(first.peer, name) != getattr(second.peer, name):
            reason = f"{first.by} already peers with {{}}, and its {field} holds"
            return _Overlap(second.by, f"spec.{field}", _spelled(getattr(second.spec, attribute)), reason, remedy)
    return None


def _spelled(value: object) -> object:
    if isinstance(value, BGPPassword):
        return f"Secret {value.secret_key_ref.name}, key {value.secret_key_ref.key}"
    return value


def _in_the_mesh(first: Peering, mesh: Peer) -> _Overlap:
    field, value = first.target
    lost = [word for word, differs in (
        (f"AS {mesh.as_number}", first.peer.as_number != mesh.as_number),
        (f"port {mesh.port}", first.peer.port != mesh.port),
        ("nodeMeshPassword", first.peer.password != mesh.password),
        ("nodeMeshMaxRestartTime", first.peer.restart_time_s != mesh.restart_time_s),
    ) if differs]  # fmt: skip
    without = f" without the mesh's {', '.join(lost)}" if lost else ""
    reason = f"takes the place of the session that BGPConfiguration default has in its mesh with {{}}{without}"
    return _Overlap(first.by, field, value, reason, "delete it, or set nodeToNodeMeshEnabled to false")
