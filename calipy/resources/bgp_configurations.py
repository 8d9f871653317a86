"""BGPConfiguration (projectcalico.org/v3): `default` for the cluster, `node.<name>` for one node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.secrets import SecretKeySelector

DEFAULT_AS_NUMBER = 64512
DEFAULT_PORT = 179


class NodeMeshPassword(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Where the mesh's TCP MD5 password is kept."""

    secret_key_ref: SecretKeySelector


class CIDRBlock(Struct, frozen=True, gc=False, kw_only=True):
    """One advertised service range."""

    cidr: str


class Community(Struct, frozen=True, gc=False, kw_only=True):
    """A named community, `aa:nn` or `aa:nn:mm`."""

    name: str
    value: str


class PrefixAdvertisement(Struct, frozen=True, gc=False, kw_only=True):
    """Communities to put on routes inside `cidr`."""

    cidr: str
    communities: tuple[str, ...]


class BGPConfigurationSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """Calico BGPConfigurationSpec. Of a `node.<name>` object only logSeverityScreen, listenPort,
    prefixAdvertisements and communities count."""

    as_number: int | None = None
    node_to_node_mesh_enabled: bool | None = None
    node_mesh_password: NodeMeshPassword | None = None
    node_mesh_max_restart_time: str | None = None
    listen_port: int | None = None
    bind_mode: Literal["None", "NodeIP"] | None = None
    log_severity_screen: str = ""
    service_cluster_ips: tuple[CIDRBlock, ...] = field(name="serviceClusterIPs", default=())
    service_external_ips: tuple[CIDRBlock, ...] = field(name="serviceExternalIPs", default=())
    service_load_balancer_ips: tuple[CIDRBlock, ...] = field(name="serviceLoadBalancerIPs", default=())
    service_load_balancer_aggregation: Literal["Enabled", "Disabled"] | None = None
    communities: tuple[Community, ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    ignored_interfaces: tuple[str, ...] = ()
    local_workload_peering_ipv4: str = field(name="localWorkloadPeeringIPV4", default="")
    local_workload_peering_ipv6: str = field(name="localWorkloadPeeringIPV6", default="")
    ipv4_normal_route_priority: int | None = None
    ipv6_normal_route_priority: int | None = None
    program_cluster_routes: Literal["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"] | None = None


class BGPConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="BGPConfiguration"
):
    """How nodes speak BGP."""

    spec: BGPConfigurationSpec
    api_version: Literal["projectcalico.org/v3"] = "projectcalico.org/v3"


def problems(configuration: BGPConfiguration) -> Iterator[Problem]:
    """Calico's validation of BGPConfiguration."""
    spec, name = configuration.spec, configuration.metadata.name
    if name != "default" and not name.startswith("node."):
        yield Problem("metadata.name", name, "no node reads it", "name it default or node.<node name>")
    if spec.as_number is not None and not 1 <= spec.as_number <= 4294967295:
        yield Problem("spec.asNumber", spec.as_number, "is not an AS number", "1 to 4294967295 (RFC 6793)")
    if spec.listen_port is not None and not 1 <= spec.listen_port <= 65535:
        yield Problem("spec.listenPort", spec.listen_port, "is not a port", "1 to 65535")
    if name != "default":
        yield from _node_problems(spec)
    elif spec.node_to_node_mesh_enabled is False:
        for field_name, value in (
            ("nodeMeshPassword", spec.node_mesh_password),
            ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time),
        ):
            if value is not None:
                yield Problem(
                    f"spec.{field_name}", "set", "the mesh is off", "enable nodeToNodeMeshEnabled or leave it out"
                )


def _node_problems(spec: BGPConfigurationSpec) -> Iterator[Problem]:
    for field_name, value in (
        ("asNumber", spec.as_number),
        ("nodeToNodeMeshEnabled", spec.node_to_node_mesh_enabled),
        ("nodeMeshPassword", spec.node_mesh_password),
        ("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time),
    ):
        if value is not None:
            remedy = "set it on the object default (a node's AS: annotation projectcalico.org/ASNumber)"
            yield Problem(f"spec.{field_name}", "set", "has no meaning for one node", remedy)


KIND = Kind(
    name="BGPConfiguration", group="projectcalico.org", version="v3", plural="bgpconfigurations",
    type=BGPConfiguration, problems=problems, short_names=("bgpconfig", "bgpconfigs"),
)  # fmt: skip
