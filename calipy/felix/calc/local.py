"""Local endpoints: CNI's half and the Pod's half joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import structs

from calipy.model.endpoints import EndpointId, WorkloadEndpoint
from calipy.model.links import Link
from calipy.resources import pods
from calipy.resources.metadata import Key
from calipy.resources.pods import Pod


def pod_key(endpoint: WorkloadEndpoint) -> Key:
    """The Pod behind an endpoint."""
    return Key("Pod", endpoint.pod, endpoint.namespace)


def join(attachment: WorkloadEndpoint, pod: Pod | None) -> WorkloadEndpoint:
    """The endpoint with what the newest Pod says; a Pod that isn't there (yet, or any more) takes nothing away."""
    if pod is None:
        return attachment
    return structs.replace(attachment, labels=pod.metadata.labels, service_account=pod.spec.service_account_name)


def restore(node: str, found: Iterable[Pod], links: Iterable[Link], prefix: str) -> Iterator[WorkloadEndpoint]:
    """The attachments that an agent finds when it starts: from the annotations that CNI wrote on this node's Pods, as
    long as the pod's link, marked by its alias with the same container ID, is still there.

    `prefix` is the interface prefix (interfacePrefix). A Pod whose link is gone had its node's power cut: its runtime
    will ask for it anew.
    """
    by_container = {link.alias: link for link in links if link.alias and link.name.startswith(prefix)}
    for pod in found:
        notes = pod.metadata.annotations
        container_id = notes.get(pods.CONTAINER_ID, "")
        addresses = tuple(text.partition("/")[0] for text in notes.get(pods.POD_IPS, "").split(",") if text)
        link = by_container.get(container_id)
        if pod.spec.node_name != node or not container_id or not addresses or link is None:
            continue
        name, namespace = pod.metadata.name, pod.metadata.namespace
        yield WorkloadEndpoint(
            id=EndpointId("k8s", f"{namespace}/{name}", "eth0"),
            container_id=container_id,
            interface=link.name,
            addresses=addresses,
            namespace=namespace,
            pod=name,
        )
