"""Reading what is new in the embedded store, and hearing that there is something to read.

A writer touches the database file after each commit (`ring`); inotify reports that as IN_ATTRIB. The write-ahead log
itself would ring too early: a commit is visible only once the shared-memory index is written, which inotify doesn't
see. A writer that dies between commit and touch is heard too: the kernel closes its descriptor (IN_CLOSE_WRITE).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from inotify_simple import INotify, flags

from calipy.datastore.sqlite_files import DatabaseFile
from calipy.datastore.sqlite_schema import CHANGES, FORGOTTEN, NEWEST, Row
from calipy.datastore.stores import Expired, Unavailable

_ROWS_AT_ONCE = 500
_EVENTS = flags.ATTRIB | flags.CLOSE_WRITE | flags.MOVE_SELF | flags.DELETE_SELF


class Window(msgspec.Struct, frozen=True, gc=False):
    """What one read found, in one snapshot: rows in order of revision; the revision up to which nothing is missing;
    the store's newest revision; the revision up to which deletions may be forgotten."""

    rows: tuple[Row, ...]
    revision: int
    newest: int
    forgotten: int


class Tail:
    """The end of the store's history: one connection that reads it, one inotify descriptor that tells of more."""

    def __init__(self, file: DatabaseFile, on_change: Callable[[], None]) -> None:
        self._file = file
        self._path = file.path
        self._on_change = on_change
        self._connection = file.connect()
        try:
            self._identity = file.identity()
            self._notices = INotify(nonblocking=True)
            self._notices.add_watch(file.path, _EVENTS)
        except OSError as error:
            self._connection.close()
            raise Unavailable(_deaf(file.path, error)) from error
        except Unavailable:
            self._connection.close()
            raise
        asyncio.get_running_loop().add_reader(self._notices.fileno(), self._heard)

    def read(self, kinds: Iterable[str], since: int) -> Window:
        """What happened to objects of `kinds` after revision `since`, at most 500 rows of it. Raises sqlite3.Error."""
        self._connection.execute("BEGIN")
        try:
            (newest,) = self._connection.execute(NEWEST).fetchone()
            if newest == since:  # a ring for what is told already
                return Window((), newest, newest, newest)
            (forgotten,) = self._connection.execute(FORGOTTEN).fetchone()
            names = msgspec.json.encode(tuple(kinds)).decode()
            parameters = {"since": since, "kinds": names, "limit": _ROWS_AT_ONCE}
            rows = tuple(Row(*found) for found in self._connection.execute(CHANGES, parameters))
        finally:
            self._connection.execute("ROLLBACK")
        return Window(rows, rows[-1].revision if len(rows) == _ROWS_AT_ONCE else newest, newest, forgotten)

    def check(self) -> None:
        """Raises Unavailable when there is no file at the path any more, Expired when there is another one."""
        if self._file.identity() != self._identity:
            raise Expired(f"{self._path} was replaced while in use; list again")

    def close(self) -> None:
        """Lets go of connection and descriptor."""
        asyncio.get_running_loop().remove_reader(self._notices.fileno())
        self._notices.close()
        self._connection.close()

    def _heard(self) -> None:
        self._notices.read(timeout=0)
        self._on_change()


def ring(path: Path) -> None:
    """Tells all tails, in every process, that there is something to read."""
    try:
        os.utime(path)
    except OSError as error:
        reason = f"the file was removed or can't be touched while in use ({error.strerror})"
        raise Unavailable(f"{path}: {reason}; restart CalIPy on this node") from error


def _deaf(path: Path, error: OSError) -> str:
    remedy = "raise the sysctls fs.inotify.max_user_instances and max_user_watches, or check that the file exists"
    return f"{path}: can't be watched: {error.strerror}; {remedy}"
