"""One request's way to its addresses: own blocks first, then blocks yet to be claimed, then other nodes' blocks."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Iterator

from calipy.datastore.stores import Conflict, NotFound, Store
from calipy.ipam import blocks, claims
from calipy.ipam.block_writer import BlockWriter
from calipy.ipam.claiming import Claimer
from calipy.ipam.claims import Network
from calipy.ipam.errors import BlockLimit, Corrupt, Exhausted, IPAMError, NotOurs
from calipy.ipam.handle_writer import Account
from calipy.ipam.needs import Assigned, Inputs, Request
from calipy.ipam.own_blocks import OwnBlocks
from calipy.resources.ip_pools import IPPool
from calipy.resources.ipam_blocks import IPAMBlock

log = logging.getLogger("calipy.ipam")


@contextlib.contextmanager
def _corrupt_ones_logged() -> Iterator[None]:
    """A block that can't be used is passed over, not silently; the others serve."""
    try:
        yield
    except Corrupt as error:
        log.error("%s", error)


class Site:
    """What all requests of a node share."""

    def __init__(self, store: Store, node: str, inputs: Inputs, now: Callable[[], float]) -> None:
        self.node = node
        self.inputs = inputs
        self.now = now
        self.writer = BlockWriter(store, self.fresh)
        self.claimer = Claimer(store, node, self.writer, now)
        self.own = OwnBlocks(node, inputs.affinities)
        self.claiming = {4: asyncio.Lock(), 6: asyncio.Lock()}
        self._warm: dict[str, IPAMBlock] = {}
        self.turns = {4: 0, 6: 0}
        """How often a family's blocks were looked at anew."""

    def fresh(self, block: IPAMBlock) -> IPAMBlock:
        """The block, what has cooled down freed. Whether anything cools is looked up once for each state of a block."""
        if self._warm.get(block.spec.cidr) is block:
            return block
        if not blocks.any_cooling(block):
            self._warm[block.spec.cidr] = block
        return blocks.normalised(block, self.now(), self.inputs.configuration().spec.ip_cooldown_seconds)

    async def settle(self, family: int) -> None:
        """Finishes what an earlier process of this node left half-made (a claim that isn't confirmed isn't routed), and
        lets go of empty blocks that the node may not keep: their pool is gone, or doesn't select it any more."""
        for affinity in self.own.unfinished(family):
            with _corrupt_ones_logged():
                if await self.claimer.settle(affinity) is not None:
                    self.own.gained(affinity.spec.cidr)
        pools, labels = self.inputs.pools(), self.inputs.node_labels()
        for cidr in self.own.all(family):
            with _corrupt_ones_logged():
                kept = claims.keeps(claims.pool_of(pools, cidr), labels)
                if not kept and await self.claimer.give_up(cidr, only_empty=True):
                    self.own.lost(cidr)

    def reserved(self) -> tuple[Network, ...]:
        """What automatic assignment leaves alone."""
        return tuple(
            ipaddress.ip_network(cidr, strict=False)
            for reservation in self.inputs.reservations()
            for cidr in reservation.spec.reserved_cidrs
        )


