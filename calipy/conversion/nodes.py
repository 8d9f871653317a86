"""Node (core v1) and Calico's annotations on it -> NodeAddress."""

from __future__ import annotations

import hashlib
import ipaddress
import re

from calipy.model.nodes import NodeAddress, TunnelEnd
from calipy.resources import nodes
from calipy.resources.nodes import Node

_ADDRESS = {4: nodes.IPV4_ADDRESS, 6: nodes.IPV6_ADDRESS}
_VXLAN = {4: (nodes.VXLAN_ADDRESS, nodes.VXLAN_MAC), 6: (nodes.VXLAN_V6_ADDRESS, nodes.VXLAN_V6_MAC)}


def node_address(node: Node) -> NodeAddress:
    """Where a node is. An annotation that can't be read counts as absent: the node's own agent reports it."""
    notes = node.metadata.annotations
    addresses: dict[int, str] = {}
    vxlan: dict[int, TunnelEnd] = {}
    for family in (4, 6):
        address = _interface(notes.get(_ADDRESS[family], ""), family)
        if address:
            addresses[family] = address
        tunnel, mac = (notes.get(name, "") for name in _VXLAN[family])
        if _interface(tunnel, family):
            vxlan[family] = TunnelEnd(tunnel, mac or vxlan_mac(node.metadata.name, family))
    number = notes.get(nodes.AS_NUMBER, "")
    return NodeAddress(
        name=node.metadata.name,
        addresses=addresses,
        vxlan=vxlan,
        as_number=parse_as_number(number),
        cluster_id=notes.get(nodes.ROUTE_REFLECTOR_CLUSTER_ID, ""),
        labels=node.metadata.labels,
    )


def vxlan_mac(node: str, family: int) -> str:
    """A VXLAN device's MAC where no annotation says otherwise: `66:` and 5 bytes of the name's SHA-1, as Felix."""
    digest = hashlib.sha1((node if family == 4 else f"{node}-v6").encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x66, *digest[:5]))


def parse_as_number(text: str) -> int | None:
    """An AS number from `64512` or `1.10` (RFC 5396 asdot); None where `text` is neither."""
    if not _AS_NUMBER.fullmatch(text):
        return None
    high, dot, low = text.partition(".")
    if dot and max(int(high), int(low)) > 0xFFFF:
        return None
    number = (int(high) << 16) + int(low) if dot else int(high)
    return number if 1 <= number <= 0xFFFFFFFF else None


_AS_NUMBER = re.compile(r"[0-9]{1,10}(\.[0-9]{1,5})?")


def _interface(text: str, family: int) -> str:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return ""
    return text if interface.version == family else ""
