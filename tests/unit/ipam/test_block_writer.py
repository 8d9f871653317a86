"""Group commit: what is shared, what is refused alone, what others' writes and cancelled callers do to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from calipy.datastore.stores import Conflict, NotFound, Store, Stored, Unavailable
from calipy.ipam.block_writer import ATTEMPTS, BlockWriter, Edit
from calipy.ipam.blocks import allocate, holdings, new_block, release
from calipy.ipam.errors import Exhausted
from calipy.resources import ipam_blocks
from calipy.resources.ipam_blocks import IPAMBlock
from calipy.resources.metadata import Kind, R

if TYPE_CHECKING:
    from tests.unit.ipam.conftest import Cluster, CountingStore

CIDR = "10.0.0.0/29"


def give(handle: str) -> Edit[tuple[str, ...]]:
    return lambda block: allocate(block, 1, handle, {})


def writer_on(store: object) -> BlockWriter:
    return BlockWriter(store)  # type: ignore[arg-type]


async def made(cluster: Cluster) -> CountingStore:
    await cluster.store.create(ipam_blocks.KIND, new_block(CIDR, "host:n1", 1.0))
    return cluster.counting()


async def test_edits_that_wait_together_go_into_one_write_in_their_order(cluster: Cluster) -> None:
    store = await made(cluster)
    writer = writer_on(store)
    given = await asyncio.gather(*(writer.edit(CIDR, give(f"k8s.{n}")) for n in range(8)))
    assert given == [(f"10.0.0.{n}",) for n in range(8)]
    assert store.calls == {"get IPAMBlock": 1, "update IPAMBlock": 1}
    assert (await cluster.block(CIDR)).spec.sequence_number == 10**9 + 1


async def test_those_answered_together_meet_again_at_their_next_block(cluster: Cluster) -> None:
    await cluster.store.create(ipam_blocks.KIND, new_block("10.0.1.0/29", "host:n1", 1.0))
    store = await made(cluster)
    writer = writer_on(store)

    async def both(handle: str) -> None:
        await writer.edit(CIDR, give(handle))
        await writer.edit("10.0.1.0/29", give(handle))

    await asyncio.gather(*(both(f"k8s.{n}") for n in range(8)))
    assert store.calls["update IPAMBlock"] == 2


async def test_a_refused_edit_is_refused_alone(cluster: Cluster) -> None:
    writer = writer_on(await made(cluster))

    def refuse(block: IPAMBlock) -> tuple[IPAMBlock, None]:
        raise Exhausted("no; try again")

    first, second, third = await asyncio.gather(
        writer.edit(CIDR, give("k8s.a")), writer.edit(CIDR, refuse), writer.edit(CIDR, give("k8s.b")),
        return_exceptions=True,
    )  # fmt: skip
    assert (first, third) == (("10.0.0.0",), ("10.0.0.1",))
    assert isinstance(second, Exhausted)


async def test_an_edit_that_changes_nothing_writes_nothing(cluster: Cluster) -> None:
    store = await made(cluster)
    assert await writer_on(store).edit(CIDR, lambda block: (block, block.spec.cidr)) == CIDR
    assert store.calls == {"get IPAMBlock": 1}


async def test_anothers_write_costs_one_conflict_and_the_edit_is_done_on_the_newer_block(cluster: Cluster) -> None:
    store = await made(cluster)
    writer, other = writer_on(store), writer_on(cluster.store)
    await writer.edit(CIDR, give("k8s.a"))
    await other.edit(CIDR, give("k8s.b"))
    store.calls.clear()
    assert await writer.edit(CIDR, give("k8s.c")) == ("10.0.0.2",)
    assert store.calls == {"update IPAMBlock": 2, "get IPAMBlock": 1}
    assert writer.conflicts == 1


class Contended:
    """A store in which somebody else is always a little faster."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.tries = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        self.tries += 1
        raise Conflict("too late")


async def test_the_compare_and_swap_is_bounded(cluster: Cluster) -> None:
    store = Contended(await made(cluster))
    with pytest.raises(Conflict, match=f"block {CIDR} was changed by others {ATTEMPTS} times in a row; try again"):
        await writer_on(store).edit(CIDR, give("k8s.a"))
    assert store.tries == ATTEMPTS


