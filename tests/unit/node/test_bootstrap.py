"""The first objects of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import structs

from calipy.datastore.sqlite import SQLiteStore
from calipy.datastore.stores import Store
from calipy.node.bootstrap import ensure_cluster
from calipy.resources import cluster_informations, ip_pools, tiers
from calipy.resources.metadata import Kind
from calipy.settings import DefaultPool


async def names(store: Store, kind: Kind[Any]) -> list[str]:
    return [item.key.name async for page in store.list(kind) for item in page.items]


async def test_what_is_missing_is_made_and_what_is_there_stays(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "datastore.sqlite3")
    labelled = structs.replace(
        tiers.BUILT_IN["default"], metadata=structs.replace(tiers.BUILT_IN["default"].metadata, labels={"a": "b"})
    )
    await store.create(tiers.KIND, labelled)
    for _ in range(2):
        await ensure_cluster(store, {4: DefaultPool(cidr="10.244.0.0/16")})
        assert await names(store, tiers.KIND) == ["default", "kube-admin", "kube-baseline"]
        assert await names(store, ip_pools.KIND) == ["default-ipv4-ippool"]
        assert await names(store, cluster_informations.KIND) == ["default"]
    assert (await store.get(tiers.KIND, "default")).value.metadata.labels == {"a": "b"}
    assert (await store.get(tiers.KIND, "kube-admin")).value.spec == tiers.BUILT_IN["kube-admin"].spec
    await store.close()
