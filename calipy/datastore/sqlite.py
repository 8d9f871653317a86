"""The embedded store: one SQLite file, used by several processes at once, for clusters without Kubernetes.

It keeps the protocol's promises as an API server does: one revision counter over all kinds, compare-and-swap, uid and
generation, finalizers, watches that resume. SQLite runs on the event loop: WAL, synchronous=NORMAL (a power cut may
lose the last commits, never the file), no busy timeout; a held lock is awaited.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from calipy.datastore import sqlite_schema as sql
from calipy.datastore.lifecycles import accept_change, check_metadata
from calipy.datastore.misfits import Misfits
from calipy.datastore.patches import encode_patch
from calipy.datastore.sqlite_files import DatabaseFile
from calipy.datastore.sqlite_pages import pages
from calipy.datastore.sqlite_tails import ring
from calipy.datastore.sqlite_watches import Watches
from calipy.datastore.sqlite_writes import Writes
from calipy.datastore.stores import Event, Expired, NotFound, Page, Store, Stored
from calipy.resources.metadata import Key, Kind, R, Refused, accept, decode

T = TypeVar("T")
_LOG = logging.getLogger("calipy.datastore")


def wall_clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


class SQLiteStore(Store):
    """A store in a file. Make it by `open`; use it on that event loop alone."""

    def __init__(
        self, file: DatabaseFile, connection: sqlite3.Connection, *, now: Callable[[], datetime], history: int,
        bookmark_delay_s: float,
    ) -> None:  # fmt: skip
        self._file = file
        self._connection = connection
        self._identity = file.identity()
        self._now = now
        self._history = history
        self._writes = Writes(connection, history=history)
        self._watches = Watches(file, bookmark_delay_s=bookmark_delay_s)
        self._misfits = Misfits()

    @classmethod
    async def open(
        cls, path: Path, *, now: Callable[[], datetime] = wall_clock, busy_limit_s: float = 5.0, history: int = 2000,
        bookmark_delay_s: float = 1.0,
    ) -> SQLiteStore:  # fmt: skip
        """The store in `path`, made (folder 0700, file 0600) if it isn't there. A write waits `busy_limit_s` for
        other processes' locks; the last `history` deletions are remembered, a watch from before them is Expired;
        a watch without events hears after `bookmark_delay_s` how far the store has come. Raises Unavailable."""
        file = DatabaseFile(path, busy_limit_s=busy_limit_s)
        connection = await file.make()
        return cls(file, connection, now=now, history=history, bookmark_delay_s=bookmark_delay_s)

    async def get(self, kind: Kind[R], name: str, namespace: str = "") -> Stored[R]:
        """The object; raises NotFound, or Refused if its text can't be decoded."""
        key = Key(kind.name, name, namespace)
        parameters = (key.kind, key.namespace, key.name)
        found = await self._file.patiently(lambda: self._current().execute(sql.GET, parameters).fetchone())
        if found is None:
            self._misfits.forget(key)
            raise NotFound(f"{key} does not exist in {self._file.path}")
        revision, uid, text = found
        return Stored(key=key, uid=uid, revision=revision, value=_decode_named(kind, key, text))

    async def list(
        self, kind: Kind[R], *, namespace: str = "", labels: Mapping[str, str] | None = None, page_size: int = 500
    ) -> AsyncIterator[Page[R]]:
        """All pages show one moment: they are read in one snapshot. Between two, the loop has its turn."""
        if not namespace and not labels:
            self._misfits.restart(kind.name)
        found = pages(self._file, kind.name, namespace=namespace, labels=labels or {}, page_size=page_size)
        async with aclosing(found):
            async for revision, rows in found:
                objects = (self._stored(kind, row) for row in rows)
                yield Page(items=tuple(stored for stored in objects if stored), revision=revision)

    async def watch(self, kind: Kind[R], since: int) -> AsyncIterator[Event[R]]:
        """The changes after revision `since`. A watch that lags sees only the newest of several changes to one object,
        at its revision. Raises Expired."""
        async with aclosing(self._watches.follow(kind.name, since)) as news:
            async for row in news:
                if isinstance(row, int):
                    yield Event(type="bookmark", revision=row)
                elif stored := self._stored(kind, row):
                    yield Event(type="deleted" if row.deleted else "put", revision=row.revision, object=stored)
                elif row.deleted:
                    key = Key(row.kind, row.name, row.namespace)
                    raise Expired(f"{key} was deleted, and can't be decoded to be told of; list again")
                else:
                    yield Event(type="bookmark", revision=row.revision)

    async def create(self, kind: Kind[R], value: R) -> Stored[R]:
        """Stores a new object; raises Exists, Refused."""
        check_metadata(kind, value)
        accept(kind, value)
        uid, at = str(uuid.uuid4()), self._timestamp()
        return await self._write(kind, lambda: self._writes.create(kind, value, uid=uid, at=at))

    async def update(self, kind: Kind[R], old: Stored[R], new: R) -> Stored[R]:
        """Writes the difference; nothing, and no new revision, if there is none. An object whose deletion waits goes
        with its last finalizer. Raises Conflict, NotFound, Refused."""
        accept_change(kind, old.value, new)
        patch = encode_patch(kind, old.value, new)
        return await self._write(kind, lambda: self._writes.update(kind, old, patch))

    async def delete(self, kind: Kind[R], old: Stored[R]) -> None:
        """Deletes the object, or marks it while it has finalizers. Raises Conflict, NotFound."""
        await self._write(kind, lambda: self._writes.delete(old, at=self._timestamp()))

    @property
    def unreadable(self) -> Mapping[Key, str]:
        """Objects that listings and watches have left out because they can't be decoded, and why. A live view."""
        return MappingProxyType(self._misfits.reasons)

    async def close(self) -> None:
        """Ends watches with Unavailable and lets go of the file."""
        self._watches.close()
        self._connection.close()

    async def _write(self, kind: Kind[R], work: Callable[[], T]) -> T:
        result = await self._file.patiently(lambda: self._in_transaction(work))
        self._watches.wrote(kind.name, self._writes.newest)
        ring(self._file.path)
        return result

    def _current(self) -> sqlite3.Connection:
        """The connection to the file that is at the path now: what is written into one that was moved away is lost.
        Raises Unavailable where there is none."""
        identity = self._file.identity()
        if identity != self._identity:
            fresh = self._file.reconnect()
            self._connection.close()
            self._connection, self._identity = fresh, identity
            self._writes = Writes(fresh, history=self._history)
            _LOG.warning("%s was replaced while in use: going on with the new file", self._file.path)
        return self._connection

    def _in_transaction(self, work: Callable[[], T]) -> T:
        connection = self._current()
        connection.execute("BEGIN IMMEDIATE")
        self._writes.newest = 0
        try:
            result = work()
            connection.execute("COMMIT")
            self._file.note_log()
            return result
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _stored(self, kind: Kind[R], row: sql.Row) -> Stored[R] | None:
        key = Key(row.kind, row.name, row.namespace)
        stored = self._misfits.stored(kind, key, row.uid, row.revision, row.text)
        if row.deleted:
            self._misfits.forget(key)
        return stored

    def _timestamp(self) -> str:
        return self._now().replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _decode_named(kind: Kind[R], key: Key, text: str) -> R:
    """Decodes, and names the very object where that fails."""
    try:
        return decode(kind, text)
    except Refused as refused:
        raise Refused(str(key), refused.problems) from refused
