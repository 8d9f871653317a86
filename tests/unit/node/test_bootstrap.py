"""The first objects of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Page, Store, Stored, Unauthorized
from calipy.node.bootstrap import Cluster, ensure_cluster
from calipy.resources import cluster_informations, config_maps, ip_pools, nodes, tiers
from calipy.resources.config_maps import ConfigMap
from calipy.resources.ip_pools import IPPool
from calipy.resources.metadata import Kind, ObjectMeta
from calipy.resources.nodes import Node, NodeSpec, NodeStatus, NodeStatusAddress
from calipy.settings import DefaultPool


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(tmp_path / "datastore.sqlite3")
    yield store
    await store.close()


async def names(store: Store, kind: Kind[Any]) -> list[str]:
    return [item.key.name async for page in store.list(kind) for item in page.items]


def cluster(hosts: tuple[str, ...] = (), **pools: DefaultPool) -> Cluster:
    return Cluster(
        cluster_type="k8s,bgp", pools={int(name[1]): pool for name, pool in pools.items()}, hosts=hosts
    )  # fmt: skip


async def kubeadm(store: Store, text: str) -> None:
    metadata = ObjectMeta(name="kubeadm-config", namespace="kube-system")
    await store.create(config_maps.KIND, ConfigMap(metadata=metadata, data={"ClusterConfiguration": text}))


async def ranges(store: Store) -> dict[str, str]:
    return {
        item.key.name: item.value.spec.cidr async for page in store.list(ip_pools.KIND) for item in page.items
    }  # fmt: skip


async def test_what_is_missing_is_made_and_what_is_there_stays(store: SQLiteStore) -> None:
    labelled = structs.replace(
        tiers.BUILT_IN["default"], metadata=structs.replace(tiers.BUILT_IN["default"].metadata, labels={"a": "b"})
    )
    await store.create(tiers.KIND, labelled)
    for _ in range(2):
        assert await ensure_cluster(store, cluster(v4=DefaultPool(cidr="10.244.0.0/16"))) == ()
        assert await names(store, tiers.KIND) == ["default", "kube-admin", "kube-baseline"]
        assert await names(store, ip_pools.KIND) == ["default-ipv4-ippool"]
        assert await names(store, cluster_informations.KIND) == ["default"]
    assert (await store.get(tiers.KIND, "default")).value.metadata.labels == {"a": "b"}
    assert (await store.get(tiers.KIND, "kube-admin")).value.spec == tiers.BUILT_IN["kube-admin"].spec
    information = (await store.get(cluster_informations.KIND, "default")).value
    assert (information.spec.cluster_type, information.spec.datastore_ready) == ("k8s,bgp", True)


CONFIGURATION = """
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16,fd00:10:244::/56
  serviceSubnet: 10.96.0.0/16
