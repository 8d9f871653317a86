"""Claims on blocks: made in three steps, given up in three, and what two of these at once come to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from calipy.datastore.stores import Store
from calipy.ipam.block_writer import BlockWriter
from calipy.ipam.blocks import allocate, new_block, touched
from calipy.ipam.claiming import Claimer
from calipy.ipam.claims import new_affinity
from calipy.resources import block_affinities, ipam_blocks

if TYPE_CHECKING:
    from tests.unit.ipam.conftest import Cluster

CIDR = "10.0.0.0/29"


def claimer(cluster: Cluster, node: str = "n1", store: Store | None = None) -> Claimer:
    store = store or cluster.store
    return Claimer(store, node, BlockWriter(store), lambda: cluster.now)


async def use(cluster: Cluster) -> None:
    """Somebody gets an address of the block."""
    writer = BlockWriter(cluster.store)
    await writer.edit(CIDR, lambda block: allocate(block, 1, "k8s.a", {}))


async def test_a_claim_is_pending_before_there_is_a_block_and_confirmed_after(cluster: Cluster) -> None:
    seen = []
    for at in (1, 2, 3):
        try:
            await claimer(cluster, "n1", cluster.failing(at=at, landed=True, dead=True)).claim(f"10.0.0.{at * 8}/29")
        except Exception:
            seen.append((await cluster.claims(), await cluster.blocks()))
    one, two, three = "10.0.0.8/29", "10.0.0.16/29", "10.0.0.24/29"
    assert seen[0] == ({f"n1 {one}": "pending"}, {})
    assert seen[1] == ({f"n1 {one}": "pending", f"n1 {two}": "pending"}, {two: "host:n1"})
    assert seen[2][0][f"n1 {three}"] == "confirmed"


async def test_claiming_again_changes_nothing(cluster: Cluster) -> None:
    await claimer(cluster).claim(CIDR)
    store = cluster.counting()
    assert await claimer(cluster, "n1", store).claim(CIDR) is not None
    assert set(store.calls) == {"create BlockAffinity", "get BlockAffinity", "get IPAMBlock"}


async def test_a_block_of_another_node_stays_its_own(cluster: Cluster) -> None:
    await claimer(cluster, "n2").claim(CIDR)
    assert await claimer(cluster, "n1").claim(CIDR) is None
    assert await cluster.claims() == {f"n2 {CIDR}": "confirmed"}


async def test_of_many_nodes_that_claim_a_block_at_once_one_gets_it(cluster: Cluster) -> None:
    results = await asyncio.gather(*(claimer(cluster, f"n{n}").claim(CIDR) for n in range(6)))
    (owner,) = [n for n, block in enumerate(results) if block is not None]
    assert await cluster.blocks() == {CIDR: f"host:n{owner}"}
    assert await cluster.claims() == {f"n{owner} {CIDR}": "confirmed"}


async def test_an_empty_block_that_is_given_up_is_deleted(cluster: Cluster) -> None:
    await claimer(cluster).claim(CIDR)
    assert await claimer(cluster).give_up(CIDR)
    assert (await cluster.claims(), await cluster.blocks()) == ({}, {})


async def test_a_block_in_use_that_is_given_up_becomes_nobodys(cluster: Cluster) -> None:
    await claimer(cluster).claim(CIDR)
    await use(cluster)
    assert not await claimer(cluster).give_up(CIDR, only_empty=True)
    assert await cluster.claims() == {f"n1 {CIDR}": "confirmed"}
    assert await claimer(cluster).give_up(CIDR)
    assert (await cluster.claims(), await cluster.blocks()) == ({}, {CIDR: None})
    spec = (await cluster.block(CIDR)).spec
    assert spec.affinity_claim_time is None
    assert spec.allocations[0] == 0


async def test_a_stale_claim_is_given_up_without_touching_the_block(cluster: Cluster) -> None:
    await claimer(cluster, "n2").claim(CIDR)
    before = await cluster.block(CIDR)
    stale = new_affinity("n1", CIDR)
    stale = structs.replace(stale, spec=structs.replace(stale.spec, state=""))
    await cluster.store.create(block_affinities.KIND, stale)
    assert await claimer(cluster, "n1").give_up(CIDR)
    assert await cluster.claims() == {f"n2 {CIDR}": "confirmed"}
    assert await cluster.block(CIDR) == before


async def test_a_block_that_was_written_since_it_was_seen_is_not_stolen(cluster: Cluster) -> None:
    await claimer(cluster, "n2").claim(CIDR)
    seen = (await cluster.block(CIDR)).spec.sequence_number
    await BlockWriter(cluster.store).edit(CIDR, lambda block: (touched(block), None))
    assert not await claimer(cluster, "n1").give_up(CIDR, only_empty=True, node="n2", sequence=seen)
    assert await cluster.claims() == {f"n2 {CIDR}": "confirmed"}
    assert await claimer(cluster, "n1").give_up(CIDR, only_empty=True, node="n2", sequence=seen + 1)
    assert await cluster.blocks() == {}


class UsedMeanwhile:
    """A store in which the block gets its first address right after its claim is pendingDeletion."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._store = cluster.counting()
        self._done = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def update(self, kind: object, old: object, new: object) -> object:
        written = await self._store.update(kind, old, new)  # type: ignore[type-var, arg-type]
        if kind is block_affinities.KIND and not self._done:
            self._done = True
            await use(self._cluster)
        return written


@pytest.mark.parametrize("only_empty", [True, False])
async def test_a_block_that_comes_into_use_while_it_is_given_up_loses_no_address(
    cluster: Cluster, only_empty: bool
) -> None:
    await claimer(cluster).claim(CIDR)
    store = UsedMeanwhile(cluster)
    assert await claimer(cluster, "n1", store).give_up(CIDR, only_empty=only_empty) == (not only_empty)  # type: ignore[arg-type]
    assert (await cluster.block(CIDR)).spec.allocations[0] == 0
    assert await cluster.claims() == ({f"n1 {CIDR}": "confirmed"} if only_empty else {})
    assert await cluster.blocks() == {CIDR: "host:n1" if only_empty else None}


async def test_claiming_and_giving_up_at_once_end_in_one_of_the_two(cluster: Cluster) -> None:
    for _ in range(10):
        await claimer(cluster).claim(CIDR)
        await asyncio.gather(
            claimer(cluster).claim(CIDR), claimer(cluster, "n2").give_up(CIDR, only_empty=True, node="n1")
        )
        state = (await cluster.claims(), await cluster.blocks())
        assert state in [({}, {}), ({f"n1 {CIDR}": "confirmed"}, {CIDR: "host:n1"})]


async def test_of_virtual_owners_nothing_is_stolen(cluster: Cluster) -> None:
    cluster.pool("default", CIDR, 29)
    await cluster.store.create(ipam_blocks.KIND, new_block(CIDR, "virtual:load-balancer", 1.0))
    assert await claimer(cluster).claim_any(cluster.pools, {CIDR}, ()) is None
    assert await cluster.blocks() == {CIDR: "virtual:load-balancer"}


async def test_what_is_stolen_comes_from_the_first_pool(cluster: Cluster) -> None:
    first, second = cluster.pool("a", "10.0.2.0/29", 29), cluster.pool("b", "10.0.1.0/29", 29)
    for cidr in ("10.0.1.0/29", "10.0.2.0/29"):
        await claimer(cluster, "n2").claim(cidr)
    cluster.now += 60
    block = await claimer(cluster).claim_any([first, second], {"10.0.1.0/29", "10.0.2.0/29"}, ())
    assert block is not None
    assert block.spec.cidr == "10.0.2.0/29"
