"""EndpointSlice (discovery.k8s.io/v1): a part of a Service's endpoints."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from calipy.resources.metadata import Kind, Resource, no_problems

SERVICE_NAME = "kubernetes.io/service-name"
"""Label: the Service in the slice's namespace whose endpoints these are."""


class EndpointConditions(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """discovery.k8s.io/v1 EndpointConditions; None is unknown."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """core/v1 ObjectReference."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Endpoint(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """discovery.k8s.io/v1 Endpoint."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    node_name: str = ""


class EndpointPort(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """discovery.k8s.io/v1 EndpointPort. No port is every port."""

    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: int | None = None


class EndpointSlice(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="EndpointSlice"
):
    """Endpoints of one service and one family. Lists that are empty may be null on the wire."""

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()
    api_version: Literal["discovery.k8s.io/v1"] = "discovery.k8s.io/v1"

    @property
    def service(self) -> str:
        """The name of the Service, in the slice's namespace; empty where nobody says."""
        return self.metadata.labels.get(SERVICE_NAME, "")


KIND = Kind(
    name="EndpointSlice", group="discovery.k8s.io", version="v1", plural="endpointslices", type=EndpointSlice,
    problems=no_problems, namespaced=True,
)  # fmt: skip
