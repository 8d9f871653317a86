"""Local endpoints: CNI's half and the Pod's half joined."""

from __future__ import annotations

from msgspec import structs

from calipy.conversion.workloads import named_ports
from calipy.model.endpoints import WorkloadEndpoint
from calipy.resources.metadata import Key, Resource
from calipy.resources.pods import Pod


def pod_key(endpoint: WorkloadEndpoint) -> Key:
    """The Pod behind an endpoint."""
    return Key("Pod", endpoint.pod, endpoint.namespace)


def own(pod: Resource | None, me: str) -> Pod | None:
    """The Pod if it may be that of an endpoint here. One that has been made anew on another node is that node's, also
    while the old one's containers still run here."""
    return pod if isinstance(pod, Pod) and pod.spec.node_name in ("", me) else None


def join(attachment: WorkloadEndpoint, pod: Pod | None) -> WorkloadEndpoint:
    """The endpoint with what the newest Pod says; a Pod that isn't there (yet, or any more) takes nothing away."""
    if pod is None:
        return attachment
    return structs.replace(
        attachment,
        labels=pod.metadata.labels,
        service_account=pod.spec.service_account_name,
        ports=named_ports(pod),
    )


def keep(attachment: WorkloadEndpoint, before: Pod | None, after: Pod | None) -> WorkloadEndpoint:
    """The attachment when its own Pod becomes another: what a Pod said last stays in force where it is gone while its
    containers still run. Policy must not fall back to labels that it had before."""
    return join(attachment, before) if after is None else attachment