"""


async def test_kubeadm_tells_the_ranges_of_both_families_and_the_other_settings_hold(store: SQLiteStore) -> None:
    await kubeadm(store, CONFIGURATION)
    await ensure_cluster(store, cluster(v4=DefaultPool(block_size=24, vxlan="Always"), v6=DefaultPool(block_size=122)))
    assert await ranges(store) == {"default-ipv4-ippool": "10.244.0.0/16", "default-ipv6-ippool": "fd00:10:244::/56"}
    spec = (await store.get(ip_pools.KIND, "default-ipv4-ippool")).value.spec
    assert (spec.block_size, spec.vxlan_mode) == (24, "Always")
    information = (await store.get(cluster_informations.KIND, "default")).value
    assert information.spec.cluster_type == "k8s,bgp,kubeadm"


@pytest.mark.parametrize("text", ["networking: [", "networking: 7", "7", ""])
async def test_what_kubeadm_wrote_can_not_be_read(
    store: SQLiteStore, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    await kubeadm(store, text)
    await ensure_cluster(store, cluster(v4=DefaultPool(block_size=26)))
    assert await ranges(store) == {"default-ipv4-ippool": "192.168.0.0/16"}
    said = "ConfigMap/kube-system/kubeadm-config: data.ClusterConfiguration can't be read: "
    assert any(message.startswith(said) for message in caplog.messages) == bool(text)


async def test_podcidrs_and_addresses_of_the_nodes_are_looked_at(
    store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    status = NodeStatus(addresses=(NodeStatusAddress(type="InternalIP", address="192.168.1.1"),))
    node = Node(metadata=ObjectMeta(name="n1"), spec=NodeSpec(pod_cidrs=("192.168.0.0/23",)), status=status)
    await store.create(nodes.KIND, node)
    await ensure_cluster(store, cluster(("172.16.0.1", "fe80::1"), v4=DefaultPool(block_size=26)))
    assert await ranges(store) == {"default-ipv4-ippool": "172.17.0.0/16"}
    assert caplog.messages[0] == (
        "the range of IPPool/default-ipv4-ippool is not 192.168.0.0/23, the smallest range with the podCIDRs of all "
        "Nodes (192.168.0.0/23 of n1): a node has an address in it, 192.168.1.1; set CALICO_IPV4POOL_CIDR to a part of "
        "kube-proxy's clusterCIDR if it shall be another"
    )


async def test_a_family_that_has_a_pool_gets_no_other_and_one_without_traces_none(store: SQLiteStore) -> None:
    spec = ip_pools.IPPoolSpec(cidr="10.1.0.0/16")
    await store.create(ip_pools.KIND, IPPool(metadata=ObjectMeta(name="mine"), spec=spec))
    await ensure_cluster(store, cluster(v4=DefaultPool(block_size=26), v6=DefaultPool(block_size=122)))
    assert await ranges(store) == {"mine": "10.1.0.0/16"}


class Forbidding:
    """A store that lets nobody do some things: the verb and the kind."""

    def __init__(self, store: SQLiteStore, *forbidden: str) -> None:
        self._store = store
        self._forbidden = forbidden

    async def get(self, kind: Kind[Any], name: str, namespace: str = "") -> Stored[Any]:
        self._judge("get", kind)
        return await self._store.get(kind, name, namespace)

    async def create(self, kind: Kind[Any], value: Any) -> Stored[Any]:
        self._judge("create", kind)
        return await self._store.create(kind, value)

    async def list(self, kind: Kind[Any]) -> AsyncIterator[Page[Any]]:
        self._judge("list", kind)
        async for page in self._store.list(kind):
            yield page

    def _judge(self, verb: str, kind: Kind[Any]) -> None:
        if f"{verb} {kind.plural}" in self._forbidden:
            raise Unauthorized(f"{kind.name}: {verb} is forbidden")


# what is forbidden | what is told | what is made nevertheless
FORBIDDEN: list[tuple[tuple[str, ...], list[str], list[str]]] = [
    (("create tiers",), ["Tier: create is forbidden"], ["ClusterInformation", "IPPool"]),
    (("list tiers", "create ippools"), ["Tier: list is forbidden", "IPPool: create is forbidden"],
     ["ClusterInformation"]),
    (("create clusterinformations",), ["ClusterInformation: create is forbidden"], ["Tier", "IPPool"]),
    (("get configmaps", "get services"), [], ["ClusterInformation", "Tier", "IPPool"]),
]  # fmt: skip


@pytest.mark.parametrize(("forbidden", "told", "made"), FORBIDDEN, ids=[" ".join(row[0]) for row in FORBIDDEN])
async def test_what_is_forbidden_is_told_and_the_rest_is_made(
    store: SQLiteStore, forbidden: tuple[str, ...], told: list[str], made: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    asked: Any = Forbidding(store, *forbidden)
    remedy = "; the agent goes on without: create it, or let the agent's ClusterRole do so"
    assert await ensure_cluster(asked, cluster(v4=DefaultPool(block_size=26))) == tuple(
        f"{one}{remedy}" for one in told
    )
    kinds = (cluster_informations.KIND, tiers.KIND, ip_pools.KIND)
    assert [kind.name for kind in kinds if await names(store, kind)] == made
    if not told:
        assert "ConfigMap: get is forbidden; what it says of podSubnet is unknown" in caplog.messages
        assert "Service: get is forbidden; whether a range has Services in it is unknown" in caplog.messages
