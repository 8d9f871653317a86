"""A mirror on a real store, beside writers that are busy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from calipy.datastore.mirror import Mirror
from calipy.datastore.stores import Store, Stored
from calipy.resources import global_network_sets, ipam_handles
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Key, ObjectMeta

HANDLE, SET = ipam_handles.KIND, global_network_sets.KIND


async def write(store: Store, who: str) -> None:
    """Creates, changes and deletes; leaves five handles and five sets."""
    for n in range(10):
        meta = ObjectMeta(name=f"{who}{n}")
        handle = await store.create(HANDLE, IPAMHandle(metadata=meta, spec=IPAMHandleSpec(handle_id=who, block={})))
        a_set = await store.create(SET, GlobalNetworkSet(metadata=meta))
        handle = await store.update(
            HANDLE, handle, replace(handle.value, spec=replace(handle.value.spec, block={"x": n}))
        )
        await asyncio.sleep(0)
        if n % 2:
            await store.delete(HANDLE, handle)
            await store.delete(SET, a_set)


async def test_batches_lead_to_what_the_store_holds(store: Store, open_store: Callable[[], Awaitable[Store]]) -> None:
    await write(store, "before")
    mirror = Mirror(store, (HANDLE, SET))
    world: dict[Key, Stored[Any]] = {}

    async def consume() -> None:
        async for batch in mirror.batches():
            for event in batch.events:
                assert event.object is not None
                world.pop(event.object.key, None)
                if event.type == "put":
                    world[event.object.key] = event.object
            if batch.in_sync and Key("GlobalNetworkSet", "last") in world:
                return

    async with asyncio.TaskGroup() as group:
        follower = group.create_task(mirror.run())
        consumer = group.create_task(consume())
        async with asyncio.TaskGroup() as writers:
            for who in ("one", "two", "three"):
                writers.create_task(write(await open_store(), who))
        await store.create(SET, GlobalNetworkSet(metadata=ObjectMeta(name="last")))
        await consumer
        assert mirror.connected
        follower.cancel()

    held = {s.key: s for kind in (HANDLE, SET) async for page in store.list(kind) for s in page.items}
    assert len(held) == 41
    assert world == held
    assert {**mirror.current(HANDLE), **mirror.current(SET)} == held


async def test_an_object_that_could_not_be_decoded_is_gone_when_it_is_deleted(store: Store, back_door: Any) -> None:
    value = IPAMHandle(metadata=ObjectMeta(name="a"), spec=IPAMHandleSpec(handle_id="a", block={}))
    created = await store.create(HANDLE, value)
    mirror = Mirror(store, (HANDLE,))
    batches = aiter(mirror.batches())
    told: list[str] = []

    async def until(true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not true():
                told.extend(event.type for event in (await anext(batches)).events)

    async with asyncio.TaskGroup() as group:
        follower = group.create_task(mirror.run())
        await until(lambda: told == ["put"])
        document = back_door.read(created.key)
        document["spec"]["block"] = "nonsense"
        back_door.write(created.key, document)
        await until(lambda: mirror.unreadable)
        assert "IPAMHandle/a is refused: spec.block: 'nonsense'" in mirror.unreadable[created.key]
        assert list(mirror.current(HANDLE)) == [created.key]
        broken = replace(created, revision=int(back_door.read(created.key)["metadata"]["resourceVersion"]))
        await store.delete(HANDLE, broken)
        await until(lambda: told == ["put", "deleted"])
        assert (mirror.unreadable, mirror.current(HANDLE)) == ({}, {})
        follower.cancel()
