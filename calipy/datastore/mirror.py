"""A mirror of several kinds of one store: list, then watch, again after every failure; told in ordered batches."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, cast

from msgspec import Struct

from calipy.datastore.backoffs import Backoff
from calipy.datastore.batches import Batch, Objects, Replica
from calipy.datastore.stores import Expired, NotFound, Store, Stored, StoreError
from calipy.resources.metadata import Key, Kind, R, Refused


class Connection(Struct, frozen=True, gc=False):
    """How one kind's watch is doing: since when (the mirror's clock, seconds), and the error that keeps it down."""

    since_s: float
    error: str = "not listed yet"

    @property
    def up(self) -> bool:
        """True while nothing is wrong."""
        return not self.error


class Mirror:
    """Keeps up with `kinds` of `store` while `run` runs, and tells one consumer by `batches`.

    A watch that breaks goes on from where it was; where it can't (Expired), the kind is listed again and the
    difference told. An object that the store can no longer decode stays at its last good version.
    `sleep`, `jitter` ([0, 1)) and `clock` (monotonic seconds) are seams.
    """

    def __init__(
        self,
        store: Store,
        kinds: Iterable[Kind[Any]],
        *,
        backoff: Backoff = Backoff(),  # noqa: B008  frozen
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._kinds = tuple(kinds)
        self._backoff = backoff
        self._sleep, self._jitter, self._clock = sleep, jitter, clock
        self._replica = Replica(kind.name for kind in self._kinds)
        self._connections = {kind.name: Connection(clock()) for kind in self._kinds}
        self._heard = {kind.name: 0 for kind in self._kinds}
        self._news = asyncio.Event()
        self._since_s = 0.0
        """When the first of the news came that no batch has told yet."""

    async def run(self) -> None:
        """Follows the store until cancelled; a task of the caller's TaskGroup. StoreErrors are retried, for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in self._kinds:
                group.create_task(self._follow(kind), name=f"mirror {kind.name}")

    async def batches(self) -> AsyncIterator[Batch]:
        """What has happened, without end; one consumer. A batch may have no events: revisions or in_sync moved. A
        slow consumer gets fewer, larger ones, in which an object's newest event stands for the earlier ones: a put
        may be of a new object (another uid) under the same key."""
        while True:
            await self._news.wait()
            self._news.clear()
            yield self._replica.take(self._since_s)

    def current(self, kind: Kind[R]) -> Mapping[Key, Stored[R]]:
        """The newest known objects of a kind, perhaps newer than the last batch. A live view: it changes at awaits."""
        return self._replica.objects(kind.name)

    @property
    def in_sync(self) -> bool:
        """True from the first complete listing of all kinds on, whatever happens later."""
        return self._replica.in_sync

    @property
    def unreadable(self) -> Mapping[Key, str]:
        """Objects of the kinds followed that can't be decoded, and why: they stay at their last good version."""
        return {key: reason for key, reason in self._store.unreadable.items() if key.kind in self._connections}

    @property
    def connected(self) -> bool:
        """True while every kind is listed and watched."""
        return all(connection.up for connection in self._connections.values())

    @property
    def connections(self) -> Mapping[str, Connection]:
        """Kind's name -> how its watch is doing, for health reports."""
        return dict(self._connections)

    async def _follow(self, kind: Kind[Any]) -> None:
        failures = 0
        must_list = True
        while True:
            began_s, heard = self._clock(), self._heard[kind.name]
            try:
                await (self._list(kind) if must_list else self._probe(kind))
                must_list = False
                self._note(kind, "")
                await self._watch(kind)
                error = "the watch has ended"
            except StoreError as failed:
                must_list = must_list or isinstance(failed, Expired)
                error = str(failed)
            self._note(kind, error)
            # A watch that told something, or lasted, was a good one.
            lasted = self._clock() - began_s > self._backoff.longest_s
            failures = 1 if lasted or self._heard[kind.name] > heard else failures + 1
            await self._sleep(self._backoff.delay_s(failures, self._jitter()))

    async def _list(self, kind: Kind[Any]) -> None:
        listed: Objects = {}
        revision = 0
        async for page in self._store.list(kind):
            listed.update((stored.key, stored) for stored in page.items)
            revision = page.revision
        missing = self._replica.vanished(kind.name, listed)
        gone = [key for key in missing if await self._is_gone(kind, key)]
        self._replica.replace(kind.name, listed, gone, revision)
        self._tell()

    async def _is_gone(self, kind: Kind[Any], key: Key) -> bool:
        """False for what a listing left out because it can't be decoded: the last good version stays."""
        try:
            await self._store.get(kind, key.name, key.namespace)
        except NotFound:
            return True
        except Refused:
            return False
        return False  # made anew since the listing: the watch tells

    async def _probe(self, kind: Kind[Any]) -> None:
        """One small request: whether the store answers again. A watch says so only with its first event. Raises Expired
        where the store is behind what is known: an API server would let a watch from there wait, and tell nothing."""
        pages = cast(AsyncGenerator[Any, None], self._store.list(kind, page_size=1))
        async with aclosing(pages):
            newest, known = (await anext(pages)).revision, self._replica.revision(kind.name)
        if known is not None and newest < known:
            reason = f"is at revision {newest}, and has told {known} before: it was restored from a backup or made anew"
            raise Expired(f"the store {reason}; {kind.plural} are listed again")

    async def _watch(self, kind: Kind[Any]) -> None:
        since = self._replica.revision(kind.name)
        assert since is not None  # listed before
        async for event in self._store.watch(kind, since):
            self._heard[kind.name] += 1
            self._replica.apply(kind.name, event)
            self._tell()

    def _tell(self) -> None:
        if not self._news.is_set():
            self._since_s = self._clock()
            self._news.set()

    def _note(self, kind: Kind[Any], error: str) -> None:
        if self._connections[kind.name].error != error:
            self._connections[kind.name] = Connection(self._clock(), error)
