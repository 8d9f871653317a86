"""pycalicoctl on a real store in a file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from calipy.ctl.main import pycalicoctl
from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Stored
from calipy.resources.metadata import Kind

Ctl = Callable[..., Result]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without objects, made once."""
    path = tmp_path_factory.mktemp("ctl") / "datastore.sqlite3"

    async def make() -> None:
        await (await SQLiteStore.open(path)).close()

    asyncio.run(make())
    return path


@pytest.fixture
def store_path(empty_store: Path, tmp_path: Path) -> Path:
    """An empty store of the test's own."""
    return Path(shutil.copy(empty_store, tmp_path))


@pytest.fixture
def ctl(store_path: Path) -> Ctl:
    """Runs pycalicoctl with words, on that store, with `stdin`."""

    def invoke(*words: str, stdin: str | None = None) -> Result:
        arguments = ["--datastore", f"sqlite:{store_path}", *words]
        return CliRunner().invoke(pycalicoctl, arguments, input=stdin, catch_exceptions=False)

    return invoke


@pytest.fixture
def stored(store_path: Path) -> Callable[..., Any]:
    """An object as the store has it."""

    def read(kind: Kind[Any], name: str, namespace: str = "") -> Stored[Any]:
        async def get() -> Stored[Any]:
            store = await SQLiteStore.open(store_path)
            try:
                return await store.get(kind, name, namespace)
            finally:
                await store.close()

        return asyncio.run(get())

    return read
