"""First objects of a cluster, created where absent and never changed: ClusterInformation, tiers, default pools."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress

from msgspec import convert

from calipy.datastore.stores import Exists, Store
from calipy.resources import cluster_informations, ip_pools, tiers
from calipy.resources.cluster_informations import ClusterInformation, ClusterInformationSpec
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import ObjectMeta, accept
from calipy.settings import DefaultPool

DEFAULT_POOL_NAMES = {4: "default-ipv4-ippool", 6: "default-ipv6-ippool"}
CALICO_VERSION = "v3.32.1"
"""The Calico release whose formats we keep: calicoctl compares it with its own."""


async def ensure_cluster(store: Store, pools: Mapping[int, DefaultPool]) -> None:
    """Creates what is missing. A family that has any pool gets no default one. Raises Refused for a wrong pool."""
    await _ensure_information(store)
    for tier in tiers.BUILT_IN.values():
        with suppress(Exists):
            await store.create(tiers.KIND, tier)
    families = set()
    async for page in store.list(ip_pools.KIND):
        families |= {item.value.family for item in page.items}
    for family, pool in pools.items():
        if family not in families:
            await _create_pool(store, family, pool)


async def _ensure_information(store: Store) -> None:
    spec = ClusterInformationSpec(
        cluster_guid=uuid.uuid4().hex, cluster_type="calipy,bgp", calico_version=CALICO_VERSION, datastore_ready=True
    )
    try:
        await store.create(
            cluster_informations.KIND, ClusterInformation(metadata=ObjectMeta(name="default"), spec=spec)
        )
    except Exists:
        return


def default_pool(family: int, pool: DefaultPool) -> IPPool:
    """The pool as an object. Raises Refused where it can't be one."""
    spec = convert(
        {
            "cidr": pool.cidr,
            "blockSize": pool.block_size,
            "natOutgoing": pool.nat_outgoing,
            "vxlanMode": pool.vxlan,
            "ipipMode": pool.ipip,
            "nodeSelector": pool.node_selector,
            "disableBGPExport": pool.disable_bgp_export,
        },
        type=IPPoolSpec,
    )
    return accept(ip_pools.KIND, IPPool(metadata=ObjectMeta(name=DEFAULT_POOL_NAMES[family]), spec=spec))


async def _create_pool(store: Store, family: int, pool: DefaultPool) -> None:
    try:
        await store.create(ip_pools.KIND, default_pool(family, pool))
    except Exists:
        return
