"""Before an IPPool is deleted: no new addresses from it, and its empty blocks given up, as Calico's client does.

Blocks in use stay claimed and routed; the agents give each up with its last address, since no pool selects them then.
"""

from __future__ import annotations

import ipaddress
import time

import msgspec

from calipy.datastore.stores import Conflict, Store
from calipy.ipam.block_writer import BlockWriter
from calipy.ipam.claiming import Claimer
from calipy.resources import block_affinities, ip_pools
from calipy.resources.block_affinities import BlockAffinity

_MOST_TRIES = 5


async def retire(store: Store, name: str) -> int:
    """Disables the pool and gives its empty blocks up; how many of its blocks are in use still. Raises NotFound,
    StoreError."""
    network = ipaddress.ip_network(await _disabled(store, name))
    claims = [
        stored.value
        async for page in store.list(block_affinities.KIND)
        for stored in page.items
        if _inside(stored.value, network)
    ]
    # Giving a block up asks whether it is empty; what has cooled since is the next allocator's affair.
    writer = BlockWriter(store, lambda block: block)
    in_use = 0
    for claim in claims:
        claimer = Claimer(store, claim.spec.node, writer, time.time)
        if not await claimer.give_up(claim.spec.cidr, only_empty=True):
            in_use += 1
    return in_use


async def _disabled(store: Store, name: str) -> str:
    """The pool's CIDR, once it gives out no more addresses."""
    for _ in range(_MOST_TRIES - 1):
        try:
            return await _disable(store, name)
        except Conflict:
            continue
    return await _disable(store, name)


async def _disable(store: Store, name: str) -> str:
    stored = await store.get(ip_pools.KIND, name)
    spec = msgspec.structs.replace(stored.value.spec, disabled=True)
    await store.update(ip_pools.KIND, stored, msgspec.structs.replace(stored.value, spec=spec))
    return stored.value.spec.cidr


def _inside(claim: BlockAffinity, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    block = ipaddress.ip_network(claim.spec.cidr, strict=False)
    return claim.spec.type != "virtual" and block.version == network.version and network.overlaps(block)