async def test_a_block_that_is_gone_is_named(cluster: Cluster) -> None:
    writer = writer_on(await made(cluster))
    await writer.edit(CIDR, give("k8s.a"))
    await cluster.store.delete(ipam_blocks.KIND, await cluster.store.get(ipam_blocks.KIND, ipam_blocks.name_of(CIDR)))
    with pytest.raises(NotFound, match=f"block {CIDR} is gone; "):
        await writer.edit(CIDR, give("k8s.b"))
    assert writer.known(CIDR) is None


class Slow:
    """A store whose answers to updates take a while, though they have landed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.landed = asyncio.Event()
        self.answer = asyncio.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        written = await self._store.update(kind, old, new)
        self.landed.set()
        await self.answer.wait()
        return written


async def test_a_cancelled_leader_leaves_the_others_what_it_had_written_for_them(cluster: Cluster) -> None:
    cluster.pool("default", CIDR, 29)
    await cluster.allocator("n1").assign(cluster.request("first", "n1"))
    await cluster.sync()
    slow = Slow(cluster.store)
    allocator = cluster.allocator("n1", slow)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        leader = group.create_task(allocator.assign(cluster.request("x", "n1")))
        others = [group.create_task(allocator.assign(cluster.request(name, "n1"))) for name in "abc"]
        await slow.landed.wait()
        leader.cancel()
        slow.answer.set()
    await allocator.release("k8s.x")
    given = {other.result()[0].address for other in others}
    held = {holding.address for holding in holdings(await cluster.block(CIDR)) if holding.handle != "k8s.first"}
    assert held == given
    assert len(given) == 3
    assert {"k8s.a", "k8s.b", "k8s.c", "k8s.first"} == set(await cluster.handles())


async def test_edits_that_come_while_one_is_written_share_the_next_write(cluster: Cluster) -> None:
    await made(cluster)
    slow = Slow(cluster.store)
    writer = writer_on(slow)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(writer.edit(CIDR, give("k8s.a")))
        await slow.landed.wait()
        later = [group.create_task(writer.edit(CIDR, give(f"k8s.{n}"))) for n in range(4)]
        gone = group.create_task(writer.edit(CIDR, give("k8s.gone")))
        await asyncio.sleep(0)
        gone.cancel()
        slow.answer.set()
    assert writer.writes == 2
    assert [*first.result(), *(task.result()[0] for task in later)] == [f"10.0.0.{n}" for n in range(5)]
    assert "k8s.gone" not in {holding.handle for holding in holdings(await cluster.block(CIDR))}


async def test_who_is_cancelled_before_the_write_gets_nothing(cluster: Cluster) -> None:
    writer = writer_on(await made(cluster))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(writer.edit(CIDR, give("k8s.a")))
        gone = group.create_task(writer.edit(CIDR, give("k8s.gone")))
        await asyncio.sleep(0)
        gone.cancel()  # the leader's turn comes before this is noticed
    assert first.result() == ("10.0.0.0",)
    assert [holding.handle for holding in holdings(await cluster.block(CIDR))] == ["k8s.a"]


async def test_a_store_that_is_away_is_said_to_all_and_forgotten(cluster: Cluster) -> None:
    await made(cluster)
    writer = writer_on(cluster.failing(at=1, landed=True, dead=False))
    results = await asyncio.gather(*(writer.edit(CIDR, give(f"k8s.{n}")) for n in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert writer.known(CIDR) is None
    assert await writer.edit(CIDR, give("k8s.z")) == ("10.0.0.3",)  # the others had landed


async def test_a_block_is_deleted_only_as_it_was_seen(cluster: Cluster) -> None:
    writer = writer_on(await made(cluster))
    await writer.edit(CIDR, give("k8s.a"))
    assert not await writer.delete_if(CIDR, lambda block: not list(holdings(block)))
    await writer.edit(CIDR, lambda block: (release(block, [0], 2.0, 0), None))
    assert await writer.delete_if(CIDR, lambda block: not list(holdings(block)))
    assert await writer.delete_if(CIDR, lambda block: False)  # gone already
    assert await writer.read(CIDR) is None
