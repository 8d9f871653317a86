"""FelixSettings: the live settings after merging, typed. `configuration.py` makes them; everyone else only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct


class FelixSettings(Struct, frozen=True, gc=False, kw_only=True):
    """What FelixConfiguration, file and environment come to (calico.md 3.12; names as there, seconds where `_s`)."""

    interface_prefixes: tuple[str, ...] = ("cali",)
    ipv6_support: bool = True
    ip_forwarding: Literal["Enabled", "Disabled"] = "Enabled"
    default_endpoint_to_host_action: Literal["DROP", "ACCEPT", "RETURN"] = "DROP"
    filter_deny_action: Literal["DROP", "REJECT"] = "DROP"
    nftables_mark_mask: int = 0xFFFF0000
    """Bits of the packet's mark that are ours."""
    log_prefix: str = "calico-packet"
    log_action_rate_limit: tuple[int, int] | None = None
    """So many packets in so many seconds are logged by one rule; None: all."""
    log_action_rate_limit_burst: int = 5
    disable_conntrack_invalid_check: bool = False
    nat_outgoing_address: str | None = None
    nat_outgoing_exclusions: Literal["IPPoolsOnly", "IPPoolsAndHostIPs"] = "IPPoolsOnly"
    nat_outgoing_interface_filter: str | None = None
    nat_port_range: tuple[int, int] | None = None
    device_route_protocol: int = 80
    device_route_source_address: str | None = None
    device_route_source_address_ipv6: str | None = None
    remove_external_routes: bool = True
    ipv4_normal_route_priority: int = 1024
    ipv6_normal_route_priority: int = 1024
    route_refresh_interval_s: float = 90.0
    nftables_refresh_interval_s: float = 180.0
    external_nodes: tuple[str, ...] = ()
    vxlan_enabled: bool | None = None
    vxlan_mtu: int = 0
    vxlan_mtu_v6: int = 0
    vxlan_port: int = 4789
    vxlan_vni: int = 4096
    checksum_offload_broken: bool = False
    """featureDetectOverride ChecksumOffloadBroken; Linux up to 5.7, which is below our floor, would detect it."""
    allow_vxlan_from_workloads: bool = False
    allow_ipip_from_workloads: bool = False
    mtu_interface_pattern: str = r"^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)"
    program_cluster_routes: Literal["Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly"] = "EnabledIPIPOnly"
    log_severity_screen: str = "Info"
    health_enabled: bool = False
    health_host: str = "localhost"
    health_port: int = 9099
    health_timeout_overrides: Mapping[str, float] = {}
    """Health reporter's name -> seconds without a sign of life; 0 = any time."""
    prometheus_metrics_enabled: bool = False
    prometheus_metrics_host: str = ""
    prometheus_metrics_port: int = 9091
    sources: Mapping[str, str] = {}
    """YAML name -> where its value came from; names that are not there have their default."""
