"""Which pools and blocks may be used, in which order, and how a claim on a block goes from state to state. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec import structs

from calipy.ipam.errors import Unusable
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec, labels_of, name_of
from calipy.resources.ip_pools import IPPool, Use
from calipy.resources.ipam_configurations import DEFAULT_MAX_BLOCKS_PER_HOST
from calipy.resources.metadata import ObjectMeta
from calipy.resources.selectors import parse

State = Literal["none", "pending", "confirmed", "pendingDeletion"]
TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        ("none", "pending"),
        ("pending", "pending"),
        ("pending", "confirmed"),
        ("pending", "none"),
        ("pending", "pendingDeletion"),
        ("confirmed", "pending"),
        ("confirmed", "pendingDeletion"),
        ("pendingDeletion", "none"),
        ("pendingDeletion", "pending"),
    }
)
"""How a claim may go on. Pending and pendingDeletion count as not owned."""
STEAL_AFTER_S = 60.0
"""An empty block of another node may be taken so long after that node claimed it."""


def usable_pools(
    pools: Iterable[IPPool],
    family: int,
    use: Use,
    explicit: tuple[str, ...],
    node_labels: Mapping[str, str],
    namespace_labels: Mapping[str, str] | None,
) -> tuple[IPPool, ...]:
    """The pools to draw from, by name. Explicit ones (names or CIDRs) count whatever their selectors say, but each must
    exist, be of the family and enabled. Raises Unusable."""
    mine = sorted((pool for pool in pools if pool.family == family), key=lambda pool: pool.metadata.name)
    if explicit:
        found = tuple(_explicit(mine, family, asked) for asked in explicit)
    else:
        found = tuple(
            pool
            for pool in mine
            if pool.allocatable
            and pool.spec.assignment_mode == "Automatic"
            and parse(pool.spec.node_selector).matches(node_labels)
            and parse(pool.spec.namespace_selector).matches(namespace_labels or {})
        )
    chosen = tuple(pool for pool in found if use in pool.spec.allowed_uses)
    if not chosen:
        names = ", ".join(pool.metadata.name for pool in mine) or "there is none"
        raise Unusable(
            f"no IPv{family} pool can be used for {use} here (pools: {names}); create one, enable one, or mend its "
            "nodeSelector, namespaceSelector and allowedUses"
        )
    return chosen


def _explicit(pools: Iterable[IPPool], family: int, asked: str) -> IPPool:
    for pool in pools:
        if asked in (pool.metadata.name, pool.spec.cidr):
            if not pool.allocatable:
                raise Unusable(f"pool {asked} {pool.hindrance}; mend it or ask for another one")
            return pool
    raise Unusable(f"there is no IPv{family} pool {asked}; create it or ask for another one")


def selects(pool: IPPool, node_labels: Mapping[str, str]) -> bool:
    """True if the pool's nodeSelector picks a node with these labels."""
    return parse(pool.spec.node_selector).matches(node_labels)


def pool_of(pools: Iterable[IPPool], cidr: str) -> IPPool | None:
    """The pool that a block or address lies in."""
    network = ipaddress.ip_network(cidr)
    for pool in pools:
        outer = ipaddress.ip_network(pool.spec.cidr)
        if outer.version == network.version and network.subnet_of(outer):  # type: ignore[arg-type]
            return pool
    return None


def block_of(pool: IPPool, address: str) -> str:
    """The block (CIDR) of a pool that holds an address."""
    return str(ipaddress.ip_network(f"{address}/{pool.block_size}", strict=False))


def candidates(pool: IPPool, node: str) -> Iterator[str]:
    """All blocks of a pool, from one that depends on the node's name on, and round: so nodes seldom meet."""
    network = ipaddress.ip_network(pool.spec.cidr)
    count = 1 << max(0, pool.block_size - network.prefixlen)
    size = 1 << (network.max_prefixlen - pool.block_size)
    first = _scatter(node) % count
    base = int(network.network_address)
    make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    for step in range(count):
        yield f"{make(base + ((first + step) % count) * size)}/{pool.block_size}"


def _scatter(text: str) -> int:
    """FNV-1, 32 bits, then stirred so that names that differ in their last letter lie far apart."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value * 0x01000193) & 0xFFFFFFFF
        value ^= byte
    value ^= value >> 16
    value = (value * 0x85EBCA6B) & 0xFFFFFFFF
    return value ^ (value >> 13)


def block_limit(configured: int, requested: int) -> int:
    """How many blocks of a family a node may hold; 0 stands for no say."""
    return min((limit for limit in (configured, requested) if limit > 0), default=DEFAULT_MAX_BLOCKS_PER_HOST)


def new_affinity(node: str, cidr: str) -> BlockAffinity:
    """A claim that is made before the block is."""
    return BlockAffinity(
        metadata=ObjectMeta(name=name_of(node, cidr), labels=labels_of(node, cidr)),
        spec=BlockAffinitySpec(cidr=cidr, node=node, state="pending"),
    )


def moved(affinity: BlockAffinity, state: Literal["pending", "confirmed", "pendingDeletion"]) -> BlockAffinity:
    """The claim in its next state. Raises ValueError for a step that the table doesn't have."""
    before: State = affinity.spec.state or "confirmed"
    if (before, state) not in TRANSITIONS:
        raise ValueError(f"claim {affinity.metadata.name} can't go from {before} to {state}")
    labels = {**affinity.metadata.labels, **labels_of(affinity.spec.node, affinity.spec.cidr)}
    return structs.replace(
        affinity,
        metadata=structs.replace(affinity.metadata, labels=labels),
        spec=structs.replace(affinity.spec, state=state),
    )


def owner_of(node: str) -> str:
    """How a block names the node that holds it."""
    return f"host:{node}"
