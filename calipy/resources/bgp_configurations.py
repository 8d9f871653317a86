"""BGPConfiguration (projectcalico.org/v3): `default` for the cluster, `node.<name>` for one node."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct, field

from calipy.resources.definitions import Constraint, Definition, Validation, default_or_node
from calipy.resources.durations import PATTERN as DURATION
from calipy.resources.durations import duration_problems
from calipy.resources.metadata import Kind, Problem, Resource
from calipy.resources.secrets import SecretKeySelector

DEFAULT_AS_NUMBER = 64512
DEFAULT_PORT = 179


class NodeMeshPassword(Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """Where the mesh's TCP MD5 password is kept."""

    secret_key_ref: SecretKeySelector
    """The Secret and the key in it."""


class CIDRBlock(Struct, frozen=True, gc=False, kw_only=True):
    """One advertised range of Services' addresses."""

    cidr: str
    """The range: 10.96.0.0/12."""


class Community(Struct, frozen=True, gc=False, kw_only=True):
    """A community under a name of its own."""

    name: str
    """What prefixAdvertisements call it."""
    value: str
    """aa:nn with numbers of 0 to 65535 (RFC 1997), or aa:nn:mm with numbers of 0 to 4294967295 (RFC 8092)."""


class PrefixAdvertisement(Struct, frozen=True, gc=False, kw_only=True):
    """Communities for routes inside a range."""

    cidr: str
    """The range."""
    communities: tuple[str, ...]
    """Names of communities, or communities themselves: aa:nn or aa:nn:mm."""


class BGPConfigurationSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """How nodes speak BGP (Calico's BGPConfigurationSpec). Of an object node.<name> only logSeverityScreen, listenPort,
    prefixAdvertisements and communities count."""

    as_number: int | None = None
    """The nodes' AS number, 1 to 4294967295; a node's annotation projectcalico.org/ASNumber stands above it.
    Default: 64512."""
    node_to_node_mesh_enabled: bool | None = None
    """Whether every node peers with every other. Default: true."""
    node_mesh_password: NodeMeshPassword | None = None
    """The password of the mesh's sessions (TCP MD5, RFC 2385). Default: none."""
    node_mesh_max_restart_time: str | None = None
    """How long the mesh keeps a node's routes while its session is down (graceful restart, RFC 4724), as a duration:
    120s, 2m. Default: 120s."""
    listen_port: int | None = None
    """The TCP port of BGP, 1 to 65535. Default: 179."""
    bind_mode: Literal["None", "NodeIP"] | None = None
    """Whether BGP listens on every address of the node (None), or on its own alone (NodeIP). Known, without effect: it
    listens on the node's own. Default: None."""
    log_severity_screen: str = ""
    """What BGP's log tells of: Trace, Debug, Info, Warning, Error or Fatal, and what is worse. Known, without effect:
    FelixConfiguration's logSeverityScreen is for all of the agent. Default: Info."""
    service_cluster_ips: tuple[CIDRBlock, ...] = field(name="serviceClusterIPs", default=())
    """Ranges of cluster IPs that peers are told of. Known, without effect: CalIPy announces no Services."""
    service_external_ips: tuple[CIDRBlock, ...] = field(name="serviceExternalIPs", default=())
    """Ranges of external IPs that peers are told of. Known, without effect: CalIPy announces no Services."""
    service_load_balancer_ips: tuple[CIDRBlock, ...] = field(name="serviceLoadBalancerIPs", default=())
    """Ranges of load balancers' addresses that peers are told of. Known, without effect: CalIPy announces no
    Services."""
    service_load_balancer_aggregation: Literal["Enabled", "Disabled"] | None = None
    """Whether peers are told of the ranges of serviceLoadBalancerIPs, or of each Service's address alone. Known,
    without effect. Default: Enabled."""
    communities: tuple[Community, ...] = ()
    """Names for communities, which prefixAdvertisements use; 500 at most."""
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    """Which communities go with routes of which ranges; 500 at most."""
    ignored_interfaces: tuple[str, ...] = ()
    """Interfaces whose networks are not told of. Known, without effect: no interface's networks are."""
    local_workload_peering_ipv4: str = field(name="localWorkloadPeeringIPV4", default="")
    """The IPv4 address that pods peer with (BGPPeer's localWorkloadSelector). Known, without effect."""
    local_workload_peering_ipv6: str = field(name="localWorkloadPeeringIPV6", default="")
    """The IPv6 address that pods peer with (BGPPeer's localWorkloadSelector). Known, without effect."""
    ipv4_normal_route_priority: int | None = None
    """The metric of IPv4 routes, 1 to 2147483646, as FelixConfiguration has it. Default: 1024."""
    ipv6_normal_route_priority: int | None = None
    """The metric of IPv6 routes, 1 to 2147483646, as FelixConfiguration has it. Default: 1024."""
    program_cluster_routes: Literal["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"] | None = None
    """Which routes to other nodes' pods come from BGP: those of pools without encapsulation (EnabledNoEncapOnly), with
    IPIP (EnabledIPIPOnly), both (Enabled), or none (Disabled). Known, without effect: FelixConfiguration's field of
    this name says which do not. Default: EnabledNoEncapOnly."""


