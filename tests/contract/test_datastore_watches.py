"""What every store's watches keep: order, resumption, expiry, bookmarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from calipy.datastore.stores import Event, Expired, Store
from calipy.resources import global_network_sets, ipam_handles
from calipy.resources.global_network_sets import GlobalNetworkSet
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Kind, ObjectMeta

HANDLE = ipam_handles.KIND
SET = global_network_sets.KIND
Another = Callable[[], Awaitable[Store]]


def handle(name: str, **meta: Any) -> IPAMHandle:
    return IPAMHandle(metadata=ObjectMeta(name=name, **meta), spec=IPAMHandleSpec(handle_id=name, block={}))


def network_set(name: str) -> GlobalNetworkSet:
    return GlobalNetworkSet(metadata=ObjectMeta(name=name))


async def newest(store: Store) -> int:
    return [page.revision async for page in store.list(HANDLE)][-1]


async def told(watch: AsyncIterator[Event[Any]], count: int) -> list[tuple[str, str]]:
    """The next `count` events but bookmarks, as (type, name)."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        event = await anext(watch)
        if event.object is not None:
            found.append((event.type, event.object.key.name))
    return found


async def test_a_watch_tells_changes_in_order(store: Store) -> None:
    watch = aiter(store.watch(HANDLE, await newest(store)))
    a = await store.create(HANDLE, handle("a"))
    assert await told(watch, 1) == [("put", "a")]
    await store.create(HANDLE, handle("b"))
    await store.delete(HANDLE, a)
    assert await told(watch, 2) == [("put", "b"), ("deleted", "a")]


async def test_a_deletion_carries_the_last_object_seen(store: Store) -> None:
    created = await store.create(HANDLE, handle("a", labels={"x": "y"}))
    watch = aiter(store.watch(HANDLE, created.revision))
    await store.delete(HANDLE, created)
    event = await anext(watch)
    assert event.type == "deleted"
    assert event.revision > created.revision
    assert event.object is not None
    assert event.object.uid == created.uid
    assert event.object.value.metadata.labels == {"x": "y"}


async def test_the_last_finalizer_ends_in_a_deletion(store: Store) -> None:
    created = await store.create(HANDLE, handle("a", finalizers=("one",)))
    watch = aiter(store.watch(HANDLE, created.revision))
    await store.delete(HANDLE, created)
    assert await told(watch, 1) == [("put", "a")]
    await store.update(HANDLE, await store.get(HANDLE, "a"), handle("a"))
    assert await told(watch, 1) == [("deleted", "a")]


async def test_a_watch_goes_on_from_any_revision(store: Store) -> None:
    made = [await store.create(HANDLE, handle(name)) for name in "abcd"]
    assert await told(aiter(store.watch(HANDLE, made[1].revision)), 2) == [("put", "c"), ("put", "d")]
    assert await told(aiter(store.watch(HANDLE, made[0].revision - 1)), 4) == [("put", name) for name in "abcd"]


async def test_a_watch_hears_other_clients(store: Store, open_store: Another) -> None:
    other = await open_store()
    watch = aiter(store.watch(HANDLE, await newest(store)))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(told(watch, 1))
        await asyncio.sleep(0)
        await other.create(HANDLE, handle("a"))
    assert first.result() == [("put", "a")]


async def test_a_watch_tells_its_kind_alone(store: Store) -> None:
    since = await newest(store)
    await store.create(SET, network_set("one"))
    await store.create(HANDLE, handle("a"))
    assert await told(aiter(store.watch(HANDLE, since)), 1) == [("put", "a")]
    assert await told(aiter(store.watch(SET, since)), 1) == [("put", "one")]


async def test_a_bookmark_says_how_far_a_watch_without_events_has_come(store: Store) -> None:
    since = await newest(store)
    waiting = anext(aiter(store.watch(HANDLE, since)))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_of(waiting))
        await asyncio.sleep(0)
        await store.create(SET, network_set("one"))
    event = task.result()
    assert (event.type, event.object) == ("bookmark", None)
    assert event.revision >= since


async def _of(waiting: Awaitable[Event[Any]]) -> Event[Any]:
    return await waiting


async def test_a_watch_from_before_what_is_forgotten_is_expired(
    store: Store, forgotten: Callable[[], Awaitable[int]]
) -> None:
    with pytest.raises(Expired, match="list again"):
        await anext(aiter(store.watch(HANDLE, await forgotten())))
    last = await store.create(HANDLE, handle("last"))
    assert await told(aiter(store.watch(HANDLE, last.revision - 1)), 1) == [("put", "last")]


async def test_a_long_backlog_is_told_whole_and_once(store: Store) -> None:
    since = await newest(store)
    names = [f"h{n:04}" for n in range(1200)]
    for name in names:
        await store.create(HANDLE, handle(name))
    async with aclosing(_generator(store, HANDLE, since)) as watch:
        assert [name for _, name in await told(watch, 600)] == names[:600]
        await store.create(HANDLE, handle("late"))
        assert [name for _, name in await told(watch, 601)] == [*names[600:], "late"]


async def _generator(store: Store, kind: Kind[Any], since: int) -> Any:
    async for event in store.watch(kind, since):
        yield event


async def test_many_watches_are_cancelled_and_begun_at_will(store: Store) -> None:
    since = await newest(store)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            task = group.create_task(told(aiter(store.watch(HANDLE, since)), 1))
            await asyncio.sleep(0)
            task.cancel()
        last = group.create_task(told(aiter(store.watch(HANDLE, since)), 1))
        await asyncio.sleep(0)
        await store.create(HANDLE, handle("a"))
    assert last.result() == [("put", "a")]
