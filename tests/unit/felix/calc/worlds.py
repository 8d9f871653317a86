"""Small words for what happens in a cluster: each makes one event."""

from __future__ import annotations

from typing import Any

import msgspec

from calipy.felix.calc.world import Attached, Detached, Event, ResourceGone, ResourcePut
from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.resources import kinds
from calipy.resources.metadata import Key, Resource, accept

ME = "n1"


def put(value: Resource) -> ResourcePut:
    """A resource is there."""
    return ResourcePut(Key(type(value).__name__, value.metadata.name, value.metadata.namespace), value, 1)


def gone(event: Event) -> ResourceGone:
    """The resource of an event is deleted."""
    assert isinstance(event, ResourcePut)
    return ResourceGone(event.key, 2)


def thing(
    kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None, **fields: Any
) -> ResourcePut:
    """Any object that is right, from its document's fields."""
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}, **fields.pop("metadata", {})}
    found = msgspec.convert({"metadata": metadata, **fields}, kinds.BY_NAME[kind].type)
    return put(accept(kinds.BY_NAME[kind], found))


def np(name: str, namespace: str = "shop", **spec: Any) -> ResourcePut:
    """Calico's policy of a namespace."""
    return thing("NetworkPolicy", name, namespace, spec=spec)


def gnp(name: str, **spec: Any) -> ResourcePut:
    """Calico's policy of the cluster."""
    return thing("GlobalNetworkPolicy", name, spec=spec)


def knp(name: str, namespace: str = "shop", **spec: Any) -> ResourcePut:
    """Kubernetes' policy."""
    return thing("KubernetesNetworkPolicy", name, namespace, spec={"podSelector": {}, **spec})


def tier(name: str, **spec: Any) -> ResourcePut:
    """A tier."""
    return thing("Tier", name, spec=spec)


def gns(name: str, *nets: str, **labels: str) -> ResourcePut:
    """A network set of the cluster."""
    return thing("GlobalNetworkSet", name, labels=labels, spec={"nets": nets})


def ns(name: str = "shop", **labels: str) -> ResourcePut:
    """A Namespace."""
    return thing("Namespace", name, labels=labels)


def pod(
    name: str, *addresses: str, node: str = "n2", namespace: str = "shop", account: str = "", phase: str = "Running",
    ports: tuple[dict[str, Any], ...] = (), metadata: dict[str, Any] | None = None, **labels: str,
) -> ResourcePut:  # fmt: skip
    """A Pod, of another node where nothing else is said."""
    return thing(
        "Pod", name, namespace, labels,
        spec={"nodeName": node, "serviceAccountName": account, "containers": [{"ports": ports}]},
        status={"phase": phase, "podIPs": [{"ip": address} for address in addresses]},
        metadata=metadata or {},
    )  # fmt: skip


def endpoints(service: str, *addresses: str, namespace: str = "shop", name: str = "", **fields: Any) -> ResourcePut:
    """An EndpointSlice, of port 80."""
    family = "IPv6" if any(":" in address for address in addresses) else "IPv4"
    return thing(
        "EndpointSlice", name or f"{service}-{family.lower()}", namespace, {"kubernetes.io/service-name": service},
        **{
            "addressType": family,
            "endpoints": [{"addresses": [address]} for address in addresses],
            "ports": [{"port": 80}],
            **fields,
        },
    )  # fmt: skip


def attached(name: str, *addresses: str, namespace: str = "shop", **more: Any) -> Attached:
    """CNI attaches a pod here; it knows what the Pod said when it looked."""
    return Attached(
        WorkloadEndpoint(
            id=here(name, namespace),
            container_id=more.pop("container", "c"),
            interface=f"cali{name}",
            addresses=addresses,
            namespace=namespace,
            pod=name,
            **more,
        )  # fmt: skip
    )


def detached(name: str, namespace: str = "shop") -> Detached:
    """CNI lets go of it."""
    return Detached(here(name, namespace))


def bare(name: str, *addresses: str) -> Attached:
    """CNI attaches a container that is no pod."""
    id_ = EndpointId("cni", name, "eth0")
    return Attached(WorkloadEndpoint(id=id_, container_id=name, interface=f"cali{name}", addresses=addresses))


def here(name: str, namespace: str = "shop") -> EndpointId:
    """The identity of a pod's endpoint."""
    return EndpointId("k8s", f"{namespace}/{name}", "eth0")


def felix(**spec: Any) -> ResourcePut:
    """Settings."""
    return thing("FelixConfiguration", "default", spec=spec)
