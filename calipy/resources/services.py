"""Service (core v1), as far as CalIPy reads it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Resource, no_problems


class ServicePort(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 ServicePort."""

    port: int
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    target_port: int | str | None = None
    """A number, or the name of a container's port; None is `port`."""
    node_port: int = 0


class ServiceSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 ServiceSpec."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: dict[str, str] = {}
    """Of pods in its namespace; empty: its endpoints are somebody else's work."""
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = field(name="clusterIP", default="")
    """`None` for a headless service."""
    cluster_ips: tuple[str, ...] = field(name="clusterIPs", default=())
    external_ips: tuple[str, ...] = field(name="externalIPs", default=())
    load_balancer_ip: str = field(name="loadBalancerIP", default="")
    load_balancer_class: str = ""
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    external_traffic_policy: Literal["Cluster", "Local"] | None = None
    internal_traffic_policy: Literal["Cluster", "Local"] | None = None


class LoadBalancerIngress(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """core/v1 LoadBalancerIngress."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """core/v1 LoadBalancerStatus."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 ServiceStatus."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Service"):
    """A service."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()
    api_version: Literal["v1"] = "v1"


KIND = Kind(
    name="Service", group="", version="v1", plural="services", type=Service, problems=no_problems,
    short_names=("svc",), namespaced=True, names="label",
)  # fmt: skip
