"""The API server as the contract tests take it: emptied of what they write, with a back door that is kubectl."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calipy.datastore.kubernetes.credentials import find
from calipy.datastore.kubernetes.store import KubernetesStore
from calipy.datastore.stores import Store
from calipy.resources import kinds
from calipy.resources.metadata import Key
from tests.cluster.conftest import CRDS
from tests.cluster.control_plane import ApiServer
from tests.cluster.datastore.definitions import definitions
from tests.contract.faulty import Faulty, before

WRITTEN = ("ipamhandles.projectcalico.org", "globalnetworksets.projectcalico.org", "networksets.projectcalico.org")
"""What the contract tests write."""
NAMESPACES = ("one", "two")


@pytest.fixture(scope="session")
def api() -> Iterator[ApiServer]:
    """One of these tests' own: its definitions are looser than ours, and it is stopped at will."""
    with ApiServer.running() as server:
        _prepare(server, CRDS)
        yield server


def _prepare(api: ApiServer, folder: Path) -> None:
    """Definitions and namespaces are there."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": definitions(folder)})
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text, check=True)
    api.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s", check=True)
    for name in NAMESPACES:
        api.kubectl("create", "namespace", name, check=False)
        api.kubectl("-n", name, "create", "serviceaccount", "default", check=False)


class ApiBackDoor:
    """An API server, as kubectl sees it."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    def read(self, key: Key) -> dict[str, Any]:
        """The whole object."""
        return msgspec.json.decode(self._api.kubectl("get", "--raw", self._path(key), check=True).stdout)

    def write(self, key: Key, document: dict[str, Any]) -> None:
        """Replaces the object, as somebody who knows more fields."""
        text = json.dumps(document)
        self._api.kubectl("replace", "--raw", self._path(key), "-f", "-", stdin=text, check=True)

    def create(self, key: Key, document: dict[str, Any]) -> None:
        """Makes an object."""
        path = self._path(key).rpartition("/")[0]
        self._api.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(document), check=True)

    def remove(self, key: Key) -> None:
        """The object is gone, finalizers or not."""
        patch = '{"metadata": {"finalizers": null}}'
        kind = kinds.BY_NAME[key.kind]
        where = (
            f"{kind.resource}.{kind.group}".rstrip("."),
            key.name,
            *(("-n", key.namespace) if key.namespace else ()),
        )
        self._api.kubectl("patch", *where, "--type=merge", "-p", patch)
        self._api.kubectl("delete", *where, "--ignore-not-found", "--wait=false", "--force", check=True)

    @staticmethod
    def _path(key: Key) -> str:
        kind = kinds.BY_NAME[key.kind]
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        within = f"/namespaces/{key.namespace}" if key.namespace else ""
        return f"{root}{within}/{kind.resource}/{key.name}"


def _empty(api: ApiServer) -> None:
    """Nothing is left of what the contract tests write."""
    found = api.kubectl("get", ",".join(WRITTEN), "-A", "-o", "json", check=True).stdout
    for item in msgspec.json.decode(found)["items"]:
        meta = item["metadata"]
        if meta.get("finalizers"):
            key = Key(item["kind"], meta["name"], meta.get("namespace", ""))
            ApiBackDoor(api).remove(key)
    api.kubectl("delete", ",".join(WRITTEN), "--all", "-A", "--wait=false", check=True)


@pytest.fixture(scope="session")
def token(api: ApiServer) -> str:
    """Of an administrator."""
    api.kubectl("create", "serviceaccount", "admin", check=True)
    binding = ("clusterrolebinding", "admin", "--clusterrole=cluster-admin", "--serviceaccount=default:admin")
    api.kubectl("create", *binding, check=True)
    return api.kubectl("create", "token", "admin", check=True).stdout.strip()


@pytest.fixture
async def faulty(api: ApiServer, store: Store) -> AsyncIterator[Faulty]:
    """A server that has faults before the real one."""
    async with before(api.url, api.ca) as server:
        yield server


@pytest.fixture
async def open_store(api: ApiServer) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    """Opens one more client of the same store."""
    opened: list[Store] = []

    async def another() -> Store:
        opened.append(await KubernetesStore.open(find(str(api.kubeconfig), {})))
        return opened[-1]

    yield another
    for store in opened:
        await store.close()


@pytest.fixture
async def store(api: ApiServer, open_store: Callable[[], Awaitable[Store]]) -> AsyncIterator[Store]:
    """A store under test, empty."""
    yield await open_store()
    _empty(api)


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
