"""Which pools and blocks may be used, in which order, and how a claim on a block goes from state to state. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal

from msgspec import structs

from calipy.ipam.errors import Unusable
from calipy.resources.block_affinities import BlockAffinity, BlockAffinitySpec, labels_of, name_of
from calipy.resources.ip_pools import IPPool, Use
from calipy.resources.ipam_configurations import DEFAULT_MAX_BLOCKS_PER_HOST
from calipy.resources.metadata import ObjectMeta
from calipy.resources.selectors import parse

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
State = Literal["none", "pending", "confirmed", "pendingDeletion"]
Next = Literal["pending", "confirmed", "pendingDeletion"]
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
    """The pools to draw from, by name. Explicit ones (names or CIDRs) count whatever their selectors and assignmentMode
    say, in the order asked for, but each must exist, be of the family and enabled. Raises Unusable."""
    mine = sorted((pool for pool in pools if pool.family == family), key=lambda pool: pool.metadata.name)
    if explicit:
        found = tuple(dict.fromkeys(_explicit(mine, family, asked).metadata.name for asked in explicit))
        chosen = tuple(pool for name in found for pool in mine if pool.metadata.name == name)
        unfit = {pool.metadata.name: _no_use(pool, use) for pool in chosen}
    else:
        chosen = tuple(mine)
        unfit = {pool.metadata.name: _unfit(pool, use, node_labels, namespace_labels or {}) for pool in mine}
    usable = tuple(pool for pool in chosen if not unfit[pool.metadata.name])
    if not usable:
        reasons = "; ".join(f"{name} {reason}" for name, reason in unfit.items()) or "there is none"
        raise Unusable(
            f"no IPv{family} pool can be used for {use} here ({reasons.replace(';', ',')}); create one, enable one, or "
            "mend its nodeSelector, namespaceSelector, assignmentMode or allowedUses"
        )
    return usable


def _unfit(pool: IPPool, use: Use, node_labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> str:
    """Why automatic assignment passes a pool over; empty if it doesn't. A missing namespace counts as one without
    labels."""
    spec = pool.spec
    if not pool.allocatable:
        return pool.hindrance
    if spec.assignment_mode != "Automatic":
        return "is for explicit requests only (assignmentMode Manual)"
    if not parse(spec.node_selector).matches(node_labels):
        return f"doesn't select this node (nodeSelector {spec.node_selector})"
    if not parse(spec.namespace_selector).matches(namespace_labels):
        return f"doesn't select the namespace (namespaceSelector {spec.namespace_selector})"
    return _no_use(pool, use)


def _no_use(pool: IPPool, use: Use) -> str:
    return "" if use in pool.spec.allowed_uses else f"allows {', '.join(pool.spec.allowed_uses)} only"


def _explicit(pools: Iterable[IPPool], family: int, asked: str) -> IPPool:
    for pool in pools:
        if asked in (pool.metadata.name, pool.spec.cidr):
            if not pool.allocatable:
                raise Unusable(f"pool {asked} {pool.hindrance}; mend it or ask for another one")
            return pool
    raise Unusable(f"there is no IPv{family} pool {asked}; create it or ask for another one")


def keeps(pool: IPPool | None, node_labels: Mapping[str, str]) -> bool:
    """True if a node with these labels may keep empty blocks of a pool: it exists, stays, and selects the node."""
    if pool is None or pool.metadata.deletion_timestamp:
        return False
    return parse(pool.spec.node_selector).matches(node_labels)


def pool_of(pools: Iterable[IPPool], cidr: str) -> IPPool | None:
    """The pool that a block or address lies in."""
    return next((pool for pool in pools if _lies_in(cidr, pool.spec.cidr)), None)


@lru_cache(maxsize=4096)
def _lies_in(cidr: str, outer: str) -> bool:
    network, around = _network(cidr), _network(outer)
    return network.version == around.version and network.subnet_of(around)  # type: ignore[arg-type]


def block_of(pool: IPPool, address: str) -> str:
    """The block (CIDR) of a pool that holds an address."""
    return str(ipaddress.ip_network(f"{address}/{pool.block_size}", strict=False))


def candidates(pool: IPPool, seed: str, reserved: Iterable[Network] = ()) -> Iterator[str]:
    """The blocks of a pool, from one that depends on `seed` on, and round; those wholly reserved are left out. Nodes
    that seed with their names seldom meet."""
    network, count, size = _shape(pool)
    wholly = sorted(
        (int(n.network_address), int(n.broadcast_address))
        for n in reserved
        if n.version == network.version and n.num_addresses >= size and n.overlaps(network)
    )
    base, first = int(network.network_address), _scatter(seed) % count
    make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    for low, high in ((first, count), (0, first)):
        index = low
        while index < high:
            start = base + index * size
            beyond = next((last + 1 for begin, last in wholly if begin <= start <= last), None)
            if beyond is not None:
                index = max(index + 1, (beyond - base) // size)
                continue
            yield f"{make(start)}/{pool.block_size}"
            index += 1


def distance(pool: IPPool, seed: str, cidr: str) -> int:
    """The place of a block among `candidates`."""
    network, count, size = _shape(pool)
    index = (int(ipaddress.ip_network(cidr).network_address) - int(network.network_address)) // size
    return (index - _scatter(seed)) % count


def _shape(pool: IPPool) -> tuple[Network, int, int]:
    """A pool's network, how many blocks it has, and their size."""
    network = _network(pool.spec.cidr)
    return network, 1 << max(0, pool.block_size - network.prefixlen), 1 << (network.max_prefixlen - pool.block_size)


@lru_cache(maxsize=1024)
def _network(cidr: str) -> Network:
    return ipaddress.ip_network(cidr)


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


def moved(affinity: BlockAffinity, state: Next) -> BlockAffinity:
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


def node_of(affinity: str | None) -> str:
    """The node that a block names as its owner; empty for nobody, or an owner that is no node."""
    kind, _, name = (affinity or "").partition(":")
    return name if kind == "host" else ""


def reserved_in(networks: Iterable[Network]) -> Callable[[str], bool] | None:
    """Tells whether an address is reserved; None where nothing is."""
    networks = tuple(networks)
    if not networks:
        return None

    def reserved(address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in networks)

    return reserved


def labelled(affinity: BlockAffinity) -> bool:
    """True if a claim has the labels by which Calico lists claims."""
    spec = affinity.spec
    return labels_of(spec.node, spec.cidr, spec.type or "host").items() <= affinity.metadata.labels.items()
