"""The store that a command works on. It is opened, never made: reading leaves no empty cluster behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from calipy.console.failures import Failure
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Store
from calipy.settings import client_datastore

_SQLITE = "sqlite:"


def location(given: str, environment: Mapping[str, str]) -> str:
    """`--datastore`, else what `settings.client_datastore` finds. Raises Failure, SettingError."""
    if given and not (given.startswith(_SQLITE) and len(given) > len(_SQLITE)):
        raise Failure("--datastore", "is no datastore", "write sqlite:<path>", value=given)
    return given or client_datastore(environment)


@asynccontextmanager
async def opened(where: str) -> AsyncIterator[Store]:
    """The store at `where` (`sqlite:<path>`). Raises Failure if there is none."""
    store = await SQLiteStore.open(_existing(where))
    try:
        yield store
    finally:
        await store.close()


def _existing(where: str) -> Path:
    path = Path(where.removeprefix(_SQLITE))
    if not os.path.exists(path):
        remedy = "start a lab with `calipy lab up`, or name a store with --datastore or CALIPY_DATASTORE"
        raise Failure(f"datastore {where}", "is not there", remedy)
    return path
