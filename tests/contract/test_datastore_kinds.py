"""A field unknown to us survives every verb, at any depth, for each kind there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from calipy.datastore.stores import Store
from calipy.resources.kinds import ALL
from calipy.resources.metadata import Kind, decode

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


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
async def test_unknown_fields_survive_every_verb(
    kind: Kind[Any], store: Store, back_door: Any, open_store: Callable[[], Awaitable[Store]]
) -> None:
    created = await store.create(kind, decode(kind, msgspec.json.encode(original(kind))))
    key = created.key
    ours = back_door.read(key)
    back_door.write(key, with_future(ours))

    for client in (store, await open_store()):
        read = await client.get(kind, key.name, key.namespace)
        label = {**read.value.metadata.labels, f"label{read.revision}": "x"}
        meta = replace(read.value.metadata, labels=label, finalizers=("calipy.io/test",))
        await client.update(kind, read, replace(read.value, metadata=meta))
    (page,) = [page async for page in store.list(kind)]
    await store.delete(kind, page.items[0])

    found = back_door.read(key)
    assert found["metadata"]["deletionTimestamp"]
    assert len(found["metadata"]["labels"]) == 2
    assert found["fromTheFuture"] == FUTURE["fromTheFuture"]
    assert found["metadata"]["fromTheFuture"] == FUTURE["fromTheFuture"]
    assert found["metadata"]["managedFields"] == [{"manager": "other"}]
    assert found["status"]["fromTheFuture"] == FUTURE["fromTheFuture"]
    assert found["spec"] == {**ours.get("spec", {}), **FUTURE}