class BGPConfiguration(
    Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="BGPConfiguration"
):
    """How nodes speak BGP: default for the cluster, node.<name> for one node."""

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


def without_effect(configuration: BGPConfiguration) -> tuple[str, ...]:
    """Fields that the object sets and nothing here reads. Those that an API server fills in are none."""
    spec = configuration.spec
    fields = {
        "bindMode": spec.bind_mode == "None",
        "ignoredInterfaces": spec.ignored_interfaces,
        "localWorkloadPeeringIPV4": spec.local_workload_peering_ipv4,
        "localWorkloadPeeringIPV6": spec.local_workload_peering_ipv6,
        "programClusterRoutes": spec.program_cluster_routes,
    }
    return tuple(name for name, is_set in fields.items() if is_set)


_BLOCKS = ("serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs")
_OF_DEFAULT = ("asNumber", "nodeToNodeMeshEnabled", "nodeMeshPassword", "nodeMeshMaxRestartTime")
_COMMUNITY = "self.matches('^[0-9]{1,10}:[0-9]{1,10}$') ? self.split(':').all(part, int(part) <= 65535) : "
_LARGE_COMMUNITY = (
    "self.matches('^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') ? self.split(':').all(part, int(part) <= 4294967295) : "
)


def _masked(path: str) -> Validation:
    return Validation(
        path=path, rule="!isCIDR(self) || cidr(self) == cidr(self).masked()", message="has bits set behind its prefix"
    )


def _constraints() -> Iterator[Constraint]:
    yield Constraint(path="spec.asNumber", format="int64", minimum=1, maximum=4294967295)
    yield Constraint(path="spec.listenPort", minimum=1, maximum=65535)
    yield Constraint(path="spec.nodeMeshMaxRestartTime", pattern=DURATION)
    yield Constraint(path="spec.nodeMeshPassword.secretKeyRef", map_type="atomic")
    levels = "|".join(_LEVELS)
    yield Constraint(path="spec.logSeverityScreen", pattern=f"^(?i)({levels})?$", default="Info")
    yield Constraint(path="spec.serviceLoadBalancerAggregation", default="Enabled")
    for name in ("ipv4NormalRoutePriority", "ipv6NormalRoutePriority"):
        yield Constraint(path=f"spec.{name}", minimum=1, maximum=2147483646)
    for name in ("localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"):
        yield Constraint(path=f"spec.{name}", max_length=45)
    for name in (*_BLOCKS, "communities", "prefixAdvertisements"):
        yield Constraint(path=f"spec.{name}", list_type="set", max_items=500)
        yield Constraint(path=f"spec.{name}[]", map_type="atomic")
    for name in (*_BLOCKS, "prefixAdvertisements"):
        yield Constraint(path=f"spec.{name}[].cidr", format="cidr", max_length=43)
    yield Constraint(path="spec.communities[].name", max_length=253)
    yield Constraint(path="spec.communities[].value", max_length=32)
    yield Constraint(path="spec.prefixAdvertisements[].communities", max_items=50)
    yield Constraint(path="spec.prefixAdvertisements[].communities[]", max_length=253)
    yield Constraint(path="spec.ignoredInterfaces", list_type="set")


def _validations() -> Iterator[Validation]:
    yield default_or_node("BGPConfiguration")
    for name in _OF_DEFAULT:
        yield Validation(
            path="",
            field=f".spec.{name}",
            rule=f"self.metadata.name == 'default' || !has(self.spec.{name})",
            message="has no meaning for one node: set it on the object default",
            reason="FieldValueForbidden",
        )
    for name in ("nodeMeshPassword", "nodeMeshMaxRestartTime"):
        yield Validation(
            path="spec",
            field=f".{name}",
            rule=f"!has(self.{name}) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled",
            message="the mesh is off: enable nodeToNodeMeshEnabled, or leave it out",
            reason="FieldValueForbidden",
        )
    yield Validation(
        path="spec",
        field=".communities",
        rule="!has(self.communities) || size(self.communities) == 0 || "
        "(has(self.prefixAdvertisements) && size(self.prefixAdvertisements) > 0)",
        message="serve no prefix: set prefixAdvertisements, or leave them out",
    )
    yield Validation(
        path="spec.communities[].value",
        rule=f"{_COMMUNITY}{_LARGE_COMMUNITY}false",
        message="is not a community: write aa:nn or aa:nn:mm",
    )
    for family in (4, 6):
        yield Validation(
            path=f"spec.localWorkloadPeeringIPV{family}",
            rule=f"self == '' || (isIP(self) && ip(self).family() == {family})",
            message=f"is not an IPv{family} address",
        )
    for name in (*_BLOCKS, "prefixAdvertisements"):
        yield _masked(f"spec.{name}[].cidr")


KIND = Kind(
    name="BGPConfiguration", group="projectcalico.org", version="v3", plural="bgpconfigurations",
    type=BGPConfiguration, problems=problems, short_names=("bgpconfig", "bgpconfigs"),
    definition=Definition(
        short_names=("bgpconfig", "bgpconfigs"), constraints=tuple(_constraints()), validations=tuple(_validations())
    ),
)  # fmt: skip
