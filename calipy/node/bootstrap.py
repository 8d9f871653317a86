"""First objects of a cluster, created where absent and never changed: ClusterInformation, tiers, default pools.

What the API server forbids is told, and no node waits for it: somebody else may make these objects, too.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct, convert, structs

from calipy.datastore.stores import Exists, NotFound, Store, Unauthorized
from calipy.node.pool_ranges import FALLBACK, Traces, find
from calipy.resources import cluster_informations, config_maps, ip_pools, nodes, services, tiers
from calipy.resources.cluster_informations import ClusterInformation, ClusterInformationSpec
from calipy.resources.ip_pools import IPPool, IPPoolSpec
from calipy.resources.metadata import Kind, ObjectMeta, R, accept
from calipy.settings import DefaultPool

DEFAULT_POOL_NAMES = {4: "default-ipv4-ippool", 6: "default-ipv6-ippool"}
CALICO_VERSION = "v3.32.1"
"""The Calico release whose formats we keep: calicoctl compares it with its own."""
_KUBEADM = ("kubeadm-config", "kube-system")
log = logging.getLogger("calipy.node.bootstrap")


class Cluster(Struct, frozen=True, gc=False, kw_only=True):
    """What the first node to come tells of the cluster."""

    cluster_type: str
    """`k8s,bgp`; `,kubeadm` is added where kubeadm made it."""
    pools: Mapping[int, DefaultPool]
    """By family; one without a range gets what `pool_ranges` finds. A family left out gets none."""
    hosts: Iterable[str] = ()
    """This host's addresses."""


async def ensure_cluster(store: Store, cluster: Cluster) -> tuple[str, ...]:
    """Creates what is missing; gives what it may not. A family that has any pool gets no default one. Raises Refused
    for a wrong pool, and StoreError."""
    forbidden: list[str] = []
    for ensure in (_ensure_information, _ensure_tiers, _ensure_pools):
        try:
            await ensure(store, cluster)
        except Unauthorized as error:
            forbidden.append(f"{error}; the agent goes on without: create it, or let the agent's ClusterRole do so")
    return tuple(forbidden)


async def _ensure_information(store: Store, cluster: Cluster) -> None:
    try:
        await store.get(cluster_informations.KIND, "default")
    except NotFound:
        kind = f"{cluster.cluster_type}{',kubeadm' if await _kubeadm(store) is not None else ''}"
        spec = ClusterInformationSpec(
            cluster_guid=uuid.uuid4().hex, cluster_type=kind, calico_version=CALICO_VERSION, datastore_ready=True
        )
        information = ClusterInformation(metadata=ObjectMeta(name="default"), spec=spec)
        await _create(store, cluster_informations.KIND, information)


async def _ensure_tiers(store: Store, cluster: Cluster) -> None:
    found = {item.key.name async for page in store.list(tiers.KIND) for item in page.items}
    for name, tier in tiers.BUILT_IN.items():
        if name not in found:
            await _create(store, tiers.KIND, tier)


async def _ensure_pools(store: Store, cluster: Cluster) -> None:
    if not cluster.pools:
        return
    families = {item.value.family async for page in store.list(ip_pools.KIND) for item in page.items}
    missing = {family: pool for family, pool in cluster.pools.items() if family not in families}
    unknown = any(not pool.cidr for pool in missing.values())
    traces = await _traces(store, cluster.hosts) if unknown else Traces()
    for family, pool in missing.items():
        cidr = pool.cidr or _range(traces, family, pool.block_size)
        if cidr:
            await _create(store, ip_pools.KIND, default_pool(family, structs.replace(pool, cidr=cidr)))


def _range(traces: Traces, family: int, block_size: int) -> str:
    """Empty if there shall be no pool."""
    found, pool = find(family, block_size, traces), DEFAULT_POOL_NAMES[family]
    remedy = f"set CALICO_IPV{family}POOL_CIDR to a part of kube-proxy's clusterCIDR if it shall be another"
    for doubt in found.doubts:
        log.warning("the range of IPPool/%s is not %s; %s", pool, doubt, remedy)
    if found.cidr:
        log.info("the range of IPPool/%s is %s: %s", pool, found.cidr, found.source)
    return found.cidr


async def _traces(store: Store, hosts: Iterable[str]) -> Traces:
    """What the store knows that may tell of clusterCIDR."""
    text = await _kubeadm(store)
    found = [item.value async for page in store.list(nodes.KIND) for item in page.items]
    others = (entry.address for node in found for entry in node.status.addresses if entry.type.endswith("IP"))
    return Traces(
        pod_subnet=_pod_subnet(text) if text else "",
        pod_cidrs={node.metadata.name: node.spec.pod_cidrs for node in found},
        hosts=tuple(sorted({*hosts, *others})),
        service=await _service_address(store),
    )


async def _service_address(store: Store) -> str:
    try:
        return (await store.get(services.KIND, "kubernetes", "default")).value.spec.cluster_ip
    except NotFound:
        return ""
    except Unauthorized as error:
        log.warning("%s; whether a range has Services in it is unknown", error)
        return ""


async def _kubeadm(store: Store) -> str | None:
    """kubeadm's ClusterConfiguration; None where kubeadm has written none, or it may not be read."""
    try:
        return (await store.get(config_maps.KIND, *_KUBEADM)).value.data.get("ClusterConfiguration", "")
    except NotFound:
        return None
    except Unauthorized as error:
        log.warning("%s; what it says of podSubnet is unknown", error)
        return None


class _Networking(Struct, frozen=True, gc=False, rename="camel"):
    pod_subnet: str = ""


class _ClusterConfiguration(Struct, frozen=True, gc=False):
    networking: _Networking = _Networking()


def _pod_subnet(text: str) -> str:
    """kubeadm.k8s.io ClusterConfiguration's networking.podSubnet."""
    import yaml  # once in a cluster's life

    try:
        document = yaml.load(text, yaml.CSafeLoader)
        return convert(document, _ClusterConfiguration).networking.pod_subnet
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        said = " ".join(str(error).split())
        log.warning("ConfigMap/kube-system/kubeadm-config: data.ClusterConfiguration can't be read: %s", said)
        return ""


def judged(family: int, pool: DefaultPool) -> None:
    """Raises Refused where the settings of a default pool don't go together, whatever its range will be."""
    default_pool(family, pool if pool.cidr else structs.replace(pool, cidr=FALLBACK[family]))


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


async def _create(store: Store, kind: Kind[R], value: R) -> None:
    """Another node may have been quicker."""
    try:
        await store.create(kind, value)
    except Exists:
        return
