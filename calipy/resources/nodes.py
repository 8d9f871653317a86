"""Node (core v1), as far as CalIPy reads or writes it, and Calico's annotations on it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from calipy.resources.metadata import Kind, Resource, no_problems

NETWORK_UNAVAILABLE = "NetworkUnavailable"
"""Condition: while it is True, the control plane keeps new pods from the node by a taint."""
IPV4_ADDRESS = "projectcalico.org/IPv4Address"
"""The node's address with its subnet's prefix length, 10.9.0.11/24."""
IPV6_ADDRESS = "projectcalico.org/IPv6Address"
AS_NUMBER = "projectcalico.org/ASNumber"
ROUTE_REFLECTOR_CLUSTER_ID = "projectcalico.org/RouteReflectorClusterID"
IPIP_ADDRESS = "projectcalico.org/IPv4IPIPTunnelAddr"
VXLAN_ADDRESS = "projectcalico.org/IPv4VXLANTunnelAddr"
VXLAN_V6_ADDRESS = "projectcalico.org/IPv6VXLANTunnelAddr"
VXLAN_MAC = "projectcalico.org/VXLANTunnelMACAddr"
VXLAN_V6_MAC = "projectcalico.org/VXLANTunnelMACAddrV6"


class NodeSpec(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 NodeSpec."""

    pod_cidrs: tuple[str, ...] = field(name="podCIDRs", default=())


class NodeStatusAddress(Struct, frozen=True, gc=False, kw_only=True):
    """core/v1 NodeAddress."""

    type: str
    address: str


class NodeCondition(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 NodeCondition, all of it: who changes one writes the whole list."""

    type: str
    status: Literal["True", "False", "Unknown"]
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class NodeStatus(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 NodeStatus."""

    addresses: tuple[NodeStatusAddress, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()


class Node(Resource, frozen=True, gc=False, kw_only=True, rename="camel", tag_field="kind", tag="Node"):
    """A machine of the cluster."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()
    api_version: Literal["v1"] = "v1"


KIND = Kind(
    name="Node", group="", version="v1", plural="nodes", type=Node, problems=no_problems, short_names=("no", "nos")
)  # fmt: skip
