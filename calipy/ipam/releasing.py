"""Addresses taken back: by their handle, by themselves, and what becomes of blocks that are empty then."""

from __future__ import annotations

import ipaddress

from calipy.datastore.stores import Conflict, NotFound
from calipy.ipam import blocks, claims
from calipy.ipam.block_writer import ATTEMPTS
from calipy.ipam.drawing import Site
from calipy.ipam.handle_writer import HandleWriter
from calipy.resources.ipam_blocks import IPAMBlock


class Releases:
    """Takes addresses back, for one node."""

    def __init__(self, site: Site, handles: HandleWriter) -> None:
        self._site = site
        self._handles = handles

    async def by_handle(self, handle: str) -> tuple[str, ...]:
        """All of a handle's addresses."""
        released: list[str] = []
        known = await self._handles.get(handle)
        for _ in range(ATTEMPTS):
            if known is None:
                return tuple(released)
            for cidr in known.spec.block:
                released += await self._in_block(cidr, handle)
            known = await self._handles.subtract(handle, known.spec.block)
        raise Conflict(f"handle {handle} got new addresses {ATTEMPTS} times while it was released; try again")

    async def by_address(self, address: str, handle: str | None, sequence: int | None) -> bool:
        """One address; False where nobody holds it. Raises Mismatch."""
        cidr = await self._block_of(address)
        if cidr is None:
            return False
        cooldown = self._site.inputs.configuration().spec.ip_cooldown_seconds

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, tuple[bool, str | None]]:
            held = blocks.holding_at(block, blocks.ordinal_of(block, address))
            after = blocks.release_address(block, address, self._site.now(), cooldown, handle, sequence)
            return after, (held is not None, held.handle if held else None)

        try:
            was_held, holder = await self._site.writer.edit(cidr, edit)
        except NotFound:
            return False
        if holder:
            await self._handles.subtract(holder, {cidr: 1})
        if was_held:
            await self._tidy(cidr)
        return was_held

    async def _block_of(self, address: str) -> str | None:
        """The block that holds an address: by its pool's block size, or, where there is no such pool or block (any
        more), by looking at all blocks."""
        parsed = ipaddress.ip_address(address)
        pool = claims.pool_of(self._site.inputs.pools(), f"{parsed}/{parsed.max_prefixlen}")
        if pool is not None:
            cidr = claims.block_of(pool, str(parsed))
            if self._site.writer.known(cidr) or await self._site.writer.read(cidr):
                return cidr
        async for block in self._site.writer.all():
            if parsed in ipaddress.ip_network(block.spec.cidr):
                return block.spec.cidr
        return None

    async def _in_block(self, cidr: str, handle: str) -> tuple[str, ...]:
        cooldown = self._site.inputs.configuration().spec.ip_cooldown_seconds

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, tuple[str, ...]]:
            mine = list(blocks.holdings(block, handle))
            after = blocks.release(block, [holding.ordinal for holding in mine], self._site.now(), cooldown)
            return after, tuple(holding.address for holding in mine)

        try:
            released = await self._site.writer.edit(cidr, edit)
        except NotFound:
            return ()
        await self._tidy(cidr)
        return released

    async def _tidy(self, cidr: str) -> None:
        """An empty block that is nobody's is deleted; one that this node may not keep is given up."""
        site, block = self._site, self._site.writer.known(cidr)
        if block is None or not site.writer.is_empty(block):
            return
        if block.spec.affinity is None:
            await site.writer.delete_if(cidr, lambda found: found.spec.affinity is None and site.writer.is_empty(found))
            return
        if block.spec.affinity != claims.owner_of(site.node):
            return
        pool = claims.pool_of(site.inputs.pools(), cidr)
        if not claims.keeps(pool, site.inputs.node_labels()) and await site.claimer.give_up(cidr, only_empty=True):
            site.own.lost(cidr)
