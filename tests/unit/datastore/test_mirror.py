"""A mirror keeps up with a store that fails, forgets and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from calipy.datastore.batches import Batch
from calipy.datastore.mirror import Mirror
from calipy.datastore.stores import Event, Expired, NotFound, Page, Store, Stored, Unauthorized, Unavailable
from calipy.resources import namespaces, nodes
from calipy.resources.metadata import Key, Kind, ObjectMeta, Refused

NAMESPACE, NODE = namespaces.KIND, nodes.KIND


class World:
    """A store in memory whose answers a test chooses."""

    def __init__(self) -> None:
        self.objects: dict[Key, Stored[Any]] = {}
        self.unreadable: set[Key] = set()
        self.revision = 1
        self.calls: list[str] = []
        self.now_s = 7.0
        self.list_failures: list[Exception] = []
        self._watches: dict[str, asyncio.Queue[Event[Any] | Exception]] = {}

    def put(self, kind: Kind[Any], name: str, *, quietly: bool = False) -> None:
        self.revision += 1
        value = kind.type(metadata=ObjectMeta(name=name))
        stored = Stored(key=Key(kind.name, name), uid=f"{name}-uid", revision=self.revision, value=value)
        self.objects[stored.key] = stored
        if not quietly:
            self.tell(kind, Event(type="put", revision=self.revision, object=stored))

    def remove(self, kind: Kind[Any], name: str, *, quietly: bool = False) -> None:
        self.revision += 1
        gone = self.objects.pop(Key(kind.name, name))
        if not quietly:
            self.tell(kind, Event(type="deleted", revision=self.revision, object=gone))

    def tell(self, kind: Kind[Any], news: Event[Any] | Exception) -> None:
        self._queue(kind).put_nowait(news)

    async def get(self, kind: Kind[Any], name: str, namespace: str = "") -> Stored[Any]:
        key = Key(kind.name, name, namespace)
        if key in self.unreadable:
            raise Refused(str(key), [])
        if key not in self.objects:
            raise NotFound(str(key))
        return self.objects[key]

    async def list(self, kind: Kind[Any], *, page_size: int = 500, **_: object) -> AsyncIterator[Page[Any]]:
        self.calls.append(f"list {kind.name}" if page_size > 1 else f"probe {kind.name}")
        if self.list_failures:
            raise self.list_failures.pop(0)
        items = [s for s in self.objects.values() if s.key.kind == kind.name and s.key not in self.unreadable]
        for stored in items:
            yield Page(items=(stored,), revision=self.revision)
        yield Page(items=(), revision=self.revision)

    async def watch(self, kind: Kind[Any], since: int) -> AsyncIterator[Event[Any]]:
        self.calls.append(f"watch {kind.name} {since}")
        while True:
            news = await self._queue(kind).get()
            if isinstance(news, Exception):
                raise news
            yield news

    def _queue(self, kind: Kind[Any]) -> asyncio.Queue[Event[Any] | Exception]:
        return self._watches.setdefault(kind.name, asyncio.Queue())


class Pauses:
    """Stands for sleeping: waits are noted, and end when the test says so, or at once."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        self.open = asyncio.Event()
        self.open.set()

    async def sleep(self, delay_s: float) -> None:
        self.waits_s.append(delay_s)
        await self.open.wait()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@asynccontextmanager
