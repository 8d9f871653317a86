"""The allocator: gives addresses to handles and takes them back, for one node.

In steady state an address costs two writes: the handle's object, and one write of the block that it shares with all
requests that wait at the same time. Pools, reservations, configuration and claims come from a mirror; what the mirror
doesn't know yet costs a conflict and no more.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from calipy.datastore.stores import NotFound, Store
from calipy.ipam import blocks, claims
from calipy.ipam.block_writer import BlockWriter
from calipy.ipam.claiming import Claimer
from calipy.ipam.errors import BlockLimit, Exhausted, IPAMError, Unusable
from calipy.ipam.handle_writer import HandleWriter
from calipy.resources.block_affinities import BlockAffinity
from calipy.resources.ip_pools import IPPool, Use
from calipy.resources.ip_reservations import IPReservation
from calipy.resources.ipam_blocks import IPAMBlock
from calipy.resources.ipam_configurations import IPAMConfiguration


class Inputs(Protocol):
    """What the allocator reads without asking the store."""

    def pools(self) -> Sequence[IPPool]:
        """All pools."""
        ...

    def reservations(self) -> Sequence[IPReservation]:
        """All reservations."""
        ...

    def configuration(self) -> IPAMConfiguration:
        """IPAMConfiguration `default`, or the built-in one."""
        ...

    def node_labels(self) -> Mapping[str, str]:
        """This node's labels."""
        ...

    def affinities(self) -> Sequence[BlockAffinity]:
        """All nodes' claims."""
        ...


class Request(Struct, frozen=True, gc=False, kw_only=True):
    """Addresses for one handle: so many of each family, all or none."""

    handle: str
    attributes: Mapping[str, str]
    families: Mapping[int, int]
    """Family -> how many."""
    pools: Mapping[int, tuple[str, ...]] = {}
    """Family -> names or CIDRs of the pools to draw from; a family that isn't there draws from any."""
    namespace_labels: Mapping[str, str] | None = None
    use: Use = "Workload"


class Assigned(Struct, frozen=True, gc=False, order=True):
    """An address that was given out."""

    address: str
    block: str
    """CIDR of its block."""


