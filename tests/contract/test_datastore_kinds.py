"""A field unknown to us survives every verb, at any depth, for each kind there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from calipy.datastore.patches import difference, document
from calipy.datastore.stores import Store
from calipy.resources.kinds import ALL
from calipy.resources.metadata import Key, Kind, decode

SPECS: dict[str, dict[str, Any]] = {
    "Node": {"podCIDRs": ["10.244.0.0/24"]},
    "Namespace": {},
    "Pod": {"nodeName": "n1"},
    "IPPool": {"cidr": "10.244.0.0/16", "natOutgoing": True},
    "IPAMBlock": {
        "cidr": "10.244.0.0/31",
        "allocations": [0, None],
        "unallocated": [1],
        "attributes": [{"handle_id": "h", "fromTheFuture": {"deep": 1}}],
    },
    "BlockAffinity": {"cidr": "10.244.0.0/26", "node": "n1", "state": "confirmed", "type": "host"},
    "IPAMHandle": {"handleID": "h", "block": {"10.244.0.0/26": 1}},
    "IPAMConfiguration": {"strictAffinity": False, "autoAllocateBlocks": True},
    "IPReservation": {"reservedCIDRs": ["10.244.0.0/28"]},
    "FelixConfiguration": {},
    "BGPConfiguration": {},
    "CalipyConfiguration": {"policyRecheck": "Enabled"},
    "BGPPeer": {"peerIP": "192.0.2.1", "asNumber": 64512},
    "BGPFilter": {"exportV4": [{"action": "Reject"}]},
    "HostEndpoint": {"node": "n1", "interfaceName": "eth0"},
    "StagedNetworkPolicy": {"stagedAction": "Delete"},
    "CalicoNodeStatus": {"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 10},
    "KubeControllersConfiguration": {"controllers": {}},
    "ClusterInformation": {"clusterGUID": "0123"},
    "NetworkPolicy": {"selector": "all()", "ingress": [{"action": "Allow", "source": {"nets": ["10.0.0.0/8"]}}]},
    "GlobalNetworkPolicy": {"order": 10.5, "types": ["Egress"], "egress": [{"action": "Deny", "protocol": "TCP"}]},
    "KubernetesNetworkPolicy": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}],
    },
    "Tier": {"order": 7},
    "NetworkSet": {"nets": ["192.0.2.0/24"]},
    "GlobalNetworkSet": {"nets": ["192.0.2.0/24"]},
    "StagedKubernetesNetworkPolicy": {"podSelector": {}},
    "Profile": {"labelsToApply": {"a": "b"}},
    "Service": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
}
OUTSIDE_SPEC: dict[str, dict[str, Any]] = {
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.244.0.1"]}], "ports": [{"port": 80}]},
}
FUTURE = {"fromTheFuture": {"deep": {"list": [1, {"a": "b"}], "text": "\u00e9"}}}
SINGLE = (
    "FelixConfiguration", "BGPConfiguration", "ClusterInformation", "IPAMConfiguration", "CalipyConfiguration",
    "KubeControllersConfiguration",
)  # fmt: skip


def original(kind: Kind[Any]) -> dict[str, Any]:
    """A valid object of `kind` as we would write it. A new kind needs its line above, if it has a required field."""
    meta = {"name": "default" if kind.name in SINGLE else "a", **({"namespace": "one"} if kind.namespaced else {})}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": meta,
        "spec": SPECS.get(kind.name, {}),
        **OUTSIDE_SPEC.get(kind.name, {}),
    }


def with_future(document: dict[str, Any]) -> dict[str, Any]:
    """The same as a later version of the API would have it."""
    return {
        **document,
        **FUTURE,
        "metadata": {**document["metadata"], **FUTURE, "managedFields": [{"manager": "other"}]},
        "spec": {**document.get("spec", {}), **FUTURE},
        "status": {**document.get("status", {}), **FUTURE},
    }


CHANGED = {
    "labels", "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation",
    "managedFields",
}  # fmt: skip
"""What the verbs below change in metadata, and the store with them."""


def unchanged(document: dict[str, Any]) -> dict[str, Any]:
    """All that no verb below may touch."""
    meta = {name: value for name, value in document["metadata"].items() if name not in CHANGED}
    return {**document, "metadata": meta}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
async def test_unknown_fields_survive_every_verb(
    kind: Kind[Any],
    store: Store,
    back_door: Any,
    open_store: Callable[[], Awaitable[Store]],
    plant: Callable[[Kind[Any], dict[str, Any]], Awaitable[Key]],
) -> None:
    key = await plant(kind, original(kind))
    back_door.write(key, with_future(back_door.read(key)))
    before = back_door.read(key)
    ours = document(decode(kind, msgspec.json.encode(before)))
    assert difference(unchanged(ours), unchanged(before)) != {}, "the store holds something that is unknown to us"

    for client in (store, await open_store()):
        read = await client.get(kind, key.name, key.namespace)
        label = {**read.value.metadata.labels, f"label{read.revision}": "x"}
        meta = replace(read.value.metadata, labels=label, finalizers=("calipy.io/test",))
        await client.update(kind, read, replace(read.value, metadata=meta))
    found = back_door.read(key)
    assert len(found["metadata"]["labels"]) == len(before["metadata"].get("labels", {})) + 2
    assert unchanged(found) == unchanged(before)

    await store.delete(kind, await store.get(kind, key.name, key.namespace))
    found = back_door.read(key)
    assert found["metadata"]["deletionTimestamp"]
    if kind.name != "Namespace":  # an API server says in its status that it is being deleted
        assert unchanged(found) == unchanged(before)