class Drawing:
    """Draws addresses of one family for one request into `given`."""

    def __init__(self, site: Site, request: Request, family: int, account: Account) -> None:
        self._site = site
        self._request = request
        self._family = family
        self._account = account
        self._pools: tuple[IPPool, ...] = ()
        self._networks = site.reserved()
        self._is_reserved = claims.reserved_in(self._networks)
        self.given: list[Assigned] = []

    @property
    def _missing(self) -> int:
        return self._request.families[self._family] - len(self.given)

    def plan(self) -> dict[str, int]:
        """Where it will probably be served, and how many are to be counted there. Raises Unusable."""
        inputs, request = self._site.inputs, self._request
        self._pools = claims.usable_pools(
            inputs.pools(),
            self._family,
            request.use,
            request.pools.get(self._family, ()),
            inputs.node_labels(),
            request.namespace_labels,
        )
        for cidr in self._site.own.within(self._family, self._pools):
            if self._may_have_room(cidr):
                return {cidr: self._missing}
        return {}

    async def run(self) -> None:
        """Draws all that are asked for. Raises IPAMError or StoreError; `given` says what was drawn until then."""
        turn = self._site.turns[self._family]
        await self._from_own_blocks()
        if not self._missing:
            return
        async with self._site.claiming[self._family]:
            if turn == self._site.turns[self._family]:
                await self._look_anew()
                self._site.turns[self._family] += 1
            await self._from_own_blocks()
            await self._from_new_blocks()
        if self._missing and not self._site.inputs.configuration().spec.strict_affinity:
            await self._borrow()
        if self._missing:
            raise self._exhausted()

    # --- own blocks ---

    async def _from_own_blocks(self) -> None:
        for cidr in self._site.own.within(self._family, self._pools):
            if not self._missing:
                return
            if self._may_have_room(cidr):
                await self._from_own_block(cidr)

    async def _from_own_block(self, cidr: str) -> None:
        """A block that is gone is made again; one that another node has by now is left alone, and our claim on it
        withdrawn."""
        try:
            await self._draw(cidr, borrow=False)
        except (NotOurs, NotFound):
            self._site.own.lost(cidr)
            if await self._site.claimer.claim(cidr) is not None:
                self._site.own.gained(cidr)
                await self._draw(cidr, borrow=False)

    async def _look_anew(self) -> None:
        """Puts this node's blocks in order, and reads those of the pools: addresses may have been released there."""
        await self._site.settle(self._family)
        for cidr in self._site.own.within(self._family, self._pools):
            with _corrupt_ones_logged():
                await self._site.writer.read(cidr)

    # --- new blocks ---

    async def _from_new_blocks(self) -> None:
        site, spec = self._site, self._site.inputs.configuration().spec
        while self._missing and spec.auto_allocate_blocks:
            limit = claims.block_limit(spec.max_blocks_per_host, 0)
            if len(site.own.all(self._family)) >= limit:
                raise BlockLimit(
                    f"node {site.node} holds {limit} IPv{self._family} block{'s' * (limit != 1)}, its limit, and "
                    f"those in pools {self._names()} are full; raise maxBlocksPerHost in IPAMConfiguration default, "
                    "or use larger blocks"
                )
            block = await site.claimer.claim_any(self._pools, site.own.taken(), self._networks)
            if block is None:
                return
            site.own.gained(block.spec.cidr)
            await self._from_own_block(block.spec.cidr)

    # --- others' blocks ---

    async def _borrow(self) -> None:
        """Blocks of others in the order in which they would be claimed: nodes that borrow seldom meet either."""
        lenders = [block async for block in self._site.writer.all() if blocks.has_room(self._site.fresh(block))]
        for pool in self._pools:
            here = [block.spec.cidr for block in lenders if claims.pool_of([pool], block.spec.cidr)]
            for cidr in sorted(here, key=lambda cidr: claims.distance(pool, self._site.node, cidr)):
                if not self._missing:
                    return
                try:
                    await self._draw(cidr, borrow=True)
                except NotFound:
                    continue

    # --- one block ---

    def _may_have_room(self, cidr: str) -> bool:
        """False for a block that is known to be full."""
        known = self._site.writer.known(cidr)
        return known is None or blocks.has_room(self._site.fresh(known), self._is_reserved)

    async def _draw(self, cidr: str, *, borrow: bool) -> None:
        """What is missing, as far as one block has it. Raises NotFound; NotOurs unless it may be borrowed from."""
        count, request, mine = self._missing, self._request, claims.owner_of(self._site.node)

        def edit(block: IPAMBlock) -> tuple[IPAMBlock, tuple[str, ...]]:
            if not borrow and block.spec.affinity != mine:
                raise NotOurs(f"block {cidr} belongs to {block.spec.affinity or 'nobody'}; draw from another one")
            done = own_work(block, request)
            if done:
                return block, done[:count]
            return blocks.allocate(block, count, request.handle, request.attributes, self._is_reserved)

        await self._account.cover({cidr: count})
        try:
            found = await self._site.writer.edit(cidr, edit)
        except Corrupt as error:
            log.error("%s", error)
            return
        except (IPAMError, NotFound, Conflict):
            raise
        except BaseException:
            self._account.forsake(cidr)
            raise
        self._account.used(cidr, len(found))
        self.given += [Assigned(address, cidr) for address in found]

    def _names(self) -> str:
        return ", ".join(pool.metadata.name for pool in self._pools)

    def _exhausted(self) -> Exhausted:
        spec = self._site.inputs.configuration().spec
        within = f" within the blocks of node {self._site.node} (strictAffinity)" if spec.strict_affinity else ""
        return Exhausted(
            f"no IPv{self._family} address is free in pools {self._names()}{within}; add a pool, or release addresses "
            "(pycalicoctl ipam check names leaked ones)"
        )


def own_work(block: IPAMBlock, request: Request) -> tuple[str, ...]:
    """What a request holds already: an edit may meet itself, after a write whose answer was lost."""
    return tuple(
        holding.address
        for holding in blocks.holdings(block, request.handle)
        if holding.attributes == request.attributes
    )