class Allocator:
    """Addresses for one node."""

    def __init__(self, store: Store, node: str, inputs: Inputs, now: Callable[[], float]) -> None:
        self._node = node
        self._inputs = inputs
        self._now = now
        self.writer = BlockWriter(store)
        self._handles = HandleWriter(store)
        self._claimer = Claimer(store, node, self.writer, now)
        self._claiming = {4: asyncio.Lock(), 6: asyncio.Lock()}
        self._claimed: set[str] = set()
        self._given_up: set[str] = set()

    # --- giving out ---

    async def assign(self, request: Request) -> tuple[Assigned, ...]:
        """Addresses of each family asked for, IPv4 first. Raises IPAMError or StoreError, having given nothing."""
        given: list[Assigned] = []
        try:
            for family in sorted(request.families):
                given += await self._assign_family(request, family, request.families[family])
        except BaseException:
            await self._take_back(request.handle, given)
            raise
        return tuple(given)

    async def assign_address(
        self, address: str, handle: str, attributes: Mapping[str, str], use: Use = "Workload"
    ) -> Assigned:
        """One certain address, reserved ones too. Raises Unusable, AlreadyAssigned, StoreError."""
        width = "128" if ":" in address else "32"
        pool = claims.pool_of(self._inputs.pools(), f"{address}/{width}")
        if pool is None or not pool.allocatable or use not in pool.spec.allowed_uses:
            raise Unusable(f"address {address} lies in no enabled pool for {use}; choose another, or mend the pool")
        cidr = claims.block_of(pool, address)
        block = self.writer.known(cidr) or await self.writer.read(cidr)
        if block is None:
            block = await self._claimer.claim(cidr) or await self.writer.read(cidr)
            self._claimed.add(cidr)
        mine = block is not None and block.spec.affinity == claims.owner_of(self._node)
        if self._inputs.configuration().spec.strict_affinity and not mine:
            raise Unusable(
                f"address {address} lies in a block of another node, and strictAffinity forbids to borrow it"
            )
        await self._handles.add(handle, cidr, 1)
        try:
            await self.writer.edit(
                cidr, lambda found: (blocks.allocate_address(self._fresh(found), address, handle, attributes), None)
            )
        except BaseException:
            await self._handles.subtract(handle, cidr, 1)
            raise
        return Assigned(address, cidr)

    async def _assign_family(self, request: Request, family: int, count: int) -> list[Assigned]:
        pools = claims.usable_pools(
            self._inputs.pools(),
            family,
            request.use,
            request.pools.get(family, ()),
            self._inputs.node_labels(),
            request.namespace_labels,
        )
        given: list[Assigned] = []
        try:
            for cidr in self._own_blocks(family, pools):
                given += await self._draw(cidr, request, count - len(given), borrow=False)
                if len(given) == count:
                    return given
            given += await self._draw_more(request, family, pools, count - len(given))
        except BaseException:
            await self._take_back(request.handle, given)
            raise
        return given

    async def _draw_more(self, request: Request, family: int, pools: Sequence[IPPool], count: int) -> list[Assigned]:
        """From blocks yet to be claimed, then from other nodes' blocks."""
        given: list[Assigned] = []
        spec = self._inputs.configuration().spec
        async with self._claiming[family]:
            await self._settle_claims(family, pools)
            for cidr in self._own_blocks(family, pools):
                given += await self._draw(cidr, request, count - len(given), borrow=False)
            while len(given) < count and spec.auto_allocate_blocks:
                limit = claims.block_limit(spec.max_blocks_per_host, 0)
                if len(self._own_blocks(family, ())) >= limit:
                    await self._take_back(request.handle, given)
                    raise BlockLimit(
                        f"node {self._node} holds {limit} IPv{family} blocks, its limit, and all are full; raise "
                        "maxBlocksPerHost in IPAMConfiguration default, or use larger blocks"
                    )
                block = await self._claimer.claim_any(pools, self._taken)
                if block is None:
                    break
                self._claimed.add(block.spec.cidr)
                self._given_up.discard(block.spec.cidr)
                given += await self._draw(block.spec.cidr, request, count - len(given), borrow=False)
        if len(given) < count and not spec.strict_affinity:
            given += await self._borrow(request, pools, count - len(given))
        if len(given) < count:
            await self._take_back(request.handle, given)
            names = ", ".join(pool.metadata.name for pool in pools)
            raise Exhausted(
                f"no IPv{family} address is free in pools {names}"
                f"{' within this node’s blocks (strictAffinity)' if spec.strict_affinity else ''}; "
                "add a pool, or release addresses (pycalicoctl ipam check names leaked ones)"
            )
        return given

    async def _borrow(self, request: Request, pools: Sequence[IPPool], count: int) -> list[Assigned]:
        given: list[Assigned] = []
        known = {affinity.spec.cidr for affinity in self._inputs.affinities()}
        for pool in pools:
            for cidr in claims.candidates(pool, self._node):
                if cidr not in known and await self.writer.read(cidr) is None:
                    continue
                given += await self._draw(cidr, request, count - len(given), borrow=True)
                if len(given) == count:
                    return given
        return given

    async def _draw(self, cidr: str, request: Request, count: int, *, borrow: bool) -> list[Assigned]:
        """Up to `count` addresses of one block; none where it is full, gone, or no longer ours."""
        reserved = self._reserved()
        known = self.writer.known(cidr)
        if count == 0 or (known is not None and not self._has_room(known, reserved)):
            return []
        mine = claims.owner_of(self._node)

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, tuple[str, ...]]:
            if not borrow and block.spec.affinity != mine:
                return block, ()
            done = tuple(
                holding.address
                for holding in blocks.holdings(block)
                if holding.handle == request.handle and holding.attributes == request.attributes
            )
            if done:
                return block, done[:count]
            return blocks.allocate(self._fresh(block), count, request.handle, request.attributes, reserved)

        await self._handles.add(request.handle, cidr, count)
        found: tuple[str, ...] = ()
        try:
            found = await self.writer.edit(cidr, edit)
        except NotFound:
            self._claimed.discard(cidr)
        finally:
            if len(found) < count:
                await self._handles.subtract(request.handle, cidr, count - len(found))
        return [Assigned(address, cidr) for address in found]

    def _fresh(self, block: IPAMBlock) -> IPAMBlock:
        return blocks.normalised(block, self._now(), self._inputs.configuration().spec.ip_cooldown_seconds)

    def _has_room(self, block: IPAMBlock, reserved: Callable[[str], bool]) -> bool:
        fresh = self._fresh(block)
        return any(not reserved(blocks.address_at(fresh, ordinal)) for ordinal in fresh.spec.unallocated)

    def _reserved(self) -> Callable[[str], bool]:
        networks = [
            ipaddress.ip_network(cidr, strict=False)
            for reservation in self._inputs.reservations()
            for cidr in reservation.spec.reserved_cidrs
        ]
        return lambda address: any(ipaddress.ip_address(address) in network for network in networks)

    # --- blocks of this node ---

    def _own_blocks(self, family: int, pools: Iterable[IPPool]) -> list[str]:
        """Confirmed blocks of this node, those in `pools` if there are any given; in a stable order."""
        pools = list(pools)
        confirmed = {
            affinity.spec.cidr
            for affinity in self._inputs.affinities()
            if affinity.spec.node == self._node and affinity.confirmed
        }
        mine = (confirmed | self._claimed) - self._given_up
        chosen = [cidr for cidr in mine if (6 if ":" in cidr else 4) == family]
        if pools:
            chosen = [cidr for cidr in chosen if claims.pool_of(pools, cidr) is not None]
        return sorted(chosen, key=ipaddress.ip_network)

    async def _settle_claims(self, family: int, pools: Sequence[IPPool]) -> None:
        """Claims of this node that an earlier process left half-made."""
        for affinity in self._inputs.affinities():
            ours = affinity.spec.node == self._node and affinity.family == family and not affinity.confirmed
            if ours and affinity.spec.cidr not in self._claimed and claims.pool_of(pools, affinity.spec.cidr):
                block = await self._claimer.settle(affinity)
                if block is not None:
                    self._claimed.add(affinity.spec.cidr)

    def _taken(self, cidr: str) -> bool:
        return any(affinity.spec.cidr == cidr and not affinity.spec.deleted for affinity in self._inputs.affinities())

    # --- taking back ---

    async def release(self, handle: str) -> tuple[str, ...]:
        """Takes all of a handle's addresses back and names them; nothing where it has none."""
        stored = await self._handles.read(handle)
        if stored is None:
            return ()
        released: list[str] = []
        for cidr, count in stored.value.spec.block.items():
            released += await self._release_in(cidr, handle)
            await self._handles.subtract(handle, cidr, count)
        return tuple(released)

    async def release_address(self, address: str, handle: str | None = None, sequence: int | None = None) -> bool:
        """Takes one address back; False where nobody holds it. Raises Mismatch where it isn't the handle's, or was
        given out anew since `sequence`."""
        width = "128" if ":" in address else "32"
        pool = claims.pool_of(self._inputs.pools(), f"{address}/{width}")
        if pool is None:
            raise Unusable(f"address {address} lies in no pool; check the address")
        cidr = claims.block_of(pool, address)
        cooldown = self._inputs.configuration().spec.ip_cooldown_seconds

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, str | None]:
            holder = next((h.handle for h in blocks.holdings(block) if h.address == address), None)
            return blocks.release_address(block, address, self._now(), cooldown, handle, sequence), holder

        try:
            holder = await self.writer.edit(cidr, edit)
        except NotFound:
            return False
        if holder is None:
            return False
        await self._handles.subtract(holder, cidr, 1)
        await self._tidy(cidr)
        return True

    async def addresses_of(self, handle: str) -> tuple[str, ...]:
        """A handle's addresses, as the store has them."""
        stored = await self._handles.read(handle)
        found: list[str] = []
        for cidr in stored.value.spec.block if stored is not None else ():
            block = await self.writer.read(cidr)
            if block is not None:
                found += [holding.address for holding in blocks.holdings(block) if holding.handle == handle]
        return tuple(sorted(found, key=lambda address: ":" in address))

    async def _release_in(self, cidr: str, handle: str) -> tuple[str, ...]:
        cooldown = self._inputs.configuration().spec.ip_cooldown_seconds

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, tuple[str, ...]]:
            mine = [holding for holding in blocks.holdings(block) if holding.handle == handle]
            after = blocks.release(block, [holding.ordinal for holding in mine], self._now(), cooldown)
            return after, tuple(holding.address for holding in mine)

        try:
            released = await self.writer.edit(cidr, edit)
        except NotFound:
            return ()
        await self._tidy(cidr)
        return released

    async def _tidy(self, cidr: str) -> None:
        """An empty block that is nobody's is deleted; one whose pool doesn't select this node any more is given up."""
        block = self.writer.known(cidr)
        if block is None or not blocks.is_empty(block):
            return
        if block.spec.affinity is None:
            await self.writer.delete_if(cidr, lambda found: found.spec.affinity is None and blocks.is_empty(found))
            return
        pool = claims.pool_of(self._inputs.pools(), cidr)
        selected = pool is not None and claims.selects(pool, self._inputs.node_labels())
        if (
            block.spec.affinity == claims.owner_of(self._node)
            and not selected
            and await self._claimer.give_up(cidr, only_empty=True)
        ):
            self._claimed.discard(cidr)
            self._given_up.add(cidr)

    async def _take_back(self, handle: str, given: Iterable[Assigned]) -> None:
        """Undoes a half success."""
        for assigned in list(given):
            try:
                await self.release_address(assigned.address, handle)
            except IPAMError:
                continue
