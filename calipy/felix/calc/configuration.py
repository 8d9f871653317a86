"""Live settings: FelixConfiguration objects, file and environment merged into FelixSettings (Calico's precedence).

Low to high: built-in default, object `default`, objects whose nodeSelector matches (by name), object `node.<name>`,
file, environment. Wrong values never get here: objects are refused at the store's edge, file and environment at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from calipy.felix.calc.settings import FelixSettings
from calipy.resources.felix_configurations import FelixConfiguration, Value, values
from calipy.resources.selectors import parse

ATTRIBUTES: Mapping[str, str] = {
    "ipv6Support": "ipv6_support",
    "ipForwarding": "ip_forwarding",
    "defaultEndpointToHostAction": "default_endpoint_to_host_action",
    "nftablesFilterDenyAction": "filter_deny_action",
    "nftablesMarkMask": "nftables_mark_mask",
    "logPrefix": "log_prefix",
    "logActionRateLimit": "log_action_rate_limit",
    "logActionRateLimitBurst": "log_action_rate_limit_burst",
    "disableConntrackInvalidCheck": "disable_conntrack_invalid_check",
    "natOutgoingAddress": "nat_outgoing_address",
    "natOutgoingExclusions": "nat_outgoing_exclusions",
    "iptablesNATOutgoingInterfaceFilter": "nat_outgoing_interface_filter",
    "deviceRouteProtocol": "device_route_protocol",
    "deviceRouteSourceAddress": "device_route_source_address",
    "deviceRouteSourceAddressIPv6": "device_route_source_address_ipv6",
    "removeExternalRoutes": "remove_external_routes",
    "ipv4NormalRoutePriority": "ipv4_normal_route_priority",
    "ipv6NormalRoutePriority": "ipv6_normal_route_priority",
    "routeRefreshInterval": "route_refresh_interval_s",
    "nftablesRefreshInterval": "nftables_refresh_interval_s",
    "vxlanEnabled": "vxlan_enabled",
    "vxlanMTU": "vxlan_mtu",
    "vxlanMTUV6": "vxlan_mtu_v6",
    "vxlanPort": "vxlan_port",
    "vxlanVNI": "vxlan_vni",
    "allowVXLANPacketsFromWorkloads": "allow_vxlan_from_workloads",
    "allowIPIPPacketsFromWorkloads": "allow_ipip_from_workloads",
    "mtuIfacePattern": "mtu_interface_pattern",
    "programClusterRoutes": "program_cluster_routes",
    "logSeverityScreen": "log_severity_screen",
    "healthEnabled": "health_enabled",
    "healthHost": "health_host",
    "healthPort": "health_port",
    "healthTimeoutOverrides": "health_timeout_overrides",
    "prometheusMetricsEnabled": "prometheus_metrics_enabled",
    "prometheusMetricsHost": "prometheus_metrics_host",
    "prometheusMetricsPort": "prometheus_metrics_port",
    "externalNodesList": "external_nodes",
    "natPortRange": "nat_port_range",
}
"""FelixConfiguration's name -> attribute of FelixSettings, where value and type are the same."""

Layer = tuple[str, Mapping[str, Value]]
"""A source's name and its values by FelixConfiguration's names."""


def merge(
    node: str,
    configurations: Iterable[FelixConfiguration],
    labels: Mapping[str, str],
    process: Mapping[str, Mapping[str, Value]],
) -> FelixSettings:
    """The settings in force on `node` with these labels. `process` holds the layers "file" and "environment"."""
    found: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for source, layer in (*_objects(node, configurations, labels), *_process(process)):
        for name, value in layer.items():
            found[name] = value
            sources[name] = source
    return _settings(found, sources)


def _objects(node: str, configurations: Iterable[FelixConfiguration], labels: Mapping[str, str]) -> Iterator[Layer]:
    objects = {configuration.metadata.name: configuration for configuration in configurations}
    selected = [
        name
        for name in sorted(objects)
        if name != "default" and not name.startswith("node.") and _selects(objects[name], labels)
    ]
    for name in ("default", *selected, f"node.{node}"):
        if name in objects:
            yield f"FelixConfiguration/{name}", values(objects[name])


def _selects(configuration: FelixConfiguration, labels: Mapping[str, str]) -> bool:
    selector = configuration.node_selector
    return bool(selector) and parse(selector).matches(labels)


def _process(process: Mapping[str, Mapping[str, Value]]) -> Iterator[Layer]:
    for source in ("file", "environment"):
        if source in process:
            yield source, process[source]


OTHERS = ("interfacePrefix", "featureDetectOverride")
"""Those that become an attribute of another shape."""


def _settings(found: Mapping[str, Value], sources: Mapping[str, str]) -> FelixSettings:
    attributes: dict[str, object] = {
        attribute: found[name] for name, attribute in ATTRIBUTES.items() if found.get(name) is not None
    }
    attributes["checksum_offload_broken"] = found.get("featureDetectOverride") == ("ChecksumOffloadBroken",)
    prefixes = found.get("interfacePrefix")
    if prefixes:
        attributes["interface_prefixes"] = tuple(str(prefixes).split(","))
    return FelixSettings(**attributes, sources=sources)  # type: ignore[arg-type]
