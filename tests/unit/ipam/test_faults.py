"""The store fails, or the process is killed, at each write in turn: no address twice, none lost, no handle too low."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import StoreError
from calipy.ipam.allocator import Allocator
from calipy.ipam.errors import Exhausted

if TYPE_CHECKING:
    from tests.unit.ipam.conftest import Cluster

UNFINISHED = {"claim-unfinished", "affinity-without-block", "counter-high"}
"""What a crash may leave for the next claim or release to finish: nothing in it is given out twice, or lost."""
UNRELEASED = {"handle-without-allocation", "starting", "leaked"}
"""What it may leave until the runtime has deleted what it doesn't know to have succeeded."""


async def story(cluster: Cluster, allocator: Allocator) -> None:
    """Claims blocks of both families, gives addresses out of one, of two, a certain one, and takes some back."""
    await comes(cluster, allocator, "a", 4, 6)
    await comes(cluster, allocator, "b", 4, count=3)
    await goes(cluster, allocator, "a")
    cluster.holds("c", "n1", ())
    attributes = cluster.request("c", "n1").attributes
    cluster.holds("c", "n1", [await allocator.assign_address("10.0.0.13", "k8s.c", attributes)])
    await goes(cluster, allocator, "b")


async def comes(cluster: Cluster, allocator: Allocator, name: str, *families: int, count: int = 1) -> None:
    """ADD: the pod is there before it has addresses."""
    cluster.holds(name, "n1", ())
    cluster.holds(name, "n1", await allocator.assign(cluster.request(name, "n1", *families, count=count)))


async def goes(cluster: Cluster, allocator: Allocator, name: str) -> None:
    """DEL: the pod shows no address any more, then the address is free."""
    cluster.holds(name, "n1", ())
    await allocator.release(f"k8s.{name}")
    del cluster.holders[name]


def prepare(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/28", 31)
    cluster.pool("six", "fd00::/124", 126)


async def judge(cluster: Cluster, allowed: set[str]) -> None:
    verdict = await cluster.judged()
    assert [finding for finding in verdict.findings if finding.what not in allowed] == []
    addresses = [allocation.address for allocation in verdict.allocations]
    assert len(addresses) == len(set(addresses))


async def retry(cluster: Cluster) -> None:
    """What a runtime does: it deletes what it doesn't know to have succeeded, by a new process, and goes on."""
    await cluster.sync()
    allocator = cluster.allocator("n1")
    for name in "abc":
        if not cluster.holders.get(name, ("", ()))[1]:
            cluster.holders.pop(name, None)
            await allocator.release(f"k8s.{name}")
    await comes(cluster, allocator, "z", 4, 6, count=2)


async def test_the_story_has_all_kinds_of_writes(cluster: Cluster) -> None:
    prepare(cluster)
    store = cluster.counting()
    await story(cluster, cluster.allocator("n1", store))
    for call in (
        "create IPAMHandle", "update IPAMHandle", "delete IPAMHandle", "create IPAMBlock", "update IPAMBlock",
        "create BlockAffinity", "update BlockAffinity",
    ):  # fmt: skip
        assert store.calls[call] > 0, call
    assert (await cluster.judged()).findings == ()


@pytest.mark.parametrize(
    ("landed", "dead"),
    [(True, True), (True, False), (False, False)],
    ids=["killed-after-it", "its-answer-is-lost", "it-is-refused"],
)
async def test_a_failure_at_any_write(cluster: Cluster, tmp_path: Path, landed: bool, dead: bool) -> None:
    at, failed = 0, True
    while failed:
        at += 1
        store = await SQLiteStore.open(tmp_path / str(at))
        there = type(cluster)(store)
        prepare(there)
        failing = there.failing(at=at, landed=landed, dead=dead)
        try:
            await story(there, there.allocator("n1", failing))
        except StoreError:
            pass
        failed = failing.failed
        await judge(there, UNFINISHED | UNRELEASED)
        await retry(there)
        await judge(there, UNFINISHED)
        await store.close()
    assert at > 25


async def test_a_cancelled_request_leaves_what_its_release_takes_back(cluster: Cluster) -> None:
    prepare(cluster)
    for turns in range(12):
        allocator = cluster.allocator("n1")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(allocator.assign(cluster.request("a", "n1", 4, 6)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        await judge(cluster, UNFINISHED | UNRELEASED)
        await allocator.release("k8s.a")
        assert (await cluster.judged()).allocations == ()
        assert await cluster.handles() == {}


async def test_the_others_of_a_group_get_theirs_when_the_writer_is_cancelled(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/27", 27)
    allocator = cluster.allocator("n1")
    await allocator.assign(cluster.request("first", "n1"))
    for turns in range(6):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(allocator.assign(cluster.request("x", "n1")))
            others = [group.create_task(allocator.assign(cluster.request(n, "n1"))) for n in "abcd"]
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
        assert len({given.address for other in others for given in other.result()}) == 4
        for name in "xabcd":
            await allocator.release(f"k8s.{name}")
    assert list(await cluster.handles()) == ["k8s.first"]


async def test_allocators_that_fight_for_one_block_lose_nothing(cluster: Cluster) -> None:
    cluster.pool("default", "10.0.0.0/26", 26)
    await cluster.allocator("n1").assign(cluster.request("first", "n1"))
    await cluster.sync()
    nodes = [cluster.allocator(f"n{n}") for n in range(4)]
    for turn in range(3):
        requests = [
            (node, cluster.request(f"{turn}-{n}-{k}", f"n{n}")) for n, node in enumerate(nodes) for k in range(5)
        ]
        given = await asyncio.gather(*(node.assign(request) for node, request in requests))
        assert len({assigned.address for (assigned,) in given}) == 20
        await asyncio.gather(*(node.release(request.handle) for node, request in requests))
    assert sum(node.writer.conflicts for node in nodes) > 0
    assert list(await cluster.handles()) == ["k8s.first"]
    with pytest.raises(Exhausted):
        await nodes[0].assign(cluster.request("many", "n1", count=64))
    assert list(await cluster.handles()) == ["k8s.first"]
