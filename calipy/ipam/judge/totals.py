"""Pools and blocks in numbers. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

from calipy.ipam.judge.values import Allocation, BlockTotals, PoolTotals
from calipy.ipam.judge.worlds import World


def of_pools(world: World, allocations: Iterable[Allocation]) -> tuple[PoolTotals, ...]:
    """Each pool's totals, by name."""
    allocations = list(allocations)
    allocated = Counter(a.pool for a in allocations)
    borrowed = Counter(a.pool for a in allocations if a.borrowed)
    blocks: Counter[str] = Counter()
    cooling: Counter[str] = Counter()
    taken_reserved: Counter[str] = Counter()
    for view in world.blocks:
        name = view.pool.metadata.name if view.pool else ""
        blocks[name] += 1
        cooling[name] += len(view.cooling)
        if any(n.version == view.network.version and n.overlaps(view.network) for n in world.reserved):
            taken_reserved[name] += sum(world.is_reserved(entry.address) for entry in (*view.held, *view.cooling))
    totals = []
    for pool in world.pools:
        name, network = pool.metadata.name, ipaddress.ip_network(pool.spec.cidr)
        reserved = sum(min(n.num_addresses, network.num_addresses) for n in world.reserved if _meet(n, network))
        free = network.num_addresses - allocated[name] - cooling[name] - (reserved - taken_reserved[name])
        total = PoolTotals(
            name=name,
            cidr=pool.spec.cidr,
            size=network.num_addresses,
            reserved=reserved,
            allocated=allocated[name],
            cooling=cooling[name],
            free=free,
            blocks=blocks[name],
            borrowed=borrowed[name],
        )
        totals.append(total)
    return tuple(totals)


def of_blocks(world: World, allocations: Iterable[Allocation]) -> tuple[BlockTotals, ...]:
    """Each block's totals, by address."""
    borrowed = Counter(a.block for a in allocations if a.borrowed)
    return tuple(
        BlockTotals(
            cidr=view.cidr,
            pool=view.pool.metadata.name if view.pool else "",
            owner=view.owner,
            size=view.network.num_addresses,
            allocated=len(view.held),
            cooling=len(view.cooling),
            free=view.network.num_addresses - len(view.entries),
            borrowed=borrowed[view.cidr],
        )
        for view in world.blocks
    )


def _meet(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network, other: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return one.version == other.version and one.overlaps(other)
