"""What one watch on the embedded store hasn't taken yet.

A watch that lags keeps only the newest row of each object, so what it holds is bounded by the objects there are.
"""

from __future__ import annotations

import asyncio

from calipy.datastore.sqlite_schema import Row
from calipy.datastore.stores import StoreError


class Follower:
    """One watch: rows not yet taken, the newest of each object, in order of revision."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.news = asyncio.Event()
        self.failure: StoreError | None = None
        self._rows: dict[tuple[str, str], Row] = {}

    def push(self, row: Row) -> None:
        """A newer row takes the place of an older one and goes last."""
        key = row.namespace, row.name
        self._rows.pop(key, None)
        self._rows[key] = row
        self.news.set()

    def fail(self, failure: StoreError) -> None:
        """Ends the watch with that error."""
        self.failure = failure
        self.news.set()

    async def take(self) -> tuple[Row, ...]:
        """Waits for a wake and takes all rows, perhaps none; raises the failure."""
        await self.news.wait()
        self.news.clear()
        if self.failure:
            raise self.failure
        rows = tuple(self._rows.values())
        self._rows.clear()
        return rows
