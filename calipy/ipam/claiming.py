"""Blocks of a node: claimed, confirmed, given up. The only writer of BlockAffinities.

A claim is an affinity in state pending, then the block with that affinity, then the affinity confirmed: a crash between
any two leaves something that the next claim finishes or clears away.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.ipam import blocks, claims
from calipy.ipam.block_writer import ATTEMPTS, BlockWriter
from calipy.resources import block_affinities, ipam_blocks
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool
from calipy.resources.ipam_blocks import IPAMBlock


class Claimer:
    """Claims and gives up blocks for one node."""

    def __init__(self, store: Store, node: str, writer: BlockWriter, now: Callable[[], float]) -> None:
        self._store = store
        self._node = node
        self._writer = writer
        self._now = now

    async def claim_any(self, pools: Sequence[IPPool], taken: Callable[[str], bool]) -> IPAMBlock | None:
        """A block of `pools` that was nobody's, now this node's; None where there is none. `taken` knows, perhaps with
        delay, which ones somebody holds."""
        for pool in pools:
            for cidr in claims.candidates(pool, self._node):
                if not taken(cidr):
                    block = await self.claim(cidr)
                    if block is not None:
                        return block
        return await self._steal(pools)

    async def claim(self, cidr: str) -> IPAMBlock | None:
        """Claims one block; None where another node, or nobody with addresses in it, has it."""
        affinity = await self._pending(cidr)
        mine = claims.owner_of(self._node)
        block = await self._writer.claim(blocks.new_block(cidr, mine, self._now()))
        if block.spec.affinity != mine:
            await self._drop(affinity)
            return None
        await self._confirm(affinity)
        return block

    async def settle(self, affinity: BlockAffinity) -> IPAMBlock | None:
        """Finishes what a claim of this node that isn't confirmed began, or clears it away; the block if it is ours."""
        cidr = affinity.spec.cidr
        if affinity.spec.state != "pendingDeletion":
            return await self.claim(cidr)
        await self.give_up(cidr)
        return None

    async def give_up(self, cidr: str, *, only_empty: bool = False, node: str = "") -> bool:
        """Ends a node's claim (this node's if none is named): the block is deleted if it is empty, else it becomes
        nobody's. With `only_empty` a block in use stays; False then."""
        owner = claims.owner_of(node or self._node)
        block = await self._writer.read(cidr)
        if only_empty and block is not None and not blocks.is_empty(block):
            return False
        stored = await self._read(node or self._node, cidr)
        if stored is not None and stored.value.spec.state != "pendingDeletion":
            stored = await self._move(stored, "pendingDeletion")
        if block is not None and block.spec.affinity == owner:
            gone = await self._writer.delete_if(
                cidr, lambda found: found.spec.affinity == owner and blocks.is_empty(found)
            )
            if not gone:
                if only_empty:
                    if stored is not None:
                        await self._move(await self._move(stored, "pending"), "confirmed")
                    return False
                await self._writer.edit(cidr, lambda found: (_orphaned(found, owner), None))
        if stored is not None:
            await self._drop(stored)
        return True

    async def _steal(self, pools: Iterable[IPPool]) -> IPAMBlock | None:
        """An empty block that another node claimed a while ago and does not use."""
        async for page in self._store.list(ipam_blocks.KIND):
            for item in page.items:
                spec = item.value.spec
                other = (spec.affinity or "").removeprefix("host:")
                if not other or other == self._node or claims.pool_of(pools, spec.cidr) is None:
                    continue
                idle = blocks.is_empty(item.value) and self._old(spec.affinity_claim_time)
                if idle and await self.give_up(spec.cidr, only_empty=True, node=other):
                    block = await self.claim(spec.cidr)
                    if block is not None:
                        return block
        return None

    def _old(self, claimed: str | None) -> bool:
        if claimed is None:
            return True
        since = datetime.datetime.fromisoformat(claimed.replace("Z", "+00:00")).timestamp()
        return self._now() - since >= claims.STEAL_AFTER_S

    async def _read(self, node: str, cidr: str) -> Stored[BlockAffinity] | None:
        try:
            return await self._store.get(block_affinities.KIND, block_affinities.name_of(node, cidr))
        except NotFound:
            return None

    async def _pending(self, cidr: str) -> Stored[BlockAffinity]:
        try:
            return await self._store.create(block_affinities.KIND, claims.new_affinity(self._node, cidr))
        except Exists:
            stored = await self._read(self._node, cidr)
            if stored is None:
                return await self._store.create(block_affinities.KIND, claims.new_affinity(self._node, cidr))
            return stored if stored.value.spec.state == "pending" else await self._move(stored, "pending")

    async def _confirm(self, affinity: Stored[BlockAffinity]) -> None:
        """A claim that somebody else changed meanwhile is looked at anew: only a deletion makes it fail."""
        for _ in range(ATTEMPTS):
            try:
                confirmed = claims.moved(affinity.value, "confirmed")
                await self._store.update(block_affinities.KIND, affinity, confirmed)
                return
            except Conflict:
                found = await self._read(self._node, affinity.value.spec.cidr)
                if found is None:
                    raise
                if found.value.spec.state == "confirmed":
                    return
                affinity = found
        raise Conflict(f"claim {affinity.key} was changed by others {ATTEMPTS} times in a row; try again")

    async def _move(self, stored: Stored[BlockAffinity], state: str) -> Stored[BlockAffinity]:
        new = claims.moved(stored.value, state)  # type: ignore[arg-type]
        return await self._store.update(block_affinities.KIND, stored, new)

    async def _drop(self, stored: Stored[BlockAffinity]) -> None:
        try:
            await self._store.delete(block_affinities.KIND, stored)
        except NotFound:
            return


def _orphaned(block: IPAMBlock, owner: str) -> IPAMBlock:
    return blocks.without_affinity(block) if block.spec.affinity == owner else block
