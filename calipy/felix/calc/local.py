"""Local endpoints: CNI's half and the Pod's half joined."""

from __future__ import annotations

from msgspec import structs

from calipy.model.endpoints import WorkloadEndpoint
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
