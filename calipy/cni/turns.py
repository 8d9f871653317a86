"""Turns: those who work on one thing do so one after another, others don't wait; and a few at a time of those who could
all work at once, in the order in which they came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """A lock for each key, there only while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Waits for its turn with `key`, and holds it."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]

    def __len__(self) -> int:
        """How many keys are held or waited for."""
        return len(self._locks)


class Gate:
    """Lets a few work at a time. All at once would all be done at the end; a few at a time are done sooner, and the
    last of them no later. Nobody waits for long: one who is stuck inside doesn't keep the others out."""

    def __init__(self, most: int, patience_s: float) -> None:
        self._slots = asyncio.Semaphore(most)
        self._patience_s = patience_s

    @contextlib.asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Waits for a place inside, or until the patience is over, and goes in."""
        has_slot = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                has_slot = await self._slots.acquire()
        try:
            yield
        finally:
            if has_slot:
                self._slots.release()
