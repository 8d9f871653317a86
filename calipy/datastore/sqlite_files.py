"""The embedded store's file: making and opening it, waiting for its lock, and saying what is wrong with it."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from calipy.datastore.sqlite_schema import WrongDatabase, check, prepare
from calipy.datastore.stores import Unavailable

T = TypeVar("T")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.0002, 0.01
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PRIMARY_CODE = 0xFF
"""An extended result code holds the primary one in its low byte (sqlite.org/rescode.html)."""

_WRONG = {
    sqlite3.SQLITE_FULL: "there is no space left on its device; free some in {folder}",
    sqlite3.SQLITE_READONLY: "it can't be written; check owner and mode of the file and of {folder}",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; check that {folder} exists and can be written, and both modes",
    sqlite3.SQLITE_PERM: "it can't be accessed; check owner and mode of the file",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop CalIPy, move it away and restore a backup",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; stop CalIPy, move it away and restore a backup",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; look into the kernel's log, and for space in {folder}",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; find it with `fuser {path}`",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; find it with `fuser {path}`",
}


Identity = tuple[int, int]
"""Which file: device and inode."""


class DatabaseFile:
    """One database file. Connections of it belong to the thread of the event loop."""

    def __init__(self, path: Path, *, busy_limit_s: float) -> None:
        self.path = path
        self._busy_limit_s = busy_limit_s
        self._known: Identity | None = None
        self._log: Identity | None = None
        """Of the file that was connected to last, and of its write-ahead log."""

    async def make(self) -> sqlite3.Connection:
        """The first connection: makes folder (0700), file (0600) and tables where they are missing."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_file()
        except OSError as error:
            raise Unavailable(f"{self.path}: can't be made: {error.strerror}; check {self.path.parent}") from error
        return await self.patiently(self._prepared)

    def identity(self) -> Identity:
        """Which file is at the path now. Raises Unavailable where there is none."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            reason = f"the file was removed or can't be reached while in use ({error.strerror})"
            raise Unavailable(f"{self.path}: {reason}; put it back, or restart CalIPy on this node") from error
        return found.st_dev, found.st_ino

    def reconnect(self) -> sqlite3.Connection:
        """A connection to the file that is at the path now, which is taken as it is: an empty one is refused, not
        filled. Raises sqlite3.Error, WrongDatabase, Unavailable."""
        return self.connect(check)

    def note_log(self) -> None:
        """Remembers which file the write-ahead log is: it is made with the first transaction, and stays."""
        self._log = self._log or self._log_identity()

    def _refuse_others_log(self, identity: Identity) -> None:
        """SQLite would play the former file's log into a file that was put in its place, and ruin it."""
        if self._known not in (None, identity) and self._log is not None and self._log_identity() == self._log:
            reason = "was replaced while in use, but the former file's write-ahead log is still beside it"
            remedy = f"remove {self.path}-wal and {self.path}-shm, or stop CalIPy before a backup is put back"
            raise Unavailable(f"{self.path}: the file {reason}; {remedy}")

    def _log_identity(self) -> Identity | None:
        try:
            found = os.stat(f"{self.path}-wal")
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def connect(self, judge: Callable[[sqlite3.Connection], None] = lambda connection: None) -> sqlite3.Connection:
        """One more connection. `busy_timeout` is 0: waiting is the event loop's business. `judge` may raise before
        anything is written. Raises sqlite3.Error, Unavailable."""
        identity = self.identity()
        self._refuse_others_log(identity)
        if identity != self._known:
            self._known, self._log = identity, None
        # mode=rw: a file that was removed must not come back empty.
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None
        )
        try:
            judge(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        self.note_log()
        return connection

    async def patiently(self, work: Callable[[], T]) -> T:
        """What `work` returns; while another process holds the lock, tries again, with jitter, up to the limit.
        Every other error of SQLite's becomes Unavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._busy_limit_s
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                return work()
            except (sqlite3.Error, WrongDatabase) as error:
                if not is_busy(error) or loop.time() >= deadline:
                    raise self.unavailable(error) from error
            # SQLite tells nobody when it lets go of a lock.
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def unavailable(self, error: Exception) -> Unavailable:
        """The store's error for one of SQLite's: path, reason and remedy."""
        if isinstance(error, WrongDatabase):
            return Unavailable(f"{self.path}: {error}")
        remedy = _WRONG.get(_code(error), "see sqlite.org/rescode.html")
        return Unavailable(f"{self.path}: {error}: {remedy.format(folder=self.path.parent, path=self.path)}")

    def _make_file(self) -> None:
        try:
            # Only a file that we make is opened here: closing a descriptor drops all locks that this process has on
            # the file (POSIX fcntl), another connection's too.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass

    def _prepared(self) -> sqlite3.Connection:
        connection = self.connect()
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def checkpoint(path: Path) -> None:
    """Moves the write-ahead log into the database. Blocks for two fsyncs: for a thread that may. Writers go on; where
    this is called now and then, their own checkpoint (every 1000 pages, about 10 ms) hardly ever comes.
    Raises sqlite3.Error, Unavailable."""
    with closing(DatabaseFile(path, busy_limit_s=0).connect()) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def written_at(path: Path) -> int:
    """When something was last written into the write-ahead log (nanoseconds of the wall clock); 0 if there is none."""
    try:
        return os.stat(f"{path}-wal").st_mtime_ns
    except OSError:
        return 0


def is_busy(error: Exception) -> bool:
    """True when another connection holds a lock: trying again may succeed."""
    return _code(error) in _BUSY


def _code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE if isinstance(code, int) else 0
