"""A snapshot made easy to ask: who has which block, pod, node; where findings are put. Pure."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from calipy.ipam.blocks import from_rfc3339
from calipy.ipam.claims import node_of, pool_of
from calipy.ipam.judge.values import Finding, Severity, Snapshot, What
from calipy.resources import block_affinities, ip_pools, ipam_blocks, ipam_handles
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ipam_blocks import AllocationAttribute, IPAMBlock
from calipy.resources.ipam_handles import IPAMHandle
from calipy.resources.metadata import Key

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Entry(Struct, frozen=True, gc=False):
    """One ordinal that isn't free."""

    ordinal: int
    address: str
    attribute: AllocationAttribute | None
    """None where the block points at an attribute that isn't there or can't be read."""
    index: int


class BlockView(Struct, frozen=True, gc=False, kw_only=True):
    """A block with what is derived from it."""

    block: IPAMBlock
    key: Key
    network: Network
    pool: IPPool | None
    owner: str
    """The node whose it is; empty for none, or one that isn't a host."""
    entries: tuple[Entry, ...]

    @property
    def cidr(self) -> str:
        """Its CIDR, as it stands in the object."""
        return self.block.spec.cidr

    @property
    def held(self) -> tuple[Entry, ...]:
        """The entries that somebody holds."""
        return tuple(entry for entry in self.entries if entry.attribute and entry.attribute.released_at is None)

    @property
    def cooling(self) -> tuple[Entry, ...]:
        """The entries that cool down."""
        return tuple(entry for entry in self.entries if entry.attribute and entry.attribute.released_at is not None)


class World:
    """A snapshot with its indices. Objects that are deleted softly (`deleted: true`) count as absent."""

    def __init__(self, snapshot: Snapshot, now_s: float) -> None:
        self.snapshot = snapshot
        self.now_s = now_s
        self.masked = sorted((p for p in snapshot.pools if masked(p.spec.cidr)), key=lambda pool: pool.metadata.name)
        overlapping = ip_pools.overlaps(self.masked)
        self.pools = [pool for pool in self.masked if pool.metadata.name not in overlapping]
        self.nodes = {node.metadata.name: node for node in snapshot.nodes}
        self.pods = {(pod.metadata.namespace, pod.metadata.name): pod for pod in snapshot.pods}
        self.unreadable: list[IPAMBlock] = []
        self.blocks = tuple(sorted(self._views(), key=lambda view: (view.network.version, view.network)))
        self.affinities: dict[str, list[BlockAffinity]] = defaultdict(list)
        for affinity in snapshot.affinities:
            if not affinity.spec.deleted:
                self.affinities[affinity.spec.cidr].append(affinity)
        self.reserved = tuple(_reserved(snapshot))

    def _views(self) -> Iterator[BlockView]:
        for block in self.snapshot.blocks:
            if block.spec.deleted:
                continue
            if not masked(block.spec.cidr):
                self.unreadable.append(block)
                continue
            network = ipaddress.ip_network(block.spec.cidr)
            yield BlockView(
                block=block,
                key=block_key(block),
                network=network,
                pool=pool_of(self.pools, block.spec.cidr),
                owner=node_of(block.spec.affinity),
                entries=tuple(_entries(block, network)),
            )

    def is_reserved(self, address: str) -> bool:
        """True if a reservation covers it."""
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self.reserved)

    def old(self, moment: str | None, seconds: float) -> bool:
        """True if an RFC 3339 time lies so far back; also where there is none."""
        return moment is None or self.now_s - from_rfc3339(moment) >= seconds


class Findings:
    """Where findings are put. Those about objects that were changing while they were read are dropped."""

    def __init__(self, moving: frozenset[Key]) -> None:
        self._moving = moving
        self.found: list[Finding] = []

    def add(
        self, what: What, severity: Severity, keys: Iterable[Key], words: str, remedy: str, address: str = ""
    ) -> None:
        """`keys`: all objects that it was concluded from; the first is the one that it was seen in."""
        keys = tuple(keys)
        if self._moving.isdisjoint(keys):
            found = Finding(
                what=what, severity=severity, object=str(keys[0]), address=address, words=words, remedy=remedy
            )
            self.found.append(found)


def masked(cidr: str) -> bool:
    """True if it is a CIDR without bits behind its prefix."""
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        return False
    return True


def block_key(block: IPAMBlock) -> Key:
    """The store's key of a block."""
    return Key(ipam_blocks.KIND.name, block.metadata.name)


def affinity_key(affinity: BlockAffinity) -> Key:
    """The store's key of a claim."""
    return Key(block_affinities.KIND.name, affinity.metadata.name)


def handle_key(handle: IPAMHandle | str) -> Key:
    """The store's key of a handle, or of a handle ID."""
    return Key(ipam_handles.KIND.name, handle.lower() if isinstance(handle, str) else handle.metadata.name)


def _entries(block: IPAMBlock, network: Network) -> Iterator[Entry]:
    base, size = int(network.network_address), network.num_addresses
    make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    attributes = [_attribute(raw) for raw in block.spec.attributes]
    for ordinal, index in enumerate(block.spec.allocations[:size]):
        if index is not None:
            attribute = attributes[index] if 0 <= index < len(attributes) else None
            yield Entry(ordinal, str(make(base + ordinal)), attribute, index)


def _attribute(raw: msgspec.Raw) -> AllocationAttribute | None:
    try:
        return msgspec.json.decode(raw, type=AllocationAttribute)
    except msgspec.DecodeError:
        return None


def _reserved(snapshot: Snapshot) -> Iterator[Network]:
    found: dict[int, list[Network]] = {4: [], 6: []}
    for reservation in snapshot.reservations:
        for text in reservation.spec.reserved_cidrs:
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError:
                continue
            found[network.version].append(network)
    for networks in found.values():
        yield from ipaddress.collapse_addresses(networks)  # type: ignore[type-var]
