"""Blocks of a node: claimed, confirmed, given up. The only writer of BlockAffinities.

A claim is an affinity in state pending, then the block with that affinity, then the affinity confirmed: a crash between
any two leaves something that the next claim finishes or clears away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec import structs

from calipy.datastore.stores import Conflict, Exists, NotFound, Store, Stored
from calipy.ipam import blocks, claims
from calipy.ipam.block_writer import ATTEMPTS, BlockWriter
from calipy.ipam.claims import Network
from calipy.resources import block_affinities
from calipy.resources.block_affinities import BlockAffinity, labels_of
from calipy.resources.ip_pools import IPPool
from calipy.resources.ipam_blocks import IPAMBlock


class Claimer:
    """Claims and gives up blocks for one node."""

    def __init__(self, store: Store, node: str, writer: BlockWriter, now: Callable[[], float]) -> None:
        self._store = store
        self._node = node
        self._writer = writer
        self._now = now

    # --- taking ---

    async def claim_any(
        self, pools: Sequence[IPPool], taken: Collection[str], reserved: Sequence[Network]
    ) -> IPAMBlock | None:
        """A block of `pools` that was nobody's, or that another node doesn't use, now this node's; None where there is
        none. `taken` are those that somebody holds, as far as is known. Raises Conflict, StoreError."""
        for pool in pools:
            for cidr in claims.candidates(pool, self._seed(pool), reserved):
                if cidr not in taken:
                    block = await self.claim(cidr)
                    if block is not None:
                        return block
        return await self._steal(pools, reserved)

    def _seed(self, pool: IPPool) -> str:
        """Blocks of one address: a node has no use for starting where it did before, all of them are taken."""
        single = pool.block_size == (128 if pool.family == 6 else 32)
        return f"{self._node} {self._now()}" if single else self._node

    async def claim(self, cidr: str) -> IPAMBlock | None:
        """Claims one block; None where another node, or nobody with addresses in it, has it. Raises Conflict."""
        for _ in range(ATTEMPTS):
            try:
                return await self._try_to_claim(cidr)
            except (Conflict, Exists, NotFound):
                continue
        raise Conflict(f"the claim on block {cidr} was changed by others {ATTEMPTS} times in a row; try again")

    async def _try_to_claim(self, cidr: str) -> IPAMBlock | None:
        mine = claims.owner_of(self._node)
        affinity = await self._affinity(cidr)
        if affinity.value.confirmed:
            block = await self._writer.read(cidr)
            if block is not None and block.spec.affinity == mine:
                return block
            affinity = await self._move(affinity, "pending")
        block, made = await self._writer.claim(blocks.new_block(cidr, mine, self._now()))
        if block.spec.affinity != mine:
            await self._store.delete(block_affinities.KIND, affinity)
            return None
        if not made:
            # Whoever gives this block up at the same time must meet a conflict.
            block = await self._writer.edit(cidr, lambda found: (blocks.touched(found), found))
            if block.spec.affinity != mine:
                raise Conflict(f"block {cidr} was given up while it was claimed; try again")
        await self._move(affinity, "confirmed")
        return block

    async def _affinity(self, cidr: str) -> Stored[BlockAffinity]:
        """This node's claim, pending where it isn't confirmed."""
        try:
            return await self._store.create(block_affinities.KIND, claims.new_affinity(self._node, cidr))
        except Exists:
            name = block_affinities.name_of(self._node, cidr)
            stored = await self._store.get(block_affinities.KIND, name)
            if stored.value.spec.deleted:
                await self._store.delete(block_affinities.KIND, stored)
                return await self._store.create(block_affinities.KIND, claims.new_affinity(self._node, cidr))
            if stored.value.confirmed or stored.value.spec.state == "pending":
                return stored
            return await self._move(stored, "pending")

    async def settle(self, affinity: BlockAffinity) -> IPAMBlock | None:
        """Finishes what a claim of this node that isn't confirmed began, or clears it away; the block if it is ours."""
        cidr = affinity.spec.cidr
        if affinity.spec.state != "pendingDeletion":
            return await self.claim(cidr)
        return None if await self.give_up(cidr, only_empty=True) else await self.claim(cidr)

    async def _steal(self, pools: Sequence[IPPool], reserved: Sequence[Network]) -> IPAMBlock | None:
        """An empty block that another node claimed a while ago and does not use."""
        idle = [block async for block in self._writer.all() if self._idle(block) and not _wholly(block, reserved)]
        for pool in pools:
            for block in sorted(
                (block for block in idle if claims.pool_of([pool], block.spec.cidr)),
                key=lambda block: claims.distance(pool, self._node, block.spec.cidr),
            ):
                spec = block.spec
                owner, number = claims.node_of(spec.affinity), spec.sequence_number
                if await self.give_up(spec.cidr, only_empty=True, node=owner, sequence=number):
                    claimed = await self.claim(spec.cidr)
                    if claimed is not None:
                        return claimed
        return None

    def _idle(self, block: IPAMBlock) -> bool:
        owner, since = claims.node_of(block.spec.affinity), block.spec.affinity_claim_time
        if owner in ("", self._node) or not self._writer.is_empty(block):
            return False
        return since is None or self._now() - blocks.from_rfc3339(since) >= claims.STEAL_AFTER_S

    # --- giving up ---

    async def give_up(
        self, cidr: str, *, only_empty: bool = False, node: str = "", sequence: int | None = None
    ) -> bool:
        """Ends a node's claim (this node's if none is named): the block is deleted if it is empty, else it becomes
        nobody's. With `only_empty` a block in use stays, and with `sequence` one that was written since; False then, or
        where somebody else changes the claim at the same time."""
        node = node or self._node
        owner = claims.owner_of(node)

        def fit(block: IPAMBlock) -> bool:
            unchanged = sequence in (None, block.spec.sequence_number)
            return block.spec.affinity == owner and unchanged and self._writer.is_empty(block)

        block = await self._writer.read(cidr)
        if block is not None and block.spec.affinity == owner and only_empty and not fit(block):
            return False
        try:
            stored = await self._leave(node, cidr)
            if block is not None and block.spec.affinity == owner and not await self._writer.delete_if(cidr, fit):
                if only_empty:
                    await self._stay(stored, cidr, owner)
                    return False
                await self._writer.edit(cidr, lambda found: (_orphaned(found, owner), None))
            if stored is not None:
                await self._store.delete(block_affinities.KIND, stored)
        except Conflict:
            return False
        except NotFound:
            pass
        return True

    async def _leave(self, node: str, cidr: str) -> Stored[BlockAffinity] | None:
        """The claim in state pendingDeletion: from here on it counts as not owned."""
        try:
            stored = await self._store.get(block_affinities.KIND, block_affinities.name_of(node, cidr))
        except NotFound:
            return None
        if stored.value.spec.state == "pendingDeletion":
            return stored
        return await self._move(stored, "pendingDeletion")

    async def _stay(self, stored: Stored[BlockAffinity] | None, cidr: str, owner: str) -> None:
        """An address was given out in the meantime: the claim is as it was, if the block is still its owner's."""
        block = await self._writer.read(cidr)
        if stored is not None and block is not None and block.spec.affinity == owner:
            await self._move(await self._move(stored, "pending"), "confirmed")

    async def label(self, affinity: BlockAffinity) -> None:
        """Gives a claim of an older version the labels by which Calico lists claims. Raises StoreError."""
        for _ in range(ATTEMPTS):
            try:
                stored = await self._store.get(block_affinities.KIND, affinity.metadata.name)
                spec, meta = stored.value.spec, stored.value.metadata
                labels = {**meta.labels, **labels_of(spec.node, spec.cidr, spec.type or "host")}
                new = structs.replace(stored.value, metadata=structs.replace(meta, labels=labels))
                await self._store.update(block_affinities.KIND, stored, new)
                return
            except Conflict:
                continue
            except NotFound:
                return

    async def _move(self, stored: Stored[BlockAffinity], state: claims.Next) -> Stored[BlockAffinity]:
        return await self._store.update(block_affinities.KIND, stored, claims.moved(stored.value, state))


def _wholly(block: IPAMBlock, reserved: Iterable[Network]) -> bool:
    """True if all its addresses are reserved."""
    return not blocks.has_room(block, claims.reserved_in(reserved))


def _orphaned(block: IPAMBlock, owner: str) -> IPAMBlock:
    return blocks.without_affinity(block) if block.spec.affinity == owner else block