async def running(world: World, pauses: Pauses, *kinds: Kind[Any]) -> AsyncIterator[Mirror]:
    mirror = Mirror(
        cast(Store, world), kinds or (NAMESPACE,), sleep=pauses.sleep, jitter=lambda: 1.0, clock=lambda: world.now_s
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(mirror.run())
        yield mirror
        task.cancel()


def told(batch: Batch) -> list[tuple[str, str]]:
    return [(e.type, e.object.key.name) for e in batch.events if e.object]


async def settle() -> None:
    """Lets everything that can run do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_first_batch_is_what_is_there_and_later_ones_what_happens(world: World, pauses: Pauses) -> None:
    world.put(NAMESPACE, "a", quietly=True)
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        first = await anext(batches)
        assert (told(first), first.in_sync, dict(first.revisions)) == ([("put", "a")], True, {"Namespace": 2})
        world.put(NAMESPACE, "b")
        world.remove(NAMESPACE, "a")
        assert told(await anext(batches)) == [("put", "b"), ("deleted", "a")]
        assert [key.name for key in mirror.current(NAMESPACE)] == ["b"]
        assert mirror.connected


async def test_a_batch_says_when_the_first_of_it_was_delivered(world: World, pauses: Pauses) -> None:
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        assert (await anext(batches)).since_s == 7.0
        for now_s, name in ((8.0, "a"), (9.0, "b")):
            world.now_s = now_s
            world.put(NAMESPACE, name)
            await settle()
        batch = await anext(batches)
        assert (told(batch), batch.since_s) == ([("put", "a"), ("put", "b")], 8.0)
        world.put(NAMESPACE, "c")
        await settle()
        assert (await anext(batches)).since_s == 9.0


async def test_in_sync_waits_for_all_kinds_and_says_so_even_without_events(world: World, pauses: Pauses) -> None:
    world.put(NAMESPACE, "a", quietly=True)
    world.list_failures = [Unavailable("down")]
    pauses.open.clear()
    async with running(world, pauses, NODE, NAMESPACE) as mirror:
        batches = mirror.batches()
        first = await anext(batches)
        assert (told(first), first.in_sync, mirror.in_sync, mirror.connected) == ([("put", "a")], False, False, False)
        assert mirror.connections["Node"].error == "down"
        pauses.open.set()
        second = await anext(batches)
        assert (told(second), second.in_sync, mirror.in_sync) == ([], True, True)
        await settle()
        assert mirror.connected


async def test_events_of_several_kinds_come_in_the_stores_order(world: World, pauses: Pauses) -> None:
    async with running(world, pauses, NODE, NAMESPACE) as mirror:
        batches = mirror.batches()
        await settle()
        await anext(batches)
        for name in "abc":
            world.put(NAMESPACE, name)
            world.put(NODE, name)
        await settle()
        batch = await anext(batches)
        assert [e.revision for e in batch.events] == [2, 3, 4, 5, 6, 7]
        assert dict(batch.revisions) == {"Namespace": 6, "Node": 7}


async def test_a_bookmark_is_a_batch_that_only_moves_revisions(world: World, pauses: Pauses) -> None:
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        await anext(batches)
        world.tell(NAMESPACE, Event(type="bookmark", revision=40))
        batch = await anext(batches)
        assert (batch.events, dict(batch.revisions)) == ((), {"Namespace": 40})


async def test_a_broken_watch_goes_on_from_where_it_was(world: World, pauses: Pauses) -> None:
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        await anext(batches)
        world.put(NAMESPACE, "a")
        await anext(batches)
        world.tell(NAMESPACE, Unavailable("cut"))
        world.put(NAMESPACE, "b")
        assert told(await anext(batches)) == [("put", "b")]
        assert world.calls == ["list Namespace", "watch Namespace 1", "probe Namespace", "watch Namespace 2"]
        assert mirror.connected


async def test_an_expired_watch_lists_again_and_tells_the_difference(world: World, pauses: Pauses) -> None:
    for name in "abc":
        world.put(NAMESPACE, name, quietly=True)
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        await anext(batches)
        world.put(NAMESPACE, "a", quietly=True)
        world.remove(NAMESPACE, "b", quietly=True)
        world.put(NAMESPACE, "d", quietly=True)
        world.tell(NAMESPACE, Expired("too old"))
        assert sorted(told(await anext(batches))) == [("deleted", "b"), ("put", "a"), ("put", "d")]
        assert world.calls == ["list Namespace", "watch Namespace 4", "list Namespace", "watch Namespace 7"]


async def test_a_store_that_was_put_back_is_listed_again(world: World, pauses: Pauses) -> None:
    world.put(NAMESPACE, "kept", quietly=True)
    world.put(NAMESPACE, "lost", quietly=True)
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        await anext(batches)
        world.objects.pop(Key("Namespace", "lost"))
        world.revision -= 1
        world.tell(NAMESPACE, Unavailable("gone"))
        assert told(await anext(batches)) == [("deleted", "lost")]
        assert world.calls[2:] == ["probe Namespace", "list Namespace", "watch Namespace 2"]


async def test_an_object_that_became_unreadable_stays_at_its_last_good_version(world: World, pauses: Pauses) -> None:
    world.put(NAMESPACE, "a", quietly=True)
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        await anext(batches)
        world.unreadable.add(Key("Namespace", "a"))
        world.tell(NAMESPACE, Expired("too old"))
        assert told(await anext(batches)) == []
        assert [key.name for key in mirror.current(NAMESPACE)] == ["a"]


async def test_while_down_it_waits_longer_and_longer_and_says_why(world: World, pauses: Pauses) -> None:
    world.list_failures = [Unavailable("one"), Unauthorized("two"), Unavailable("three")]
    async with running(world, pauses) as mirror:
        await settle()
        assert pauses.waits_s == [0.1, 0.2, 0.4]
        assert mirror.connected
        pauses.open.clear()
        world.tell(NAMESPACE, Unavailable("four"))
        await settle()
        assert (mirror.connected, mirror.connections["Namespace"].error) == (False, "four")
        assert mirror.in_sync, "what was known is still known"


async def test_a_watch_that_told_something_begins_the_waits_anew(world: World, pauses: Pauses) -> None:
    async with running(world, pauses):
        await settle()
        for _ in range(3):
            world.tell(NAMESPACE, Unavailable("cut"))
        await settle()
        world.put(NAMESPACE, "a")
        world.tell(NAMESPACE, Unavailable("cut"))
        await settle()
        assert pauses.waits_s == [0.1, 0.2, 0.4, 0.1]


async def test_a_slow_consumer_gets_the_newest_of_each_object(world: World, pauses: Pauses) -> None:
    async with running(world, pauses) as mirror:
        batches = mirror.batches()
        await anext(batches)
        for _ in range(5):
            world.put(NAMESPACE, "a")
            world.put(NAMESPACE, "b")
        await settle()
        batch = await anext(batches)
        assert told(batch) == [("put", "a"), ("put", "b")]
        assert [e.revision for e in batch.events] == [10, 11]


async def test_an_error_that_is_no_stores_ends_the_mirror(world: World, pauses: Pauses) -> None:
    world.list_failures = [ZeroDivisionError("a bug")]
    with pytest.raises(ExceptionGroup) as raised:
        async with running(world, pauses):
            await settle()
    assert raised.value.split(ZeroDivisionError)[1] is None
