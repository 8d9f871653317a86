"""Watches: one request that goes on for minutes, and another one after it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import msgspec
from msgspec import Struct

from calipy.datastore.kubernetes.calls import Call, on_kind
from calipy.datastore.kubernetes.client import Client
from calipy.datastore.kubernetes.failures import of_status, status_of
from calipy.datastore.kubernetes.objects import Objects, WatchEvent, identity
from calipy.datastore.stores import Event, Expired, Unavailable
from calipy.resources.metadata import Kind, R

_SHORTEST_S = 1.0
"""A stream that ends sooner, and has told nothing, is no good one: whoever watches is to wait before the next."""


class Lasting(Struct, frozen=True, gc=False):
    """How long the server is asked to keep one stream open: between so many seconds and twice as many, so that not all
    watches of a cluster come back at once (client-go's 5 to 10 minutes)."""

    shortest_s: int = 300

    def seconds(self) -> int:
        """Another choice each time."""
        return round(random.uniform(self.shortest_s, 2 * self.shortest_s))


class Watcher:
    """What watches have in common."""

    def __init__(
        self, client: Client, objects: Objects, lasting: Lasting, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._objects = objects
        self._lasting = lasting
        self._clock = clock

    async def follow(self, kind: Kind[R], since: int) -> AsyncGenerator[Event[R], None]:
        """Changes after revision `since`, without end: that the server ends a stream after the time that it was given
        is no event. Raises Expired, Unavailable, Unauthorized."""
        while True:
            began, before = self._clock(), since
            async with aclosing(self._one_stream(kind, since)) as events:
                async for event in events:
                    since = event.revision
                    yield event
            if since == before and self._clock() - began < _SHORTEST_S:
                reason = "the server has ended the stream at once"
                raise Unavailable(f"{self._client.server}: watch {kind.plural}: {reason}; look at its logs")

    async def _one_stream(self, kind: Kind[R], since: int) -> AsyncGenerator[Event[R], None]:
        query = {
            "watch": "1",
            "resourceVersion": str(since),
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._lasting.seconds()),
        }
        call = on_kind("watch", kind, query=query)
        async with self._client.stream(call) as chunks:
            async for line in _lines(chunks):
                yield self._event(call, kind, line)

    def _event(self, call: Call, kind: Kind[R], line: bytes) -> Event[R]:
        try:
            event = msgspec.json.decode(line, type=WatchEvent)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Unavailable(f"{self._client.server}: watch {kind.plural}: an event can't be read: {error}") from error
        text = bytes(event.object)
        if event.type == "ERROR":
            status = status_of(500, text)
            raise of_status(self._client.server, call, status.code, status)
        if event.type == "BOOKMARK":
            return Event(type="bookmark", revision=identity(kind, text)[1])
        return self._change(kind, text, deleted=event.type == "DELETED")

    def _change(self, kind: Kind[R], text: bytes, *, deleted: bool) -> Event[R]:
        stored = self._objects.of_many(kind, text)
        if stored is None:
            key, revision = identity(kind, text)
            if deleted:
                self._objects.misfits.forget(key)
                raise Expired(f"{key} was deleted, and can't be decoded to be told of; list again")
            return Event(type="bookmark", revision=revision)
        return Event(type="deleted" if deleted else "put", revision=stored.revision, object=stored)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of any length. What is behind the last newline is no whole event: the server was cut off."""
    parts: list[bytes] = []
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*parts, line))
            parts.clear()
        if rest:
            parts.append(rest)
