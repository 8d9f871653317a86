"""A store in a file, and what the allocator's tests put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calipy.datastore.sqlite import SQLiteStore


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """The store's file."""
    return tmp_path / "store.db"


@pytest.fixture
async def store(store_path: Path) -> AsyncIterator[SQLiteStore]:
    """An empty store."""
    opened = await SQLiteStore.open(store_path)
    yield opened
    await opened.close()
