"""The embedded store, as the contract tests take it: with a back door, for what only others would write. On a real API
server the same tests run in tests/cluster."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Store
from calipy.resources import ipam_handles
from calipy.resources.ipam_handles import IPAMHandle, IPAMHandleSpec
from calipy.resources.metadata import Key, Kind, ObjectMeta, decode
from tests.contract.faulty import Canned, Faulty


class BackDoor(Protocol):
    """The store's data as another program sees it."""

    def read(self, key: Key) -> dict[str, Any]:
        """The whole object."""
        ...

    def write(self, key: Key, document: dict[str, Any]) -> None:
        """Replaces the object's text, as a write of somebody who knows more fields, or fewer rules."""
        ...


class SQLiteBackDoor:
    """The embedded store's file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, key: Key) -> dict[str, Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            where = (key.kind, key.namespace, key.name)
            text = connection.execute("SELECT text FROM objects WHERE (kind, namespace, name) = (?, ?, ?)", where)
            return msgspec.json.decode(text.fetchone()[0])

    def write(self, key: Key, document: dict[str, Any]) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            (newest,) = connection.execute("SELECT max(revision) FROM objects").fetchone()
            document["metadata"]["resourceVersion"] = str(newest + 1)
            row = (newest + 1, msgspec.json.encode(document).decode(), key.kind, key.namespace, key.name)
            statement = "UPDATE objects SET revision = ?, text = ? WHERE (kind, namespace, name) = (?, ?, ?)"
            connection.execute(statement, row)
        os.utime(self.path)


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """The embedded store's file; nothing is there yet."""
    return tmp_path / "calipy" / "store.db"


@pytest.fixture
async def open_store(sqlite_path: Path) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    """Opens one more client of the same store."""
    opened: list[Store] = []

    async def another() -> Store:
        opened.append(await SQLiteStore.open(sqlite_path, bookmark_delay_s=0.01, history=16))
        return opened[-1]

    yield another
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Callable[[], Awaitable[Store]]) -> Store:
    """A store under test, empty."""
    return await open_store()


@pytest.fixture
def forgotten(store: Store) -> Callable[[], Awaitable[int]]:
    """Gives a revision from which no watch of IPAMHandles can go on."""

    async def forget() -> int:
        since = 0
        for n in range(40):  # the stores remember 16 deletions
            value = IPAMHandle(metadata=ObjectMeta(name=f"h{n}"), spec=IPAMHandleSpec(handle_id="h", block={}))
            created = await store.create(ipam_handles.KIND, value)
            since = since or created.revision
            await store.delete(ipam_handles.KIND, created)
        return since

    return forget


@pytest.fixture
def plant(store: Store) -> Callable[[Kind[Any], dict[str, Any]], Awaitable[Key]]:
    """Makes an object of a document, and tells its key."""

    async def create(kind: Kind[Any], document: dict[str, Any]) -> Key:
        return (await store.create(kind, decode(kind, msgspec.json.encode(document)))).key

    return create


@pytest.fixture
async def faulty() -> AsyncIterator[Faulty]:
    """A server that has faults, and behind them a few answers that are right."""
    async with Faulty(Canned()).serving() as server:
        yield server


@pytest.fixture
def token() -> str:
    """What `faulty` lets in."""
    return "sesame"


@pytest.fixture
def back_door(store: Store, sqlite_path: Path) -> BackDoor:
    """The back door of `store`."""
    return SQLiteBackDoor(sqlite_path)
