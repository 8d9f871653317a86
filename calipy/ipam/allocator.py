"""The allocator: gives addresses to handles and takes them back, for one node.

In steady state an address costs two writes and no read: the handle's object, and one write of the block that it shares
with all requests that wait at the same time. Pools, reservations, configuration and claims come from a mirror; what the
mirror doesn't know yet costs a conflict and no more.

An error that leaves open whether something was written (the store went away, the caller was cancelled) leaves the
handle counting it: releasing the handle sets everything right, whatever happened.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping

from calipy.datastore.stores import Conflict, NotFound, Store, StoreError
from calipy.ipam import blocks, claims
from calipy.ipam.drawing import Drawing, Site, own_work
from calipy.ipam.errors import IPAMError, NotOurs, Unusable
from calipy.ipam.handle_writer import Account, HandleWriter
from calipy.ipam.needs import Assigned, Inputs, Request
from calipy.ipam.releasing import Releases
from calipy.resources.ip_pools import IPPool, Use
from calipy.resources.ipam_blocks import IPAMBlock

log = logging.getLogger("calipy.ipam")
__all__ = ["Allocator", "Assigned", "Inputs", "Request"]


class Allocator:
    """Addresses for one node."""

    def __init__(self, store: Store, node: str, inputs: Inputs, now: Callable[[], float]) -> None:
        """`now` gives seconds since 1970."""
        self._site = Site(store, node, inputs, now)
        self.writer = self._site.writer
        self._handles = HandleWriter(store)
        self._releases = Releases(self._site, self._handles)

    # --- giving out ---

    async def assign(self, request: Request) -> tuple[Assigned, ...]:
        """Addresses of each family asked for, IPv4 first. Raises IPAMError or StoreError, having given nothing."""
        account = Account(self._handles, request.handle)
        drawings = [Drawing(self._site, request, family, account) for family in sorted(request.families)]
        plan: dict[str, int] = {}
        for drawing in drawings:
            plan |= drawing.plan()
        try:
            await account.cover(plan)
            for drawing in drawings:
                await drawing.run()
        except BaseException:
            for drawing in drawings:
                await self._take_back(request.handle, drawing)
            raise
        finally:
            await account.close()
        return tuple(assigned for drawing in drawings for assigned in drawing.given)

    async def assign_address(
        self, address: str, handle: str, attributes: Mapping[str, str], use: Use = "Workload"
    ) -> Assigned:
        """One certain address, reserved ones too. Raises Unusable, AlreadyAssigned, NotOurs, StoreError."""
        address = str(ipaddress.ip_address(address))
        pool = self._pool_for(address, use)
        cidr = claims.block_of(pool, address)
        await self._ensure_block(cidr)
        strict = self._site.inputs.configuration().spec.strict_affinity
        mine = claims.owner_of(self._site.node)
        request = Request(handle=handle, attributes=attributes, families={})

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, None]:
            if strict and block.spec.affinity != mine:
                raise NotOurs(
                    f"address {address} lies in block {cidr} of {block.spec.affinity or 'nobody'}, and strictAffinity "
                    f"forbids node {self._site.node} to borrow it; choose another address, or move the pod there"
                )
            if address in own_work(block, request):
                return block, None
            return blocks.allocate_address(block, address, handle, attributes), None

        account = Account(self._handles, handle)
        try:
            await account.cover({cidr: 1})
            await self.writer.edit(cidr, edit)
            account.used(cidr, 1)
        except (IPAMError, NotFound, Conflict):
            raise
        except BaseException:
            account.forsake(cidr)
            raise
        finally:
            await account.close()
        return Assigned(address, cidr)

    def _pool_for(self, address: str, use: Use) -> IPPool:
        width = "128" if ":" in address else "32"
        pool = claims.pool_of(self._site.inputs.pools(), f"{address}/{width}")
        if pool is None:
            raise Unusable(f"address {address} lies in no pool; choose another, or create a pool that covers it")
        name = pool.metadata.name
        if not pool.allocatable:
            raise Unusable(f"address {address} lies in pool {name}, which is disabled or going; choose another one")
        if use not in pool.spec.allowed_uses:
            raise Unusable(f"address {address} lies in pool {name}, which isn't for {use}; see its allowedUses")
        return pool

    async def _ensure_block(self, cidr: str) -> None:
        """A block that nobody has is claimed for this node."""
        if (self.writer.known(cidr) or await self.writer.read(cidr)) is None:
            claimed = await self._site.claimer.claim(cidr)
            if claimed is not None:
                self._site.own.gained(cidr)

    # --- taking back ---

    async def release(self, handle: str) -> tuple[str, ...]:
        """Takes all of a handle's addresses back and names them; nothing where it has none."""
        return await self._releases.by_handle(handle)

    async def release_address(self, address: str, handle: str | None = None, sequence: int | None = None) -> bool:
        """Takes one address back; False where nobody holds it. Raises Mismatch where it isn't the handle's, or was
        given out anew since `sequence`."""
        return await self._releases.by_address(str(ipaddress.ip_address(address)), handle, sequence)

    async def addresses_of(self, handle: str) -> tuple[str, ...]:
        """A handle's addresses, as the store has them, IPv4 first."""
        stored = await self._handles.read(handle)
        found: list[str] = []
        for cidr in stored.spec.block if stored is not None else ():
            block = await self.writer.read(cidr)
            if block is not None:
                found += [holding.address for holding in blocks.holdings(block, handle)]
        return tuple(sorted(found, key=lambda address: ":" in address))

    async def adopt(self) -> None:
        """Puts this node's blocks in order, at start and whenever pools or the node's labels have changed; the mirror
        is in sync by then. Half-made claims are finished or cleared away, empty blocks that the node may not keep are
        given up, and claims get the labels that older versions didn't write. Raises StoreError."""
        for family, lock in self._site.claiming.items():
            async with lock:
                await self._site.settle(family)
        for affinity in self._site.own.unlabelled():
            await self._site.claimer.label(affinity)

    async def _take_back(self, handle: str, drawing: Drawing) -> None:
        """Undoes a half success."""
        for assigned in drawing.given:
            try:
                await self.release_address(assigned.address, handle)
            except (IPAMError, StoreError) as error:
                log.warning("%s stays with handle %s until its release: %s", assigned.address, handle, error)
