"""BGPConfiguration (projectcalico.org/v3): `default` for the cluster, `node.<name>` for one node."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.durations import duration_problems
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
    yield from _range_problems(spec)
    yield from duration_problems("spec.nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time)
    yield from _address_problems(spec)
    yield from _community_problems(spec)
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


_LEVELS = ("Trace", "Debug", "Info", "Warning", "Error", "Fatal")


def _range_problems(spec: BGPConfigurationSpec) -> Iterator[Problem]:
    for name, number, high, reason in (
        ("asNumber", spec.as_number, 4294967295, "is not an AS number (RFC 6793)"),
        ("listenPort", spec.listen_port, 65535, "is not a port"),
        ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority, 2147483646, "is not a route's metric"),
        ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority, 2147483646, "is not a route's metric"),
    ):
        if number is not None and not 1 <= number <= high:
            yield Problem(f"spec.{name}", number, reason, f"write 1 to {high}")
    if spec.log_severity_screen and spec.log_severity_screen.capitalize() not in _LEVELS:
        yield Problem("spec.logSeverityScreen", spec.log_severity_screen, "is no level", f"write {', '.join(_LEVELS)}")


def _address_problems(spec: BGPConfigurationSpec) -> Iterator[Problem]:
    for name, blocks in (
        ("serviceClusterIPs", spec.service_cluster_ips),
        ("serviceExternalIPs", spec.service_external_ips),
        ("serviceLoadBalancerIPs", spec.service_load_balancer_ips),
    ):
        for index, block in enumerate(blocks):
            yield from _cidr_problems(f"spec.{name}[{index}].cidr", block.cidr)
    for family, text in ((4, spec.local_workload_peering_ipv4), (6, spec.local_workload_peering_ipv6)):
        try:
            fits = not text or ipaddress.ip_address(text).version == family
        except ValueError:
            fits = False
        if not fits:
            field_name = f"spec.localWorkloadPeeringIPV{family}"
            yield Problem(field_name, text, f"is not an IPv{family} address", "write one that workloads peer with")


def _cidr_problems(field_name: str, text: str) -> Iterator[Problem]:
    try:
        if "/" not in text:
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        yield Problem(field_name, text, "is not a CIDR", "write an address and a prefix length, 10.96.0.0/12")
        return
    if str(network.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        yield Problem(field_name, text, "has bits set behind its prefix", f"write {network}")


_MOST_COMMUNITY = {2: 0xFFFF, 3: 0xFFFFFFFF}
"""Parts -> the highest value of one: communities of RFC 1997 and large ones of RFC 8092."""


def _is_community(text: str) -> bool:
    parts = text.split(":")
    most = _MOST_COMMUNITY.get(len(parts), -1)
    return all(re.fullmatch(r"[0-9]{1,10}", part) and int(part) <= most for part in parts)


def _community_problems(spec: BGPConfigurationSpec) -> Iterator[Problem]:
    names = {community.name for community in spec.communities}
    for index, community in enumerate(spec.communities):
        if not _is_community(community.value):
            field_name = f"spec.communities[{index}].value"
            yield Problem(field_name, community.value, "is not a community", "write aa:nn or aa:nn:mm")
    if spec.communities and not spec.prefix_advertisements:
        yield Problem(
            "spec.communities", sorted(names), "serve no prefix", "set prefixAdvertisements, or leave them out"
        )
    for index, advertisement in enumerate(spec.prefix_advertisements):
        yield from _cidr_problems(f"spec.prefixAdvertisements[{index}].cidr", advertisement.cidr)
        for text in advertisement.communities:
            if text not in names and not _is_community(text):
                field_name = f"spec.prefixAdvertisements[{index}].communities"
                remedy = "name it in spec.communities, or write aa:nn or aa:nn:mm"
                yield Problem(field_name, text, "is neither a community nor the name of one", remedy)


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
