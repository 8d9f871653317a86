"""The contract of all stores, on a real API server: the tests of tests/contract, with its fixtures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from calipy.datastore.kubernetes.credentials import find
from calipy.datastore.kubernetes.store import KubernetesStore
from calipy.datastore.stores import Store
from tests.cluster.conftest import CRDS
from tests.cluster.control_plane import ApiServer
from tests.cluster.stores import ApiBackDoor, empty, prepare
from tests.contract.test_datastore import *  # noqa: F403
from tests.contract.test_datastore_mirror import *  # noqa: F403
from tests.contract.test_datastore_watches import *  # noqa: F403

del test_a_bookmark_says_how_far_a_watch_without_events_has_come  # noqa: F821  a server sends one a minute


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """One of this module's own: its definitions are looser than ours."""
    with ApiServer.running() as server:
        prepare(server, CRDS)
        yield server


@pytest.fixture
async def open_store(api: ApiServer) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    """Opens one more client of the same store."""
    opened: list[Store] = []

    async def another() -> Store:
        credentials = find(str(api.kubeconfig), {})
        opened.append(await KubernetesStore.open(credentials))
        return opened[-1]

    yield another
    for store in opened:
        await store.close()


@pytest.fixture
async def store(api: ApiServer, open_store: Callable[[], Awaitable[Store]]) -> AsyncIterator[Store]:
    """A store under test, empty."""
    yield await open_store()
    empty(api)


@pytest.fixture
def back_door(api: ApiServer) -> ApiBackDoor:
    """The back door of `store`."""
    return ApiBackDoor(api)


@pytest.fixture
def forgotten() -> Callable[[], Awaitable[int]]:
    """Gives a revision from which no watch of IPAMHandles can go on: the server's cache of them began later."""

    async def forget() -> int:
        return 1

    return forget
