"""Watches on the embedded store: all of one process share one tail, so one inotify descriptor and one read."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator

from calipy.datastore.sqlite_files import DatabaseFile, is_busy
from calipy.datastore.sqlite_followers import Follower
from calipy.datastore.sqlite_schema import Row
from calipy.datastore.sqlite_tails import Tail, Window
from calipy.datastore.stores import Expired, StoreError, Unavailable

_RETRY_S = 0.01


class Watches:
    """The watches of one process on one file."""

    def __init__(self, file: DatabaseFile, *, bookmark_delay_s: float) -> None:
        self._file = file
        self._bookmark_delay_s = bookmark_delay_s
        self._followers: list[Follower] = []
        self._tail: Tail | None = None
        self._position = 0
        """Revision up to which all followers have been given their rows."""
        self._timers: dict[str, asyncio.Handle] = {}

    async def follow(self, kind: str, since: int) -> AsyncGenerator[Row | int, None]:
        """The rows of `kind` after revision `since`, without end; an int is a revision up to which all has been told.
        Raises Expired, Unavailable."""
        follower = Follower(kind)
        tail = await self._join(follower)
        joined_at = self._position  # what comes later piles up in the follower
        try:
            async for row in self._backlog(tail, kind, since, joined_at):
                yield row
            async for news in self._news(follower, max(since, joined_at)):
                yield news
        finally:
            self._leave(follower)

    def wrote(self, kind: str, revision: int) -> None:
        """This process has made a revision. Where all before it is told, and nobody follows its kind, nothing need be
        read to tell of it."""
        followed = any(follower.kind == kind for follower in self._followers)
        if self._tail is not None and revision == self._position + 1 and not followed:
            self._advance(revision)

    def close(self) -> None:
        """Ends all watches with Unavailable."""
        self._fail(Unavailable(f"{self._file.path}: this process has closed it"))

    async def _backlog(self, tail: Tail, kind: str, since: int, until: int) -> AsyncIterator[Row]:
        position = since
        while True:
            window = await self._file.patiently(lambda since=position: tail.read((kind,), since))  # type: ignore[misc]
            _check_expiry(kind, position, window)
            for row in window.rows:
                if row.revision <= until:
                    yield row
            position = window.revision
            if position >= until:
                return
            await asyncio.sleep(0)

    async def _news(self, follower: Follower, told: int) -> AsyncIterator[Row | int]:
        while True:
            for row in await follower.take():
                yield row
                told = row.revision
            if not follower.news.is_set() and self._position > told:
                told = self._position
                yield told

    async def _join(self, follower: Follower) -> Tail:
        tail = await self._file.patiently(self._opened)
        self._followers.append(follower)
        return tail

    def _opened(self) -> Tail:
        if self._tail is None:
            tail = Tail(self._file, self._pump)
            try:
                self._position = tail.read((), 0).newest
            except BaseException:
                tail.close()
                raise
            self._tail = tail
        return self._tail

    def _leave(self, follower: Follower) -> None:
        if follower in self._followers:
            self._followers.remove(follower)
        if not self._followers:
            self._stop()

    def _fail(self, failure: StoreError) -> None:
        for follower in self._followers:
            follower.fail(failure)
        self._followers.clear()
        self._stop()

    def _stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._tail:
            self._tail.close()
            self._tail = None

    def _pump(self) -> None:
        """Reads what is new and hands it out; goes on in another turn of the loop when there is more."""
        if self._tail is None:
            return
        try:
            self._tail.check()
            window = self._tail.read({follower.kind for follower in self._followers}, self._position)
        except (Unavailable, Expired) as gone:
            self._fail(gone)
        except sqlite3.Error as error:
            if is_busy(error):
                self._again("retry", _RETRY_S)
            else:
                self._fail(self._file.unavailable(error))
        else:
            self._hand_out(window)

    def _hand_out(self, window: Window) -> None:
        if self._position < window.forgotten:
            self._fail(_expired("this process", self._position, window))
            return
        for row in window.rows:
            for follower in self._followers:
                if follower.kind == row.kind:
                    follower.push(row)
        if window.revision < window.newest:
            self._again("more", 0)
        self._advance(window.revision)

    def _advance(self, revision: int) -> None:
        if revision > self._position and "bookmark" not in self._timers:
            self._again("bookmark", self._bookmark_delay_s)
        self._position = revision

    def _again(self, timer: str, delay_s: float) -> None:
        self._timers[timer] = asyncio.get_running_loop().call_later(delay_s, self._due, timer)

    def _due(self, timer: str) -> None:
        self._timers.pop(timer, None)
        if timer != "bookmark":
            self._pump()
            return
        for follower in self._followers:
            follower.news.set()


def _check_expiry(kind: str, since: int, window: Window) -> None:
    if since < window.forgotten:
        raise _expired(f"a watch of {kind}", since, window)
    if since > window.newest:
        reason = f"the store's newest revision is {window.newest}: it was restored from a backup or made anew"
        raise Expired(f"a watch of {kind} can't go on from revision {since}: {reason}; list again")


def _expired(who: str, since: int, window: Window) -> Expired:
    reason = f"deletions up to revision {window.forgotten} are forgotten"
    return Expired(f"{who} can't go on from revision {since}: {reason}; list again")
