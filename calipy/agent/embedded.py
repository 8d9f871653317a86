"""The embedded store as the agent uses it. Its client is imported when it is opened: the closed skeleton is first."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from pathlib import Path

from calipy.datastore.stores import Store, StoreError

_CHECKPOINT_S = 5.0
log = logging.getLogger("calipy.agent")


class Embedded:
    """One database file."""

    embedded = True

    def __init__(self, path: Path, thread: Executor) -> None:
        """`thread` does what waits for the disk."""
        self._path = path
        self._thread = thread

    async def open(self) -> Store:
        """Raises StoreError."""
        from calipy.datastore.sqlite import SQLiteStore

        return await SQLiteStore.open(self._path)

    async def keep(self) -> None:
        """Moves the store's log into its database on the thread, without end: else a write on the loop would, now and
        then, with its two fsyncs."""
        import sqlite3

        from calipy.datastore.sqlite_files import checkpoint, written_at

        done = 0
        while True:
            await asyncio.sleep(_CHECKPOINT_S)
            written = written_at(self._path)
            if written == done:
                continue
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, checkpoint, self._path)
                done = written
            except (sqlite3.Error, StoreError) as error:
                log.warning("%s: its log can't be moved into it: %s", self._path, error)
