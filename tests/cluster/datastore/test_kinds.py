"""Fields unknown to us survive every verb on a real API server: of our kinds those of a later schema, of Kubernetes'
own those that are there today."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from calipy.resources.metadata import Key, Kind
from tests.cluster.control_plane import ApiServer
from tests.cluster.datastore.conftest import ApiBackDoor
from tests.cluster.datastore.definitions import DEFINED, OWN_GROUPS
from tests.contract import test_datastore_kinds as contract

_CONTAINER = {"name": "web", "image": "local.test/web", "ports": [{"containerPort": 80, "name": "http"}]}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "Node": {"spec": {"podCIDRs": ["10.244.0.0/24"], "taints": [{"key": "a", "effect": "NoSchedule"}]}},
    "Namespace": {},
    "Pod": {"spec": {"containers": [_CONTAINER]}},
    "Secret": {"data": {"a": "Yg=="}, "immutable": True},
    "ServiceAccount": {"automountServiceAccountToken": False},
    "Service": {"spec": {"ports": [{"port": 80, "targetPort": "http"}], "sessionAffinity": "ClientIP"}},
    "EndpointSlice": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.1"], "hints": {"forZones": [{"name": "z"}]}}],
        "ports": [{"port": 80, "name": "", "appProtocol": "http"}],
    },
    "KubernetesNetworkPolicy": {
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {}}]}]}
    },
}  # fmt: skip
"""Of Kubernetes' own kinds: what an API server takes, with more than we know."""


@pytest.fixture
def back_door(api: ApiServer) -> _BackDoor:
    return _BackDoor(api)


class _BackDoor(ApiBackDoor):
    """Kubernetes' own kinds have no later schema; their fields are there from the start."""

    def write(self, key: Key, document: dict[str, Any]) -> None:
        if key.kind not in DOCUMENTS:
            super().write(key, document)


@pytest.fixture
def plant(back_door: _BackDoor) -> Iterator[Callable[[Kind[Any], dict[str, Any]], Awaitable[Key]]]:
    """Makes an object of a document, and tells its key."""
    made: list[Key] = []

    async def create(kind: Kind[Any], document: dict[str, Any]) -> Key:
        meta = document["metadata"]
        key = Key(kind.name, meta["name"], meta.get("namespace", ""))
        made.append(key)
        typed = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {**meta, "generateName": "a-"}}
        back_door.create(key, {**typed, **DOCUMENTS[kind.name]} if kind.name in DOCUMENTS else document)
        return key

    yield create
    for key in made:
        back_door.remove(key)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in contract.ALL if kind in DEFINED or kind.group not in OWN_GROUPS],
    ids=lambda kind: kind.name,
)
async def test_unknown_fields_survive_every_verb(
    kind: Kind[Any],
    store: Any,
    back_door: Any,
    open_store: Any,
    plant: Any,
) -> None:
    await contract.test_unknown_fields_survive_every_verb(kind, store, back_door, open_store, plant)
