"""Turns: those who work on one thing do so one after another, others don't wait; and a few at a time of those who could
all work at once, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

_Place = asyncio.Future[None]
"""Of one who waits: it is done when he may go on."""


class Turns:
    """Queues by key, there only while somebody holds a key or waits for it."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[_Place]] = {}
        """Key that is held -> those who wait for it."""

    def of(self, *keys: str) -> Turn:
        """`async with`: waits for its turn with each key, in this order, and holds them. A key may be named twice."""
        return Turn(self, tuple(dict.fromkeys(keys)))

    async def take(self, key: str) -> None:
        """Waits for a turn."""
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
            return
        place: _Place = asyncio.get_running_loop().create_future()
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # its turn had come
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """The next one's turn."""
        queue = self._queues[key]
        while queue:
            place = queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._queues[key]

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._queues)


class Turn:
    """One's turn with some keys."""

    __slots__ = ("_held", "_keys", "_turns")

    def __init__(self, turns: Turns, keys: tuple[str, ...]) -> None:
        self._turns = turns
        self._keys = keys
        self._held = 0

    async def __aenter__(self) -> None:
        try:
            for key in self._keys:
                await self._turns.take(key)
                self._held += 1
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        for key in reversed(self._keys[: self._held]):
            self._turns.leave(key)
        self._held = 0


class Gate:
    """Lets a few work at a time, one group after the other: those of a group share what can be shared, and when the
    last of them is out the next are let in. All at once would all be done at the end. Nobody waits for long: a group
    that is stuck inside doesn't keep the others out."""

    def __init__(self, most: int, patience_s: float) -> None:
        self._most = most
        self._patience_s = patience_s
        self._inside: set[_Place] = set()
        self._queue: deque[_Place] = deque()
        self._patience: asyncio.TimerHandle | None = None

    async def enter(self) -> _Place:
        """Waits for its group's turn, and goes in; gives what `leave` needs."""
        place: _Place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        if not self._inside:
            self._admit()
        try:
            await place
        except asyncio.CancelledError:
            self.leave(place)
            raise
        return place

    def leave(self, place: _Place) -> None:
        """Goes out; the last one of a group lets the next in."""
        place.cancel()
        if place in self._inside:
            self._inside.discard(place)
            if not self._inside:
                self._admit()

    def _admit(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._inside.clear()
        while self._queue and len(self._inside) < self._most:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                self._inside.add(place)
        if self._inside:
            self._patience = asyncio.get_running_loop().call_later(self._patience_s, self._admit)
