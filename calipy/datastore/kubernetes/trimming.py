"""What is kept of the pods of other nodes: there may be thousands, and each agent holds them all."""

from __future__ import annotations

from msgspec import structs

from calipy.resources import pods
from calipy.resources.metadata import ObjectMeta
from calipy.resources.pods import Container, Pod

_ANNOTATIONS = (pods.POD_IP, pods.POD_IPS)


def trimmed(pod: Pod) -> Pod:
    """Names, UID, labels, deletion mark; service account, node, whether it is on the host's network; ports that have a
    name or are the host's; phase and addresses. What is missing in both of an update's objects is in no patch."""
    spec = structs.replace(
        pod.spec, containers=_with_ports(pod.spec.containers), init_containers=_with_ports(pod.spec.init_containers)
    )
    return structs.replace(pod, metadata=_trimmed_meta(pod.metadata), spec=spec)


def _trimmed_meta(meta: ObjectMeta) -> ObjectMeta:
    notes = meta.annotations
    return ObjectMeta(
        name=meta.name, namespace=meta.namespace, uid=meta.uid, resource_version=meta.resource_version,
        deletion_timestamp=meta.deletion_timestamp, labels=meta.labels,
        annotations={name: notes[name] for name in _ANNOTATIONS if name in notes},
    )  # fmt: skip


def _with_ports(containers: tuple[Container, ...]) -> tuple[Container, ...]:
    told = ((each, tuple(port for port in each.ports if port.name or port.host_port)) for each in containers)
    return tuple(structs.replace(each, ports=ports) for each, ports in told if ports)
